"""How long 200 DHCP clients wait on a quiet day, while servers are cut off from each other, and
while one is killed; and whether an address is given twice or a client left alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

from _bench import Goal, Row, row
from ets.lab.dhcpload import Outcome
from ets.lab.drills import dhcp, sites
from ets.lab.lab import Lab

KNOWN, GUESTS = 120, 80
#: seconds; one lost packet costs a client 1 s, two 3 s, three 7 s (iPXE's timers)
GOALS = {"quiet day": 0.5, "partition": 0.5, "kill": 4.0}


def rows(runs: int) -> list[Row]:
    """Worst waits, and what must be zero."""
    seen: dict[str, list[Outcome]] = {name: [] for name in GOALS}
    with tempfile.TemporaryDirectory() as folder:
        site = sites.campus(Path(folder) / "site.toml", servers=3, known=KNOWN)
        with Lab.up(site, name="bdhcp") as lab:
            for _ in range(runs):
                for name in GOALS:
                    seen[name].append(_measure(lab, name))
    found = []
    for name, outcomes in seen.items():
        worst = [outcome.worst for outcome in outcomes]
        twice = [float(len(outcome.duplicates)) for outcome in outcomes]
        never = [float(len(outcome.unserved)) for outcome in outcomes]
        found += [
            row(f"{name}: worst wait", worst, [], "s", Goal(GOALS[name])),
            row(f"{name}: addresses given twice", twice, [], "addresses", Goal(0)),
            row(f"{name}: clients unserved", never, [], "clients", Goal(0)),
        ]
    return found


def _measure(lab: Lab, name: str) -> Outcome:
    dhcp.settle(lab)
    macs = sites.known_macs(KNOWN) + sites.guest_macs(GUESTS)
    with dhcp.clients(lab, macs) as load:
        if name == "kill":
            return dhcp.killed(lab, load, "alpha")
        if name == "partition":
            return dhcp.parted(lab, load, "alpha")
        return dhcp.quiet(load)
