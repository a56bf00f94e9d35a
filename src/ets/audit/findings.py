"""What differs between servers, in an admin's words and by order of harm.

``compare`` takes inventories and the paths whose content is not equal, and gives findings: one for
each thing that somebody did, with what follows from it below. What ``ets.identity`` lets differ is
left out, and so are the servers' own names and addresses where they stand in other things. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ets.audit import collapse, files, wording
from ets.audit.files import Owners, Trees
from ets.audit.finding import Finding
from ets.audit.manifest import show
from ets.audit.mask import Mask
from ets.facts.inventory import Inventory

__all__ = ["Finding", "Owners", "Trees", "compare", "odd_one"]

#: kinds in which names and addresses of the servers may stand
_MASKED = {"socket", "nft", "share", "printer", "certificate", "cmdline", "mount"}
_UNCOMPARED = {"address"}


def compare(
    inventories: Sequence[Inventory], trees: Trees | None = None, owners: Owners | None = None
) -> tuple[Finding, ...]:
    """All that differs. The first inventory is the reference where only two are compared.
    ``trees`` need hold only paths that are not equal on all servers."""
    servers = [inventory.server for inventory in inventories]
    found = list(_facts(inventories))
    found += _untold(inventories)
    found += files.compare(servers or list(trees or ()), trees or {}, owners or {})
    told = collapse.collapsed(found, owners or {})
    return tuple(sorted(told, key=lambda f: (-f.harm, f.kind, f.subject, f.attribute)))


def odd_one(findings: Sequence[Finding], servers: Sequence[str]) -> str:
    """The server that is probably the odd one among three or more; empty when none stands out."""
    count = {name: sum(f.odd == (name,) for f in findings) for name in servers}
    worst = max(count, key=lambda name: count[name], default="")
    stands_out = worst and 2 * count[worst] > len(findings)
    return worst if stands_out and len(servers) > 2 else ""


def _facts(inventories: Sequence[Inventory]) -> Iterator[Finding]:
    kinds = sorted({kind for inventory in inventories for kind in inventory.facts} - _UNCOMPARED)
    masks = [Mask(inventory, inventories) for inventory in inventories]
    for kind in kinds:
        told = {}
        for inventory, mask in zip(inventories, masks, strict=True):
            if kind in inventory.facts or _empty(inventory, kind):
                named = inventory.facts.get(kind, {})
                told[inventory.server] = mask.facts(named) if kind in _MASKED else named
        if len(told) > 1:
            yield from _kind(kind, told)


def _empty(inventory: Inventory, kind: str) -> bool:
    """A server without the program that manages a thing has none of them."""
    return inventory.absent.get(kind, "").startswith("there is no ")


def _untold(inventories: Sequence[Inventory]) -> Iterator[Finding]:
    for inventory in inventories:
        for kind, why in inventory.absent.items():
            others = [other for other in inventories if kind in other.facts]
            if others and not _empty(inventory, kind):
                words = f"{inventory.server} does not tell its {wording.NOUNS.get(kind, kind)}s:"
                yield Finding("audit", kind, 65, f"{words} {why}", {inventory.server: why})


def _kind(kind: str, told: Mapping[str, Mapping[str, Mapping[str, str]]]) -> Iterator[Finding]:
    first = next(iter(told))
    for subject in sorted({name for named in told.values() for name in named}):
        there = [server for server, named in told.items() if subject in named]
        without = [server for server in told if server not in there]
        name = wording.thing(kind, show(subject))
        if without:
            abouts = [told[server][subject] for server in there]
            yield Finding(
                kind,
                subject,
                wording.harm(kind, "uid", [about.get("uid") for about in abouts]),
                wording.presence(name, kind, there, without, first),
                {server: "there" if server in there else "missing" for server in told},
                odd=wording.odd({"there": there, None: without}, first),
                missing=tuple(without),
                about=abouts[0],
            )
        yield from _attributes(kind, subject, {s: told[s][subject] for s in there}, first)


def _attributes(
    kind: str, subject: str, abouts: Mapping[str, Mapping[str, str]], first: str
) -> Iterator[Finding]:
    for attribute in sorted({key for about in abouts.values() for key in about}):
        groups: dict[str | None, list[str]] = {}
        for server, about in abouts.items():
            groups.setdefault(about.get(attribute), []).append(server)
        if len(groups) < 2:
            continue
        yield Finding(
            kind,
            subject,
            wording.harm(kind, attribute, list(groups)),
            wording.difference(wording.thing(kind, show(subject)), kind, attribute, groups, first),
            {server: about.get(attribute, "none") for server, about in abouts.items()},
            odd=wording.odd(groups, first),
            attribute=attribute,
            about=next(iter(abouts.values())),
        )
