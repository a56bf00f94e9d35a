"""Paths that differ, in words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from ets import identity
from ets.audit import wording
from ets.audit.finding import Finding
from ets.audit.manifest import Item, show

#: server → path → what lies there
Trees = Mapping[str, Mapping[str, Item]]
#: a path → the package that it came with, as any of the servers says
Owners = Mapping[str, str]

#: set-user-ID and set-group-ID
_SPECIAL = 0o6000


def compare(servers: Sequence[str], trees: Trees, owners: Owners) -> Iterator[Finding]:
    """A finding for each path that must be equal and is not."""
    first = servers[0] if servers else ""
    told = [server for server in servers if server in trees]
    for path in sorted({path for server in told for path in trees[server]}):
        items = {server: trees[server].get(path) for server in told}
        if len(set(items.values())) < 2 or not identity.compared(path):
            continue
        yield _file(path, items, first, owners.get(path, ""))


def _file(path: str, items: Mapping[str, Item | None], first: str, owner: str) -> Finding:
    there = {server: item for server, item in items.items() if item is not None}
    without = [server for server in items if server not in there]
    one = next(iter(there.values()))
    of = f" (of package {owner})" if owner else ""
    name = f"{one.kind} {show(path)}{of}"
    said = []
    if without:
        said.append(wording.presence(name, "file", list(there), without, first))
    parts = _parts(there, first)
    if parts:
        said.append(f"{name} {'; '.join(parts)}")
    modes = {item.mode & _SPECIAL for item in there.values()} | ({0} if without else set())
    special = one.kind == "file" and modes != {0} and (bool(without) or len(modes) > 1)
    groups: dict[str | None, list[str]] = {}
    for server, item in items.items():
        groups.setdefault(repr(item), []).append(server)
    only_content = not without and len({replace(i, content="") for i in there.values()}) == 1
    return Finding(
        "file",
        path,
        wording.file_harm(path, special=special or "capabilities" in " ".join(parts)),
        "; ".join(said),
        {server: _brief(item) for server, item in items.items()},
        odd=wording.odd(groups, first),
        attribute="content" if only_content else "",
        missing=tuple(without),
        about={"kind": one.kind},
    )


def _parts(there: Mapping[str, Item], first: str) -> list[str]:
    said = []
    if len(kinds := _grouped(there, lambda item: item.kind)) > 1:
        return [f"is {wording.listed([f'a {k} on {wording.listed(s)}' for k, s in kinds.items()])}"]
    if len(contents := _grouped(there, lambda item: item.content)) > 1:
        links = next(iter(there.values())).kind == "link"
        told = [f"{show(to or '')} on {wording.listed(s)}" for to, s in contents.items()]
        said.append(
            f"points to {wording.listed(told)}"
            if links
            else f"has another content on {wording.apart(contents, first)}"
        )
    if len(modes := _grouped(there, lambda item: f"{item.mode:04o}")) > 1:
        told = [f"{mode} on {wording.listed(s)}" for mode, s in modes.items()]
        said.append(f"has mode {wording.listed(told)}")
    if len(whose := _grouped(there, lambda item: f"{item.owner}:{item.group}")) > 1:
        told = [f"{who} on {wording.listed(s)}" for who, s in whose.items()]
        said.append(f"belongs to {wording.listed(told)}")
    if len(more := _grouped(there, lambda item: item.more)) > 1:
        what = "capabilities, ACLs or attributes"
        bare = more.pop("", [])
        said.append(
            f"has no {what} on {wording.listed(bare)}, but on "
            f"{wording.listed([s for servers in more.values() for s in servers])}"
            if bare
            else f"has other {what} on {wording.apart(more, first)}"
        )
    return said


def _grouped(there: Mapping[str, Item], key: Callable[[Item], str]) -> dict[str | None, list[str]]:
    groups: dict[str | None, list[str]] = {}
    for server, item in there.items():
        groups.setdefault(key(item), []).append(server)
    return groups


def _brief(item: Item | None) -> str:
    if item is None:
        return "missing"
    more = f" +{item.more[:8]}" if item.more else ""
    content = show(item.content) if item.kind == "link" else item.content[:12]
    return f"{item.kind} {item.mode:04o} {item.owner}:{item.group} {content}{more}".strip()
