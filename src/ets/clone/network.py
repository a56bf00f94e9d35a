"""A server's network settings given to another server: addresses, cards and their names.

Text in, text out, whatever wrote it: ifupdown, netplan, systemd-networkd, NetworkManager, udev.
Whose card a MAC is, is learned from what stands beside it: the name that the site file gives a
network's interface, or the old server's address there. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from ets.site.model import Role, Server, Site

_MAC = re.compile(r"(?<![0-9A-Fa-f:-])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:-])")
#: where settings of a machine's own addresses stand, in all four languages
_OWN = re.compile(
    r"^\s*(?:address|addresses|Address|address\d+|static ip_address|-)\s*[:= ]?\s*\[?(?P<list>.*)$",
    re.MULTILINE,
)
_IFUPDOWN = re.compile(r"^\s*(?:iface|auto|allow-\w+|mapping|source)\b.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Change:
    """From one server's addresses and cards to another's. ``macs`` maps an old MAC (lower case,
    colons) to the network it was on, ``nics`` a network to the new card on it."""

    site: Site
    old: Server
    new: Server
    nics: Mapping[Role, str]
    macs: Mapping[str, Role] = field(default_factory=dict)

    @property
    def addresses(self) -> dict[str, str]:
        """The new server's address for each of the old one's. Not the other way round as well: a
        second run must change nothing."""
        return {
            str(self.old.addresses[role]): str(self.new.addresses[role])
            for role in self.site.networks
            if role in self.old.addresses and role in self.new.addresses
        }


def learn(texts: Iterable[str], change: Change) -> dict[str, Role]:
    """The old server's cards in these settings: MAC to network, where it is beyond doubt."""
    found: dict[str, set[Role]] = {}
    for text in texts:
        for block in _blocks(text):
            near = _roles(block, change)
            for mac in _MAC.findall(block):
                found.setdefault(_plain(mac), set()).update(near)
    return {mac: next(iter(roles)) for mac, roles in found.items() if len(roles) == 1}


def readdress(text: str, change: Change) -> str:
    """``text`` with the new server's addresses and cards."""
    swap = change.addresses
    if swap:
        known = "|".join(re.escape(address) for address in swap)
        whole = re.compile(rf"(?<![\d.])(?:{known})(?!\d|\.\d)")
        text = whole.sub(lambda met: swap[met[0]], text)
    return _MAC.sub(lambda met: _card(met[0], change), text)


def strangers(text: str, change: Change) -> Iterator[str]:
    """What in ``text`` (already changed) still belongs to the old server alone, in words: cards of
    no known network, addresses that the site file does not know."""
    known = {
        str(address) for server in change.site.servers for address in server.addresses.values()
    }
    new = set(change.nics.values())
    for mac in sorted({_plain(mac) for mac in _MAC.findall(text)} - new):
        if mac not in ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"):
            yield f"the network card {mac}"
    for met in _OWN.finditer(text):
        for word in re.findall(r"[0-9A-Fa-f:.]{3,}", met["list"]):
            if (address := _address(word)) is not None and str(address) not in known:
                yield f"the address {address}"


def links(texts: Mapping[str, str], change: Change) -> dict[str, str]:
    """The ``.link`` files that are wanting: path to content. A card whose name the settings give
    already (``texts``: path to content, already changed) needs none."""
    settings = "\n".join(texts.values())
    wanted: dict[str, str] = {}
    for role, mac in sorted(change.nics.items()):
        interface = port(change.site.networks[role].interface, texts)
        given = any(
            interface in _words(block) and mac in map(_plain, _MAC.findall(block))
            for block in _blocks(settings)
        )
        if interface and not given:
            wanted[f"/etc/systemd/network/10-ets-{role}.link"] = (
                f"# The card on the {role} network has this name on every server.\n"
                f"[Match]\nPermanentMACAddress={mac}\n\n[Link]\nName={interface}\n"
            )
    return wanted


def port(interface: str, texts: Mapping[str, str]) -> str:
    """The card's name behind ``interface``: itself, or the one port of a bridge or bond of that
    name; empty where it has several or none."""
    ports: set[str] = set()
    virtual = "." in interface
    for path, text in texts.items():
        stanza = re.search(
            rf"^\s*iface\s+{re.escape(interface)}\s.*(?:\n(?!\s*(?:iface|auto|allow-)).*)*",
            text,
            re.MULTILINE,
        )
        for met in re.finditer(
            r"(?:bridge[_-]ports|bond[_-]slaves|vlan[_-]raw[_-]device)\s+(.*)",
            stanza[0] if stanza else "",
        ):
            virtual = True
            ports.update(word for word in met[1].split() if word != "none")
        if path.endswith(".netdev") and re.search(rf"^Name={re.escape(interface)}$", text, re.M):
            virtual = True
        if re.search(rf"^(?:Bridge|Bond)={re.escape(interface)}$", text, re.MULTILINE):
            ports.update(re.findall(r"^Name=([\w.-]+)$", text, re.MULTILINE))
    if not virtual:
        return interface
    return next(iter(ports)) if len(ports) == 1 else ""


def _blocks(text: str) -> list[str]:
    """The parts of a settings file that are about one card each."""
    if re.search(r"^\s+ethernets:|^ethernets:", text, re.MULTILINE):
        return _netplan_blocks(text)
    if _IFUPDOWN.search(text):
        return re.split(r"^(?=\s*(?:auto|iface|allow-\w+)\b)", text, flags=re.MULTILINE)
    if "SUBSYSTEM==" in text:
        return text.splitlines()
    return re.split(r"^(?=#?\s*\[(?:Match|connection)\])", text, flags=re.MULTILINE)


def _netplan_blocks(text: str) -> list[str]:
    blocks: list[list[str]] = [[]]
    level = None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if re.match(r"\s*ethernets:", line):
            level = -1
        elif level == -1 and line.strip():
            level = indent
        if level is not None and level > 0 and indent == level:
            blocks.append([])
        blocks[-1].append(line)
    return ["\n".join(block) for block in blocks]


def _roles(block: str, change: Change) -> set[Role]:
    words = _words(block)
    return {
        role
        for role, network in change.site.networks.items()
        if network.interface in words or str(change.old.addresses.get(role)) in words
    }


def _words(text: str) -> set[str]:
    return set(re.split(r"[\s\"'=:,;/\[\]{}]+", text))


def _card(mac: str, change: Change) -> str:
    role = change.macs.get(_plain(mac))
    new = change.nics.get(role) if role else None
    if new is None:
        return mac
    return new.replace(":", "-") if "-" in mac else new


def _plain(mac: str) -> str:
    return mac.lower().replace("-", ":")


def _address(word: str) -> IPv4Address | IPv6Address | None:
    try:
        return IPv4Address(word)
    except AddressValueError:
        pass
    try:
        found = IPv6Address(word)
    except AddressValueError:
        return None
    return None if found.is_link_local or found.is_multicast else found
