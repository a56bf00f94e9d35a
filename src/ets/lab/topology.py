"""The lab's networks: bridges in a network namespace of their own, one namespace per server.

Nothing is made in the machine's own network namespace. Names are ``ets-<lab>-net`` for the
namespace with the bridges (one per network: ``br-lan``, ``br-stations``, ``br-compute``) and
``ets-<lab>-<server>``; a server's end of each cable is the interface that the site file names.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ets.errors import CommandFailed
from ets.host.run import Completed, run
from ets.site.model import ROLES, Role, Server, Site

_NETNS = Path("/run/netns")

# No IPv6: a lab's machines have no addresses in it, and its chatter would be counted as traffic.
# Bridged packets are none of iptables' business.
_SYSCTLS = """
for f in /proc/sys/net/ipv6/conf/all/disable_ipv6 /proc/sys/net/ipv6/conf/default/disable_ipv6
do [ -e $f ] && echo 1 >$f; done
for f in /proc/sys/net/bridge/bridge-nf-call-*tables; do [ -e $f ] && echo 0 >$f; done
true
"""


class Namespace:
    """A network namespace by name. As a context: made at the start, removed at the end."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def path(self) -> Path:
        """What ``nsenter --net=`` and systemd-nspawn take."""
        return _NETNS / self.name

    @property
    def exists(self) -> bool:
        """True when it is there."""
        return self.path.exists()

    def make(self) -> None:
        """Make it, with its loopback up and IPv6 off. Raises CommandFailed when it is there."""
        run(["ip", "netns", "add", self.name])
        self.run(["sh", "-c", _SYSCTLS])
        self.batch(["link set lo up"])

    def remove(self) -> None:
        """Remove it with every interface in it; well when there is none."""
        if self.exists:
            run(["ip", "netns", "delete", self.name])

    def entering(self, argv: Sequence[str]) -> list[str]:
        """``argv``, changed so that the program runs in this namespace."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", deadline: float = 30, check: bool = True
    ) -> Completed:
        """As ``ets.host.run.run``, in this namespace."""
        return run(self.entering(argv), stdin=stdin, deadline=deadline, check=check)

    def batch(self, commands: Sequence[str]) -> None:
        """``ip`` commands, all of them or CommandFailed."""
        text = "".join(f"{command}\n" for command in commands)
        run(["ip", "-netns", self.name, "-batch", "-"], stdin=text.encode())

    def __enter__(self) -> Self:
        self.make()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes and packets through a station's port, as the station sees them."""

    received: int
    sent: int
    packets_received: int
    packets_sent: int


