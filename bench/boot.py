"""From power-on to login, and bytes over the wire: ours beside plain LTSP (root over NBD), with
1, 4 and 8 stations switched on at once."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from _bench import Goal, Row, row
from _plain import make_plain
from ets.lab.drills.material import Material, gather
from ets.lab.lab import Lab

SITE = Path(__file__).parents[1] / "examples/pair.toml"
SIZES = (1, 4, 8)
#: seconds; eight emulated machines on two processors take their time
DEADLINE = 1200.0
#: the verified, hedged root may cost so much more than LTSP's
GOAL_TIME = Goal(1.15, of="ratio")
GOAL_BYTES = Goal(1.1, of="ratio")


def rows(runs: int) -> list[Row]:
    """Median over the runs of the slowest station's time, and of the mean bytes per station."""
    material = gather(SITE, lambda event: None)
    found = []
    for size in SIZES:
        times: dict[bool, list[float]] = {False: [], True: []}
        sizes: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(runs):
            for plain in (False, True):
                took, received = _boot(material, size, plain=plain)
                root = "plain LTSP" if plain else "ours"
                print(f"{size} at once, {root}: {took:.1f} s, {received:.1f} MB", file=sys.stderr)
                times[plain].append(took)
                sizes[plain].append(received)
        at_once = f"{size} station{'s' * (size > 1)} at once"
        found += [
            row(f"{at_once}: power-on to login", times[False], times[True], "s", GOAL_TIME),
            row(f"{at_once}: received by each", sizes[False], sizes[True], "MB", GOAL_BYTES),
        ]
    return found


def _boot(material: Material, size: int, *, plain: bool) -> tuple[float, float]:
    with Lab.up(SITE, name="bboot", images=material.images) as lab:
        if plain:
            make_plain(lab, material.manifest, next(iter(lab.servers)))
        # the probe reads for ever, which would be counted; a boot alone is wanted here
        known = [station.name for station in lab.site.stations]
        names = [*known, *(f"guest{index}" for index in range(size))][:size]
        began = time.monotonic()
        machines = [lab.start_station(name, probe=False) for name in names]
        for machine in machines:
            machine.wait_login(DEADLINE)
        took = time.monotonic() - began
        received = sum(machine.traffic().received for machine in machines)
        return took, received / size / 1e6
