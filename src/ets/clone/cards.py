"""Which of a machine's network cards is on which of the site's networks.

The card that the machine booted from is on the stations' network. On the others somebody is asked:
a card belongs to the network on which a server of the site answers (ARP probe, RFC 5227). Only
where nobody can be heard, the cards' order decides, and that is said.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ets import paths
from ets.errors import CloneError, CommandFailed
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


def cards(host: Host, root: Path, server: str, boot: str) -> dict[Role, str]:
    """The MAC of the card on each network of ``server``, on this machine. ``root`` is the copied
    tree, ``boot`` the MAC of the card that it booted from (empty: unknown).

    Raises CloneError when no card is on the stations' network, HostError.
    """
    place = root / str(paths.SITE_FILE).lstrip("/")
    site = parse(place.read_bytes(), str(place))
    roles = tuple(role for role in ROLES if role in site.server(server).addresses)
    found = physical(host)
    boot = boot or site.server(server).mac or ""
    others = tuple(role for role in roles if role != "stations")
    if others:
        found = [
            card if card.mac == boot else _asked(host, site, server, card, others) for card in found
        ]
    return assign(found, site, roles, boot)


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


def _asked(host: Host, site: Site, server: str, card: Card, roles: Sequence[Role]) -> Card:
    heard = {role for role in roles if _hears(host, site, server, card, role)}
    return Card(card.name, card.mac, frozenset(heard))


def _hears(host: Host, site: Site, server: str, card: Card, role: Role) -> bool:
    """Does any other server of the site answer on this card? Its address is asked for as one that
    nobody has yet does it, so that nobody's ARP cache is changed."""
    host.run(["ip", "link", "set", card.name, "up"], check=False)
    if (
        host.run(
            ["sh", "-c", _WAIT, "sh", card.name, str(_CARRIER)], check=False, deadline=30
        ).status
        != 0
    ):
        return False
    for peer in site.peers(server):
        if role not in peer.addresses:
            continue
        probe = ["arping", "-D", "-q", "-c", "2", "-w", str(_ANSWER), "-I", card.name]
        try:
            done = host.run([*probe, str(peer.addresses[role])], check=False, deadline=20)
        except CommandFailed:
            return False
        if done.status == 1:  # somebody has that address
            return True
    return False
