"""Open ports: those that no service declared, and services that listen on the wrong side."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ets.host.transport import Host
from ets.ready._ask import answers, rows
from ets.ready.addresses import interfaces
from ets.ready.finding import Facts, Finding
from ets.services import firewall
from ets.site.model import Server, Site

NAME = "ports"

#: what nobody should reach from a network on which stations are: it asks for no password, or
#: sends it in the clear
DANGEROUS = {
    ("tcp", 23): "telnet: passwords in the clear", ("tcp", 21): "ftp: passwords in the clear",
    ("tcp", 512): "rexec", ("tcp", 513): "rlogin", ("tcp", 514): "rsh",
    ("tcp", 2375): "docker without a password: root for everybody",
    ("tcp", 6379): "redis", ("tcp", 11211): "memcached", ("tcp", 27017): "mongodb",
    ("tcp", 3306): "mysql", ("tcp", 5432): "postgresql", ("tcp", 6000): "an X server",
    ("tcp", 5900): "vnc", ("tcp", 10000): "webmin", ("tcp", 873): "an rsync daemon",
    ("udp", 161): "snmp",
}  # fmt: skip
#: what a terminal server is asked for, whoever set it up
USUAL = frozenset(
    {("tcp", p) for p in (22, 53, 80, 111, 139, 443, 445, 631, 2049, 3389, 10809, 789)}
    | {("udp", p) for p in (53, 67, 68, 69, 111, 123, 137, 138, 631, 4011, 5353)}
)
DEATH = "all servers are equal: whoever comes in here comes in everywhere"


@dataclass(frozen=True, slots=True)
class Listener:
    """An open port. ``address`` is ``*`` for all of them."""

    protocol: str
    address: str
    interface: str
    port: int
    program: str

    @property
    def local(self) -> bool:
        """Only for programs on the same machine?"""
        return self.address.startswith(("127.", "[::1]", "[::ffff:127.")) or self.interface == "lo"

    def __str__(self) -> str:
        return f"{self.protocol} {self.address}:{self.port}"


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """Open ports and whose addresses they are on."""
    return answers(
        host,
        {
            "sockets": ["ss", "-H", "-t", "-u", "-l", "-n", "-p"],
            "interfaces": ["ip", "-json", "address"],
        },
    )


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """With a site file against what its services let through the firewall, else by habit."""
    found = [one for one in listeners(facts.get("sockets", "")) if not one.local]
    if site and server:
        sides = {
            address: link.name
            for link in interfaces(facts.get("interfaces", "")).values()
            for address in link.addresses
        }
        open_ports = declared(site, server)
        for one in found:
            yield from _declared(one, sides, open_ports)
        return
    for one in found:
        yield from _habit(one)
    odd = sorted({str(one.port) + f"/{one.protocol} {one.program}" for one in found if _odd(one)})
    if odd:
        yield Finding(
            "note",
            f"{len(odd)} open port{'s' if len(odd) > 1 else ''}",
            f"that a terminal server does not need: {', '.join(odd)}",
            DEATH,
            "ss -tulpn; stop what nobody uses, or let it listen on 127.0.0.1",
        )


def listeners(text: str) -> Iterator[Listener]:
    """From ``ss -Htulnp``."""
    for row in rows(text, 6):
        address, _, port = row[4].rpartition(":")
        address, _, interface = address.partition("%")
        named = re.search(r'\(\("([^"]+)"', " ".join(row[6:]))
        anywhere = address in ("0.0.0.0", "*", "[::]")  # noqa: S104
        if port.isdigit():
            yield Listener(
                row[0],
                "*" if anywhere else address,
                interface.rstrip("]"),
                int(port),
                named.group(1) if named else "the kernel",
            )


def declared(site: Site, server: Server) -> frozenset[tuple[str, str, int]]:
    """(interface, protocol, port) that the firewall lets in, from the rules that ETS writes for
    this server; interface ``*`` is every one."""
    (config,) = (f for f in firewall.desired(site, server).files if f.path == firewall.CONFIG)
    found = set()
    for line in config.content.decode().splitlines():
        rule = re.search(r"\b(tcp|udp) dport (\{[^}]*\}|\d+)", line)
        if rule and "drop" not in line:
            side = re.search(r'iifname "([^"]+)"', line)
            for port in re.findall(r"\d+", rule.group(2)):
                found.add((side.group(1) if side else "*", rule.group(1), int(port)))
    return frozenset(found)


def _declared(
    one: Listener, sides: Mapping[str, str], open_ports: frozenset[tuple[str, str, int]]
) -> Iterator[Finding]:
    mine = {
        side for side, protocol, port in open_ports if (protocol, port) == (one.protocol, one.port)
    }
    if not mine:
        severe = (one.protocol, one.port) in DANGEROUS
        yield Finding(
            "critical" if severe else "warning",
            str(one),
            f"{one.program} listens, and no service declared this port",
            f"{DEATH}; it is closed by the firewall alone, while that is on",
            f"stop {one.program}, or let it listen on 127.0.0.1; if stations need it: "
            f"{firewall.OWN_RULES}/input-{one.port}.nft",
        )
        return
    side = one.interface or sides.get(one.address, "")
    if one.address != "*" and side and "*" not in mine and side not in mine:
        yield Finding(
            "warning",
            str(one),
            f"{one.program} listens on {side}; its service is for {', '.join(sorted(mine))}",
            "those who should use it do not reach it, and others see it",
            f"let it listen on the address of {', '.join(sorted(mine))}; ets plan shows whether "
            "ETS would",
        )


def _habit(one: Listener) -> Iterator[Finding]:
    what = DANGEROUS.get((one.protocol, one.port))
    if what:
        yield Finding(
            "critical" if one.port in (23, 512, 513, 514, 2375, 6379) else "warning",
            str(one),
            f"{one.program} listens for everybody on the network ({what})",
            DEATH,
            f"let {one.program} listen on 127.0.0.1, or close the port in the firewall",
        )


def _odd(one: Listener) -> bool:
    key = (one.protocol, one.port)
    return (
        key not in USUAL
        and key not in DANGEROUS
        and not (one.protocol == "udp" and one.port > 32767)
    )
