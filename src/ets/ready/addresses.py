"""Permanent addresses on every interface of the server, and no DHCP client."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ets.host.transport import Host
from ets.ready._ask import answers, document, files, script
from ets.ready.finding import Facts, Finding
from ets.site.model import Server, Site

NAME = "addresses"

#: what containers, virtual machines and tunnels bring, by the names that their makers give
FOREIGN = re.compile(
    r"(lo$|docker|veth|virbr|vnet|tap|tun|wg|zt|lxc|lxd|cni|cali|flannel|br-[0-9a-f]{12})"
)

# Only clients in this network namespace: a container's own are none of the server's.
_CLIENTS = r"""
for p in /proc/[0-9]*; do
  read -r comm <"$p/comm" || continue
  case "$comm" in dhclient|dhcpcd*|udhcpc|connmand) ;; *) continue;; esac
  [ "$(readlink "$p/ns/net")" = "$(readlink /proc/self/ns/net)" ] || continue
  tr '\0' ' ' <"$p/cmdline"; echo
done; true
"""
# Connections of NetworkManager hold passwords of wireless networks.
_CONFIGURATION = r"""
for f in /etc/network/interfaces /etc/network/interfaces.d/* /etc/systemd/network/*.network \
  /run/systemd/network/*.network /etc/netplan/*.yaml \
  /etc/NetworkManager/system-connections/* /run/NetworkManager/system-connections/*; do
  [ -f "$f" ] || continue
  echo "== $f"; grep -v -i -E 'psk|password|secret|key' "$f"; echo
done; true
"""
DEATH = "when the DHCP server that gave it is gone, this server loses its address, or gets another"


@dataclass(frozen=True, slots=True)
class Interface:
    """A network card (or bridge …) with its IPv4 addresses; ``dynamic`` are those that end."""

    name: str
    up: bool
    addresses: tuple[str, ...]
    dynamic: tuple[str, ...]


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """Interfaces, running DHCP clients, and what is configured."""
    return answers(
        host,
        {
            "interfaces": ["ip", "-json", "address"],
            "clients": script(_CLIENTS),
            "configuration": script(_CONFIGURATION),
        },
    )


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """Each interface that the site file names, or each that is a server's, without one."""
    found = interfaces(facts.get("interfaces", ""))
    configuration = facts.get("configuration", "")
    asked = dict(dhcp(configuration))
    if site and server:
        yield from _declared(found, site, server)
        names = [site.networks[role].interface for role in server.addresses]
    else:
        names = [name for name in found if not FOREIGN.match(name)]
        yield from _none(found, names)
    for name in names:
        if name in found:
            yield from _interface(found[name], configuration, asked)
    yield from _clients(facts.get("clients", ""), names)


def interfaces(text: str) -> dict[str, Interface]:
    """From ``ip -json address``."""
    found = {}
    for link in document(text) or []:
        four = [a for a in link.get("addr_info", ()) if a.get("family") == "inet"]
        found[link["ifname"]] = Interface(
            link["ifname"],
            "LOWER_UP" in link.get("flags", ()),
            tuple(a["local"] for a in four),
            tuple(a["local"] for a in four if a.get("dynamic")),
        )
    return found


def dhcp(configuration: str) -> Iterator[tuple[str, str]]:
    """Interfaces that are configured to ask a DHCP server, and where that stands; the interface is
    ``*`` when the file does not name it."""
    for path, text in files(configuration):
        if "/network/interfaces" in path:
            for name in re.findall(r"^\s*iface\s+(\S+)\s+inet\s+dhcp", text, re.MULTILINE):
                yield name, path
        elif path.endswith(".network"):
            if re.search(r"^DHCP\s*=\s*(yes|ipv4|true|both|v4)", text, re.MULTILINE):
                yield _named(text, r"^Name\s*=\s*(\S+)"), path
        elif path.endswith(".yaml"):
            for block in re.split(r"\n(?=\s{4}\S+:\s*$)", text, flags=re.MULTILINE):
                if re.search(r"^\s*dhcp4:\s*(true|yes|on)", block, re.MULTILINE):
                    yield _named(block, r"^\s{4}(\S+):\s*$"), path
        elif re.search(r"\[ipv4\][^\[]*^method=auto", text, re.MULTILINE):
            yield _named(text, r"^interface-name=(\S+)"), path


def _named(text: str, pattern: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1) if found else "*"


def _declared(found: Mapping[str, Interface], site: Site, server: Server) -> Iterator[Finding]:
    for role, address in server.addresses.items():
        name = site.networks[role].interface
        interface = found.get(name)
        if interface is None:
            yield Finding(
                "critical",
                name,
                f"the site file wants this interface on the {role} network; there is none",
                "no station finds this server on that network, whichever of its peers dies",
                f"name the card {name} (/etc/systemd/network/*.link), or change "
                f"networks.{role}.interface in the site file",
            )
        elif str(address) not in interface.addresses:
            has = ", ".join(interface.addresses) or "no address"
            yield Finding(
                "critical",
                name,
                f"has {has}; the site file says {address}",
                "stations and peers ask for it where it is not",
                f"configure {address}/{site.networks[role].subnet.prefixlen} on {name} "
                "(/etc/network/interfaces.d/), then: systemctl restart networking",
            )


def _none(found: Mapping[str, Interface], names: list[str]) -> Iterator[Finding]:
    if found and not any(found[name].addresses for name in names):
        yield Finding(
            "critical",
            "network",
            "no interface of this machine has an IPv4 address",
            "nobody can reach this server, whoever else dies",
            "configure an address in /etc/network/interfaces.d/ (interfaces(5))",
        )


def _interface(
    interface: Interface, configuration: str, asked: Mapping[str, str]
) -> Iterator[Finding]:
    name = interface.name
    if not interface.up:
        yield Finding(
            "critical" if interface.addresses else "note",
            name,
            "has no carrier: it is down, or its cable is not plugged",
            "this server serves nobody on that network",
            f"plug the cable, or: ip link set {name} up",
        )
    where = asked.get(name) or asked.get("*")
    if interface.dynamic or where:
        got = ", ".join(interface.dynamic)
        words = (
            f"has {got} from a DHCP server" if got else f"is told to ask a DHCP server in {where}"
        )
        yield Finding(
            "critical",
            name,
            words + (f" ({where})" if got and where else ""),
            DEATH,
            f"write the address into {where or '/etc/network/interfaces'} "
            f"(iface {name} inet static), and restart the network while you sit at the machine",
        )
    yield from _addresses(interface, configuration)


def _addresses(interface: Interface, configuration: str) -> Iterator[Finding]:
    name = interface.name
    for address in interface.addresses:
        kept = re.search(rf"(?<![\d.]){re.escape(address)}(?![\d.])", configuration)
        if address.startswith("169.254."):
            yield Finding(
                "critical",
                name,
                f"gave itself {address}, because no DHCP server answered",
                DEATH,
                f"configure a permanent address (iface {name} inet static)",
            )
        elif address not in interface.dynamic and not kept:
            yield Finding(
                "warning",
                name,
                f"has {address}, which no configuration on this machine mentions",
                "after its next start this server comes back without that address",
                f"write it into /etc/network/interfaces.d/{name} (iface {name} inet static)",
            )


def _clients(text: str, names: list[str]) -> Iterator[Finding]:
    for line in filter(None, map(str.strip, text.splitlines())):
        on = [name for name in names if name in line.split()]
        yield Finding(
            "critical" if on else "warning",
            ", ".join(on) or line.split()[0],
            f"a DHCP client runs: {line}",
            DEATH,
            "configure the interface statically, then stop the client (ifdown and ifup of the "
            "interface)",
        )