class Topology:
    """The networks of one lab. Everything in it has a name that follows from lab and site, so it
    can be found and removed by another process."""

    def __init__(self, lab: str, site: Site) -> None:
        self._lab = lab
        self._site = site
        self.net = Namespace(f"ets-{lab}-net")

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        """All namespaces of the lab, the bridges' first."""
        return (self.net, *(self.namespace(server) for server in self._site.servers))

    def namespace(self, server: Server) -> Namespace:
        """Where the server's interfaces are."""
        return Namespace(f"ets-{self._lab}-{server.name}")

    def make(self) -> None:
        """Make the bridges. A fresh bridge holds packets back for 15 s unless told not to."""
        self.net.make()
        commands = []
        for role in self._site.networks:
            commands += [
                f"link add br-{role} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                f"link set br-{role} up",
            ]
        self.net.batch(commands)

    def remove(self) -> None:
        """Remove all namespaces; well when there are none."""
        for namespace in self.namespaces:
            namespace.remove()

    def port(self, server: Server, role: Role) -> str:
        """The bridge's end of a server's cable."""
        return f"s{self._site.servers.index(server)}-{role}"

    def roles(self, server: Server) -> tuple[Role, ...]:
        """The networks that the server is connected to."""
        return tuple(role for role in ROLES if role in server.addresses)

    def mac(self, server: Server, role: Role) -> str:
        """The MAC of a server's interface; the same after every restart, as a real card's is.
        The one that the site file says, where it does."""
        if role == "stations" and server.mac is not None:
            return server.mac
        return f"52:54:00:e7:{self._site.servers.index(server):02x}:{ROLES.index(role):02x}"

    def plug_server(self, server: Server) -> None:
        """Make the server's namespace, its interfaces with their addresses, and its cables."""
        namespace = self.namespace(server)
        outside, inside = [], []
        for role in self.roles(server):
            network = self._site.networks[role]
            port, mac = self.port(server, role), self.mac(server, role)
            peer = f"{network.interface} address {mac} netns {namespace.name}"
            outside += [
                f"link add {port} type veth peer name {peer}",
                f"link set {port} master br-{role} up",
            ]
            address = f"{server.addresses[role]}/{network.subnet.prefixlen}"
            inside += [
                f"address add {address} brd + dev {network.interface}",
                f"link set {network.interface} up",
            ]
        namespace.make()
        try:
            self.net.batch(outside)
            namespace.batch(inside)
        except BaseException:
            self.unplug_server(server)
            raise

    def unplug_server(self, server: Server) -> None:
        """Remove the server's cables and its namespace. The kernel takes a namespace apart some
        time later; cables that went with it only then would be in the way of new ones."""
        for role in self.roles(server):
            self._delete_link(self.port(server, role))
        self.namespace(server).remove()

    def set_cable(self, server: Server, roles: Sequence[Role], *, plugged: bool) -> None:
        """Pull or plug cables at the switch's end: the server sees its carrier go or come."""
        state = "up" if plugged else "down"
        self.net.batch([f"link set {self.port(server, role)} {state}" for role in roles])

    def cable(self, server: Server, role: Role) -> bool:
        """True when the cable is plugged in. A server without a namespace has no cables."""
        shown = self.net.run(
            ["ip", "-json", "link", "show", self.port(server, role)], check=False
        ).text
        links = json.loads(shown or "[]")
        return bool(links) and "UP" in links[0]["flags"]

    def plug_tap(self, tap: str, role: Role = "stations") -> None:
        """Make a tap interface on a network's bridge for a QEMU machine."""
        self.unplug_tap(tap)
        self.net.batch([f"tuntap add dev {tap} mode tap", f"link set {tap} master br-{role} up"])

    def unplug_tap(self, tap: str) -> None:
        """Remove a machine's tap; well when there is none."""
        self._delete_link(tap)

    def traffic(self, tap: str) -> Traffic:
        """What has gone through a station's port. What the bridge sends, the station receives."""
        shown = self.net.run(["ip", "-json", "-statistics", "link", "show", tap]).text
        counted = json.loads(shown)[0]["stats64"]
        return Traffic(
            received=counted["tx"]["bytes"],
            sent=counted["rx"]["bytes"],
            packets_received=counted["tx"]["packets"],
            packets_sent=counted["rx"]["packets"],
        )

    def separate(self, server: Server) -> None:
        """Cut ``server`` from all other servers on every network; stations still reach it."""
        rules = []
        for role in self.roles(server):
            for peer in self._site.peers(server.name):
                if role in peer.addresses:
                    mine, theirs = self.port(server, role), self.port(peer, role)
                    rules += [
                        f'iifname "{mine}" oifname "{theirs}" drop',
                        f'iifname "{theirs}" oifname "{mine}" drop',
                    ]
        chain = "type filter hook forward priority 0; policy accept;"
        lines = [f"table bridge {self._partition(server)} {{", "chain forward {", chain]
        text = "\n".join([*lines, *rules, "}", "}", ""])
        self.net.run(["nft", "-f", "-"], stdin=text.encode())

    def join(self, server: Server) -> None:
        """End ``separate``; well when it is not cut off."""
        self.net.run(["nft", "delete", "table", "bridge", self._partition(server)], check=False)

    def separated(self, server: Server) -> bool:
        """True between ``separate`` and ``join``."""
        table = self._partition(server)
        return self.net.run(["nft", "list", "table", "bridge", table], check=False).status == 0

    def _delete_link(self, name: str) -> None:
        with contextlib.suppress(CommandFailed):
            self.net.batch([f"link delete {name}"])

    def _partition(self, server: Server) -> str:
        return f"partition_{self._site.servers.index(server)}"
