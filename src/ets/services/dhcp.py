"""DHCP on every server: Kea, the same answer everywhere, no fail-over protocol.

Invariant (no address twice): a known station's address is reserved for its MAC on every server
and lies in no server's dynamic pool; a server leases dynamically from its own slice of the guests'
range only, and the slices are disjoint; a guest that any server learned becomes a reservation on
all of them, which Kea respects inside the pool of the server that owns the address. So two servers
that cannot hear each other can never give one address to two machines.

Nothing here is replicated on the way of a packet. The agent sends ``kea_config`` with what was
learned through Kea's control socket; the file on disk is what holds until it has done so.

Sources: RFC 2131, RFC 4578 (PXE), UEFI 2.10 §24.7 (HTTP boot), Kea 2.2 administrator's manual.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import PurePath

from ets import paths
from ets.plan.desired import Command, Desired, File, Probe, Unit
from ets.services._checks import piped
from ets.services._kea import classes, option, written
from ets.services._units import LASTING
from ets.site.model import Problem, Server, Site
from ets.site.pools import guest_slice

NAME = "dhcp"

UNIT = "kea-dhcp4-server.service"
DROPIN = f"/etc/systemd/system/{UNIT}.d/ets.conf"
#: Debian's multiarch directory differs by machine; the linker's own search path does not help
#: here, for Kea wants an absolute path.
HOOKS = "/usr/lib/x86_64-linux-gnu/kea/hooks"
SUBNET_ID = 1


@dataclass(frozen=True, slots=True, order=True)
class Learned:
    """A guest that some server gave an address: ``mac`` lower case with colons."""

    mac: str
    address: IPv4Address
    hostname: str = ""


def kea_config(
    site: Site,
    server: Server,
    *,
    learned: Sequence[Learned] = (),
    serving: bool = True,
    newcomers: bool = True,
) -> dict[str, object]:
    """Kea's configuration for one server, ready for ``config-set`` or for its file.

    ``learned`` are the guests that any server knows. An entry is left out when its MAC belongs to
    a known station, its address lies outside the guests' range, guests are not allowed, or an
    earlier entry has the same MAC or address: Kea refuses a whole configuration for one double
    reservation. ``serving`` false (drained) opens no socket: nobody is answered, nor refused.
    ``newcomers`` false ignores guests that ask for a first address while those that have one keep
    it: right whenever it is not certain that ``learned`` is complete, as after a start.
    """
    net = site.stations_net
    lease = site.defaults.lease
    pool = guest_slice(site, server)
    return {
        "Dhcp4": {
            "interfaces-config": {
                "interfaces": [f"{net.interface}/{server.stations}"] if serving else [],
                "dhcp-socket-type": "raw",
                "re-detect": True,
                "service-sockets-max-retries": 100_000,
                "service-sockets-retry-wait-time": 500,
            },
            "control-socket": {"socket-type": "unix", "socket-name": str(paths.KEA_SOCKET)},
            "lease-database": {
                "type": "memfile",
                "persist": True,
                "name": "/var/lib/kea/kea-leases4.csv",
                "lfc-interval": 3600,
            },
            "hooks-libraries": [{"library": f"{HOOKS}/libdhcp_lease_cmds.so"}],
            "host-reservation-identifiers": ["hw-address"],
            "reservations-global": False,
            "reservations-in-subnet": True,
            "reservations-out-of-pool": False,
            "match-client-id": False,
            "echo-client-id": True,
            # An authoritative Kea refuses (DHCPNAK) every station that asks for its address back
            # after a restart and whose lease another server holds, though it has the very same
            # reservation. No server here knows all leases, so none is: what it does not know it
            # leaves to its peers. tests/daemons/test_firmware.py shows both.
            "authoritative": False,
            "valid-lifetime": lease,
            "renew-timer": lease // 4,
            "rebind-timer": lease // 2,
            "decline-probation-period": 300,
            "expired-leases-processing": {"hold-reclaimed-time": 86400},
            "client-classes": classes(server.stations, guests=newcomers and pool is not None),
            "subnet4": [
                {
                    "id": SUBNET_ID,
                    "subnet": str(net.subnet),
                    "interface": net.interface,
                    "next-server": str(server.stations),
                    "server-hostname": str(server.stations),
                    "option-data": _options(site, server),
                    "pools": [{"pool": f"{pool.first} - {pool.last}"}] if pool else [],
                    "reservations": _reservations(site, learned),
                }
            ],
            "loggers": [
                {
                    "name": "kea-dhcp4",
                    "severity": "INFO",
                    "output_options": [{"output": "stdout", "pattern": "%-5p %m\n"}],
                }
            ],
        }
    }


def _options(site: Site, server: Server) -> list[dict[str, object]]:
    """What every station is told beside its address."""
    gateway = site.stations_net.gateway
    told = [
        ("routers", str(gateway) if gateway else ""),
        ("domain-name-servers", ", ".join(map(str, site.dns))),
        ("domain-name", site.domain),
        # the answering server first: it is alive, for it answered
        ("ntp-servers", ", ".join(str(s.stations) for s in (server, *site.peers(server.name)))),
    ]
    return [option(name, data) for name, data in told if data]


def _reservations(site: Site, learned: Sequence[Learned]) -> list[dict[str, object]]:
    """Known stations in the file's order, servers that boot from the network to become one, then
    learned guests; no MAC and no address twice."""
    guests = site.stations_net.guests if site.defaults.guests else None
    rows = [(station.mac, station.address, station.name) for station in site.stations]
    rows += [(server.mac, server.stations, server.name) for server in site.servers if server.mac]
    macs = {mac for mac, _, _ in rows}
    addresses = {address for _, address, _ in rows}
    for guest in learned:
        double = guest.mac in macs or guest.address in addresses
        if double or guests is None or guest.address not in guests:
            continue
        macs.add(guest.mac)
        addresses.add(guest.address)
        rows.append((guest.mac, guest.address, guest.hostname))
    return [_reservation(*row) for row in rows]


def _reservation(mac: str, address: IPv4Address, name: str) -> dict[str, object]:
    named: dict[str, object] = {"hostname": name} if name else {}
    return {"hw-address": mac, "ip-address": str(address), **named}


def enabled(site: Site, server: Server) -> bool:
    """Every server answers every station."""
    return True


def check(site: Site) -> Iterator[Problem]:
    """Nothing beyond what the site file's own check asks of pools, addresses and the lease."""
    return iter(())


def desired(site: Site, server: Server) -> Desired:
    """Kea with the site's stations, until the agent adds what was learned."""
    config = kea_config(site, server, newcomers=False)
    content = written(config) + "\n"
    return Desired(
        packages=("kea-dhcp4-server",),
        files=(
            File(str(paths.KEA_CONFIG), content.encode()),
            File(DROPIN, LASTING),
        ),
        units=(Unit(UNIT, restart_on=(str(paths.KEA_CONFIG), DROPIN)),),
    )


def validators(root: PurePath) -> list[Command]:
    """Kea's own check."""
    why = "Kea accepts its configuration"
    return [piped(root, str(paths.KEA_CONFIG), why, "kea-dhcp4 -t /dev/stdin")]


def probes(site: Site, server: Server) -> list[Probe]:
    """Its control socket answers; whether it hears stations is asked by the drills."""
    return [Probe("kea answers on its control socket", "unix", path=str(paths.KEA_SOCKET))]
