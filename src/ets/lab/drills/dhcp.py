"""DHCP while servers fail: many clients ask, and what a site must never show is counted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ets.host.run import run
from ets.lab.dhcpload import Load, Outcome
from ets.lab.lab import Lab
from ets.lab.topology import Namespace

#: seconds: the longest pause of a client's timers, and a little more
PATIENCE = 30.0
#: within which all clients are switched on
BURST = 4.0
#: within which they are switched on when a server is killed, and when in it that is: so close
#: together that some are just being served
RUSH = 0.8
STRIKES = 0.4


@contextmanager
def cable(net: Namespace, name: str = "load") -> Iterator[str]:
    """A cable into the stations' bridge; gives the interface at its free end, which is in
    ``net`` too."""
    port = f"{name}-port"
    net.batch(
        [
            f"link add {port} type veth peer name {name}",
            f"link set {port} master br-stations up",
            f"link set {name} up",
        ]
    )
    try:
        yield name
    finally:
        run(["ip", "-netns", net.name, "link", "delete", port], check=False)


@contextmanager
def clients(lab: Lab, macs: Sequence[str], seed: int = 1) -> Iterator[Load]:
    """A load of these clients on the lab's stations' network."""
    net = lab.topology.net
    with cable(net) as interface, Load(macs, interface, netns=net.name, seed=seed) as load:
        yield load


def quiet(load: Load) -> Outcome:
    """All clients are switched on, and nothing fails."""
    load.schedule("boot", over=BURST)
    load.run(BURST + PATIENCE, until_served=True)
    return load.outcome()


def killed(lab: Lab, load: Load, server: str) -> Outcome:
    """``server`` is killed while all clients boot; then those that it had served (all, as none
    knows who will answer) must be able to keep their addresses without it."""
    load.schedule("boot", over=RUSH)
    load.run(STRIKES)
    with _during(lab, "kill", server):
        load.run(BURST + PATIENCE, until_served=True)
        load.schedule("rebind", over=BURST)
        load.run(BURST + PATIENCE, until_served=True)
        return load.outcome()


def parted(lab: Lab, load: Load, server: str) -> Outcome:
    """``server`` and the others cannot hear each other while all clients boot, renew, and boot
    again; every client hears all servers."""
    with _during(lab, "partition", server):
        for what in ("boot", "renew", "boot"):
            load.schedule(what, over=BURST)
            load.run(BURST + PATIENCE, until_served=True)
        return load.outcome()


def settle(lab: Lab, deadline: float = 60.0) -> None:
    """Wait until every server is what it should be. Raises DeadlinePassed."""
    for server in lab.servers.values():
        server.wait_answering(deadline=deadline)
    time.sleep(2)  # agents exchange what they learned in a heartbeat or two


@contextmanager
def _during(lab: Lab, fault: str, server: str) -> Iterator[None]:
    lab.inject(fault, server)
    try:
        yield
    finally:
        lab.heal(server)
