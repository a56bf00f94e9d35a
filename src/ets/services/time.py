"""Time: chrony. Servers follow the site's time servers, watch each other, and tell the stations.

With no time server in reach the servers agree among themselves (orphan mode), so stations never
see two different clocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address
from pathlib import PurePath

from ets.plan.desired import Command, Desired, File, Probe, Unit
from ets.services._checks import piped
from ets.site.model import Problem, Server, Site

NAME = "time"

CONFIG = "/etc/chrony/chrony.conf"
UNIT = "chrony.service"
DROPIN = f"/etc/systemd/system/{UNIT}.d/ets.conf"

# A container may not set the clock; Debian's unit would not start there, and the stations would
# have no time server. With -x chrony serves the host's clock and leaves it alone.
_DROPIN = """\
[Unit]
ConditionCapability=

[Service]
ExecStart=
ExecStart=!/bin/sh -c 'systemd-detect-virt --quiet --container && set -- -x; \
exec /usr/sbin/chronyd $DAEMON_OPTS "$$@"'
Restart=always
RestartSec=2
"""

_COMMON = """\
local stratum 10 orphan
makestep 1 3
maxupdateskew 100.0
rtcsync
driftfile /var/lib/chrony/chrony.drift
logdir /var/log/chrony
keyfile /etc/chrony/chrony.keys
ntsdumpdir /var/lib/chrony
# asked through its socket only
cmdport 0
"""


def enabled(site: Site, server: Server) -> bool:
    """Every server."""
    return True


def check(site: Site) -> Iterator[Problem]:
    """No server of the site is its own time server."""
    own = {address: server.name for server in site.servers for address in server.addresses.values()}
    for index, name in enumerate(site.time):
        address = _address(name)
        if address in own:
            yield Problem(
                f"time.servers[{index}]",
                f"server {own[address]} of this site cannot be the site's time server",
                name,
                "a time server outside the site; the servers watch each other in any case",
            )


def desired(site: Site, server: Server) -> Desired:
    """chrony with the site's time servers above and the peers beside."""
    lines = ["# More sources: /etc/chrony/sources.d; more settings: /etc/chrony/conf.d"]
    # a name may stand for many servers, an address is one
    lines += [
        f"{'pool' if _address(name) is None else 'server'} {name} iburst" for name in site.time
    ]
    peers = [peer.peering for peer in site.peers(server.name)]
    lines += [f"peer {peer}" for peer in peers]
    lines += [f"allow {net}" for net in (site.stations_net.subnet, *peers)]
    lines += ["sourcedir /etc/chrony/sources.d", "confdir /etc/chrony/conf.d"]
    config = "\n".join(lines) + "\n" + _COMMON
    return Desired(
        packages=("chrony",),
        files=(File(CONFIG, config.encode()), File(DROPIN, _DROPIN.encode())),
        units=(Unit(UNIT, restart_on=(CONFIG, DROPIN)),),
    )


def validators(root: PurePath) -> list[Command]:
    """chrony's own check."""
    return [piped(root, CONFIG, "chrony accepts its configuration", "chronyd -p -f /dev/stdin")]


def probes(site: Site, server: Server) -> list[Probe]:
    """The daemon answers."""
    return [Probe("chrony answers", "command", argv=("chronyc", "-n", "tracking"))]


def _address(name: str) -> IPv4Address | None:
    try:
        return IPv4Address(name)
    except AddressValueError:
        return None
