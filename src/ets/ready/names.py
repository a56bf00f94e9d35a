"""Name resolution both ways: this server and its peers, from name to address and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import AddressValueError, IPv4Address

from ets.host.transport import Host
from ets.ready._ask import answers, rows, script
from ets.ready.addresses import FOREIGN, interfaces
from ets.ready.finding import Facts, Finding
from ets.site.model import Server, Site

NAME = "names"

_FORWARD = r"""
for n in "$(hostname)" "$@"; do
  echo "$n" $(getent ahostsv4 "$n" | while read -r a x; do echo "$a"; done | sort -u)
done
"""
_BACKWARD = r"""
own=$(ip -4 -o address show scope global | while read -r n i f a x; do echo "${a%/*}"; done)
for a in $own "$@"; do
  echo "$a" $(getent hosts "$a" | while read -r x n; do echo "$n"; done)
done
"""
DEATH = (
    "daemons bind to, and peers and printers look for, the wrong place; certificates and Samba "
    "do not fit the name on the copy either"
)


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """What the machine's own resolver makes of names and addresses."""
    peers = site.peers(server.name) if site and server else ()
    return answers(
        host,
        {
            "interfaces": ["ip", "-json", "address"],
            "hostname": ["hostname"],
            "forward": script(_FORWARD, *(peer.name for peer in peers)),
            "backward": script(_BACKWARD, *(str(peer.peering) for peer in peers)),
            "resolver": ["cat", "/etc/resolv.conf"],
        },
    )


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """The own name, the own addresses, the peers', and the resolver."""
    forward = {row[0]: row[1:] for row in rows(facts.get("forward", ""))}
    backward = {row[0]: row[1:] for row in rows(facts.get("backward", ""))}
    found = interfaces(facts.get("interfaces", ""))
    own = [a for i in found.values() if not FOREIGN.match(i.name) for a in i.addresses]
    name = facts.get("hostname", "").strip().split(".")[0]
    if name:
        yield from _own(name, forward.get(name) or forward.get(facts["hostname"].strip(), []), own)
    if site and server:
        if name and name != server.name:
            yield _other_name(name, server)
        yield from _peers(site, server, forward, backward)
    yield from _back(name, [a for a in own if a in backward], backward)
    if "resolver" in facts:
        yield from _resolver(facts["resolver"])


def _own(name: str, addresses: list[str], own: list[str]) -> Iterator[Finding]:
    outside = [a for a in addresses if not _loopback(a)]
    line = f"put a line '{own[0] if own else 'ADDRESS'} {name}' into /etc/hosts"
    if not addresses:
        yield Finding("critical", name, "this machine's own name does not resolve", DEATH, line)
    elif not outside:
        yield Finding(
            "warning",
            name,
            f"this machine's own name means {addresses[0]}, itself alone",
            DEATH,
            f"{line}, instead of the line that says {addresses[0]}",
        )
    for address in outside:
        if own and address not in own:
            yield Finding(
                "critical",
                name,
                f"this machine's own name means {address}, which is not one of its addresses",
                DEATH,
                f"correct {address} in /etc/hosts or in the DNS zone (getent ahostsv4 {name})",
            )


def _other_name(name: str, server: Server) -> Finding:
    return Finding(
        "critical",
        name,
        f"this machine calls itself {name}; the site file calls it {server.name}",
        DEATH,
        f"hostnamectl set-hostname {server.name}, and correct /etc/hosts",
    )


def _peers(
    site: Site,
    server: Server,
    forward: Mapping[str, list[str]],
    backward: Mapping[str, list[str]],
) -> Iterator[Finding]:
    for peer in site.peers(server.name):
        known = {str(address) for address in peer.addresses.values()}
        meant = forward.get(peer.name, [])
        line = f"put a line '{peer.peering} {peer.name}' into /etc/hosts of every server"
        if not known & set(meant):
            says = f"means {', '.join(meant)}" if meant else "does not resolve"
            yield Finding(
                "warning",
                peer.name,
                f"the peer's name {says}; the site file says {peer.peering}",
                f"whoever looks for {peer.name} by name does not find it when this server is left",
                line,
            )
        elif not any(n.split(".")[0] == peer.name for n in backward.get(str(peer.peering), [])):
            yield Finding(
                "note",
                peer.name,
                f"{peer.peering} does not resolve back to {peer.name}",
                "logs and NFS exports name an address where they should name the server",
                line,
            )


def _back(name: str, own: list[str], backward: Mapping[str, list[str]]) -> Iterator[Finding]:
    if not own or not name:
        return
    others = {a: backward[a] for a in own if backward[a]}
    if not others:
        yield Finding(
            "warning",
            own[0],
            f"none of this machine's addresses ({', '.join(own)}) resolves back to a name",
            "NFS, Kerberos and the logs of the servers that are left do not know who it was",
            f"put a line '{own[0]} {name}' into /etc/hosts, or a PTR record into the DNS zone",
        )
    for address, names in others.items():
        if not any(n.split(".")[0] == name for n in names):
            yield Finding(
                "warning",
                address,
                f"resolves back to {', '.join(names)}, not to {name}",
                DEATH,
                f"correct the line of {address} in /etc/hosts, or its PTR record",
            )


def _resolver(text: str) -> Iterator[Finding]:
    servers = [row[1] for row in rows(text, 2) if row[0] == "nameserver"]
    if not servers:
        yield Finding(
            "warning",
            "/etc/resolv.conf",
            "names no DNS server",
            "updates, time servers and mail need names; the copy will have none either",
            "put two 'nameserver ADDRESS' lines into /etc/resolv.conf",
        )
    elif len(set(servers)) == 1 and not _loopback(servers[0]):
        yield Finding(
            "note",
            "/etc/resolv.conf",
            f"names one DNS server only: {servers[0]}",
            "when that one is gone, every look-up on this server waits for its time-out",
            "add a second 'nameserver ADDRESS' line",
        )


def _loopback(address: str) -> bool:
    try:
        return IPv4Address(address).is_loopback
    except AddressValueError:
        return address == "::1"
