"""Firewall: nftables. What no service declared is closed, network by network.

=========  ====================================================================================
lan        ssh; the copy's sshd from the subnet; the agents' control port and heartbeats and
           chrony, from peers alone
stations   DHCP, TFTP, HTTP, NBD, NTP and the copy's sshd from the stations' subnet; heartbeats
           from peers alone
compute    nothing yet: the services that will use it open their own ports
any other  ssh (a management card must not lock its owner out)
=========  ====================================================================================

Ping and the ICMP errors are answered everywhere. Nothing is forwarded: stations reach the servers,
not what lies behind them. Kea reads raw sockets below nftables; its port is named all the same.

TFTP's data leaves from a port of its own, which the server opens: the answers to it belong to an
established connection, so no connection-tracking helper is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePath

from ets import paths
from ets.plan.desired import Command, Desired, Directory, File, Probe, Unit
from ets.site.model import Problem, Role, Server, Site

NAME = "firewall"

CONFIG = "/etc/nftables.conf"
OWN_RULES = "/etc/nftables.d"
UNIT = "nftables.service"
#: connections to NBD that one station may hold: it needs one, and a few while it reconnects
NBD_PER_STATION = 64

# No ``ct state new`` at the ports, and nothing drops ``invalid``: a packet of a connection from
# before this server was restarted must reach the kernel, whose reset sends the station's reads
# elsewhere at once. Dropped, it would wait for a time-out.
_RULES = """\
#!/usr/sbin/nft -f
# Rules of your own: {own}/input-*.nft and forward-*.nft there are read inside the chains.
# Other tables (fail2ban, containers) are left alone.

table inet ets
delete table inet ets
table inet ets {{
    set nbd_stations {{
        type ipv4_addr
        size 65535
        flags dynamic
    }}

    chain input {{
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
        ct state established,related accept
        # ICMPv6, whose name would need /etc/protocols
        meta l4proto 58 accept
        icmp type {{ destination-unreachable, time-exceeded, parameter-problem }} accept
        icmp type echo-request limit rate 200/second burst 500 packets accept
        {ssh}

{rules}

        include "{own}/input-*.nft"
        counter comment "dropped: no service asked for it"
    }}

    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        include "{own}/forward-*.nft"
    }}
}}
"""


def enabled(site: Site, server: Server) -> bool:
    """Every server."""
    return True


def check(site: Site) -> Iterator[Problem]:
    """Nothing beyond what the site file's own check asks: an interface for each network."""
    return iter(())


def desired(site: Site, server: Server) -> Desired:
    """One ruleset for all networks of the server."""
    stations, compute = site.stations_net, site.networks.get("compute")
    # Where there is no LAN, the stations' network is where the servers are looked after, too.
    closed = [stations.interface] if "lan" in site.networks else []
    closed += [compute.interface] if compute else []
    names = ", ".join(f'"{name}"' for name in closed)
    ssh = f"iifname != {{ {names} }} tcp dport 22 accept" if closed else "tcp dport 22 accept"
    rules = (*_peers(site, server), *_stations(site), *_copies(site))
    lines = [f"        {line}" for line in rules]
    text = _RULES.format(own=OWN_RULES, ssh=ssh, rules="\n".join(lines))
    return Desired(
        packages=("nftables",),
        directories=(Directory(OWN_RULES),),
        files=(File(CONFIG, text.encode()),),
        units=(Unit(UNIT, restart_on=(CONFIG,), reload=True),),
    )


def _copies(site: Site) -> Iterator[str]:
    """Where a new server comes in while it is copied: nobody listens there at other times."""
    roles: tuple[Role, ...] = ("lan", "stations")
    for network in (site.networks[role] for role in roles if role in site.networks):
        side = f'iifname "{network.interface}" ip saddr {network.subnet}'
        yield f"{side} tcp dport {paths.PORT_CLONE} accept"


def _peers(site: Site, server: Server) -> Iterator[str]:
    """What the servers say to each other, from their addresses alone."""
    peers = site.peers(server.name)
    roles: tuple[Role, ...] = ("lan", "stations")
    for role in roles:
        found = [peer.addresses[role] for peer in peers if role in peer.addresses]
        if role in site.networks and found:
            side = f'iifname "{site.networks[role].interface}" ip saddr {_set(found)}'
            yield f"{side} udp dport {paths.PORT_HEARTBEAT} accept"
    peering: Role = "lan" if "lan" in server.addresses else "stations"
    if peers:
        side = f'iifname "{site.networks[peering].interface}"'
        side += f" ip saddr {_set([peer.peering for peer in peers])}"
        yield f"{side} tcp dport {paths.PORT_AGENT_PEERS} accept"
        yield f"{side} udp dport 123 accept"


def _stations(site: Site) -> Iterator[str]:
    """What stations may ask for."""
    net = site.stations_net
    side = f'iifname "{net.interface}"'
    yield f"{side} udp dport 67 accept"
    side += f" ip saddr {net.subnet}"
    yield f"{side} udp dport {{ {paths.PORT_TFTP}, 123 }} accept"
    yield f"{side} tcp dport {paths.PORT_HTTP} accept"
    nbd = f"{side} tcp dport {paths.PORT_NBD}"
    many = f"{{ ip saddr ct count over {NBD_PER_STATION} }}"
    yield f"{nbd} ct state new add @nbd_stations {many} drop"
    yield f"{nbd} accept"


def _set(addresses: Iterable[object]) -> str:
    return "{ " + ", ".join(map(str, addresses)) + " }"


def validators(root: PurePath) -> list[Command]:
    """nft's own check, against the kernel that will have to hold the rules."""
    argv = ("nft", "-c", "-f", str(root / CONFIG.removeprefix("/")))
    return [Command(argv, "nftables accepts the rules")]


def probes(site: Site, server: Server) -> list[Probe]:
    """The rules are in the kernel."""
    argv = ("nft", "list", "chain", "inet", "ets", "input")
    return [Probe("the firewall's rules are loaded", "command", argv=argv)]
