"""Which of a machine's network cards is on which of the site's networks.

The card that the machine booted from is on the stations' network. For the others the server that is
copied is asked (ARP probe, RFC 5227): a card belongs to the network whose card there answers. That
it answers says nothing, for Linux answers for all its addresses on every card; which of its cards
does, tells. Only where nobody can be heard, the cards' order decides, and that is said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ets import paths
from ets.errors import CloneError
from ets.host.transport import Host
from ets.site.load import parse
from ets.site.model import ROLES, Role, Site

#: seconds to wait for an answer, and for a carrier
_ANSWER = 2
_CARRIER = 6

_WAIT = """
for tenth in $(seq "${2}0"); do
    [ "$(cat "/sys/class/net/$1/carrier" 2>&1)" = 1 ] && exit 0
    sleep 0.1
done
exit 1
"""


@dataclass(frozen=True, slots=True)
class Card:
    """A physical card: its name now, its MAC, and the networks on which somebody answered it."""

    name: str
    mac: str
    hears: frozenset[Role] = frozenset()


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A server that can be asked: its address and the MAC of its card, on each network."""

    addresses: Mapping[Role, str]
    macs: Mapping[Role, str]


def cards(
    host: Host, root: Path, server: str, boot: str, *, source: str, known: Mapping[str, str]
) -> dict[Role, str]:
    """The MAC of the card on each network of ``server``, on this machine. ``root`` is the copied
    tree, ``boot`` the MAC of the card that it booted from (empty: unknown), ``source`` the server
    that was copied, and ``known`` the MACs of its cards by their names.

    Raises CloneError when there is a network without a card, HostError.
    """
    place = root / str(paths.SITE_FILE).lstrip("/")
    site = parse(place.read_bytes(), str(place))
    roles = tuple(role for role in ROLES if role in site.server(server).addresses)
    found = physical(host)
    boot = boot or site.server(server).mac or ""
    if set(roles) != {"stations"}:
        asked = neighbour(site, source, known)
        found = [card if card.mac == boot else _asked(host, card, asked) for card in found]
    chosen = assign(found, site, roles, boot)
    if lacking := [role for role in roles if role not in chosen]:
        raise CloneError(
            f"{server} has an address on the network {' and '.join(lacking)}, and this machine has "
            f"no card for it (its cards: {', '.join(card.name for card in found) or 'none'})",
            hint="plug one in and start again; or take its address out of the site file",
        )
    return chosen


def neighbour(site: Site, source: str, known: Mapping[str, str]) -> Neighbour:
    """``source`` on the networks other than the stations' one, as far as its cards are known."""
    addresses: dict[Role, str] = {
        role: str(address)
        for role, address in site.server(source).addresses.items()
        if role != "stations" and site.networks[role].interface in known
    }
    return Neighbour(
        addresses, {role: known[site.networks[role].interface].lower() for role in addresses}
    )


def assign(found: Sequence[Card], site: Site, roles: Sequence[Role], boot: str) -> dict[Role, str]:
    """One card for each of ``roles``, as far as there are cards. Raises CloneError when there is
    none for the stations."""
    left = {card.mac: card for card in found}
    chosen: dict[Role, str] = {}

    def take(role: Role, macs: Collection[str]) -> None:
        if role not in chosen and len(macs) == 1:
            (chosen[role],) = macs
            del left[chosen[role]]

    take("stations", [mac for mac in left if mac == boot])
    for role in roles:
        take(role, [mac for mac, card in left.items() if card.hears == {role}])
    for role in roles:
        interface = site.networks[role].interface
        take(role, [mac for mac, card in left.items() if card.name == interface and not card.hears])
    for role in roles:
        # cards that hear another network are not put on this one
        take(role, [mac for mac, card in left.items() if card.hears <= {role}][:1])
    if "stations" not in chosen:
        raise CloneError(
            "this machine has no network card for the stations' network",
            hint="plug one in, and boot this machine from it",
        )
    return chosen


def physical(host: Host) -> list[Card]:
    """The machine's Ethernet cards, by their place in it."""
    shown = json.loads(host.run(["ip", "-json", "link"]).text or "[]")
    links: list[Mapping[str, object]] = [one for one in shown if one.get("link_type") == "ether"]
    names = [str(one["ifname"]) for one in links]
    devices = {name: _device(host, name) for name in names}
    cards = [
        (devices[str(one["ifname"])], Card(str(one["ifname"]), str(one["address"]).lower()))
        for one in links
    ]
    return [card for device, card in sorted(cards, key=lambda each: each[0]) if device]


def _device(host: Host, name: str) -> str:
    """Where a card is plugged in; empty for what is no hardware."""
    done = host.run(["readlink", "--canonicalize-existing", f"/sys/class/net/{name}/device"],
                    check=False)  # fmt: skip
    return done.text.strip() if done.status == 0 else ""


def _asked(host: Host, card: Card, neighbour: Neighbour) -> Card:
    """``card`` with the networks on which the neighbour's card of that network answers it."""
    host.run(["ip", "link", "set", card.name, "up"], check=False)
    wait = ["sh", "-c", _WAIT, "sh", card.name, str(_CARRIER)]
    if host.run(wait, check=False, deadline=30).status != 0:
        return card
    heard = {
        role
        for role, address in neighbour.addresses.items()
        if neighbour.macs[role] in _answers(host, card, address)
    }
    return Card(card.name, card.mac, frozenset(heard))


def _answers(host: Host, card: Card, address: str) -> set[str]:
    """The MACs that answer for ``address`` on ``card``. It is asked for as one who has no address
    yet does it, so that nobody's ARP cache is changed."""
    probe = ["arping", "-D", "-c", "2", "-w", str(_ANSWER), "-I", card.name, address]
    said = host.run(probe, check=False, deadline=20).text
    return {mac.lower() for mac in re.findall(r"\[([0-9A-Fa-f:]{17})\]", said)}
