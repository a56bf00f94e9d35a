"""What a running station notices when the server of its root is killed: ours beside a plain LTSP
station (root over NBD) in the same lab, with the same image and the same probe."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from _bench import Goal, Row, row
from _plain import make_plain
from ets.cluster.placement import order
from ets.lab.drills.material import Material, gather
from ets.lab.drills.stage import Actor, Stage
from ets.lab.lab import Lab
from ets.report.reads import Window, outage, overlapping

SITE = Path(__file__).parents[1] / "examples/pair.toml"
#: seconds that a fault lasts: who is without data until then counts with this length
LASTS = 20.0
#: seconds between two reads of the probe
PACE = 0.1
FAULTS = ("kill", "power-off", "hang")
GOALS = {"kill": 0.3, "power-off": 1.0, "hang": 1.0}


def rows(runs: int) -> list[Row]:
    """The longest time without data after each fault, and failed reads, ours and LTSP's."""
    material = gather(SITE, lambda event: None)
    seen: dict[tuple[str, bool], list[tuple[float, int]]] = {
        (fault, plain): [] for fault in FAULTS for plain in (False, True)
    }
    for _ in range(runs):
        for plain in (False, True):
            for fault, outcome in _measure(material, plain=plain):
                seen[fault, plain].append(outcome)
    found = []
    for fault in FAULTS:
        ours, peer = seen[fault, False], seen[fault, True]
        never = bool(peer) and min(time for time, _ in peer) >= LASTS - 1
        found += [
            row(
                f"{fault}: longest time without data",
                [time for time, _ in ours],
                [time for time, _ in peer],
                "s",
                Goal(GOALS[fault]),
                f"the peer had none until the end of the {LASTS:g} s" if never else "",
            ),
            row(
                f"{fault}: failed reads",
                [float(count) for _, count in ours],
                [float(count) for _, count in peer],
                "reads",
                Goal(0),
            ),
        ]
    return found


def _measure(material: Material, *, plain: bool) -> Iterator[tuple[str, tuple[float, int]]]:
    with Lab.up(SITE, name="bfail", images=material.images) as lab, Stage(lab, print) as stage:
        known = lab.site.stations[0]
        server = order(known.mac, lab.site.servers)[0]
        if plain:
            make_plain(lab, material.manifest, server.name)
        actor = stage.switch_on(known.name, "bios", "virtio")
        for fault in FAULTS:
            if not _reads(actor):
                # an LTSP station that has lost its root has to be switched off and on
                actor.machine.stop()
                actor = stage.switch_on(known.name, "bios", "virtio")
            stage.wait_reading([actor], 600)
            time.sleep(3)
            began = stage.now
            with stage.fault(fault, fault, [server]):
                time.sleep(LASTS)
                during = Window(began, stage.now)
            if plain:
                make_plain(lab, material.manifest, server.name)  # a server that booted has agents
            time.sleep(10)
            reads = actor.probe.reads(stage.origin)
            failed = sum(1 for read in overlapping(reads, during) if read.error)
            yield fault, (outage(reads, during, pace=PACE), failed)


def _reads(actor: Actor) -> bool:
    """Does it read now, and well? Given a little time to come back; true before its boot."""
    if not actor.probe.count:
        return True
    before = sum(1 for read in actor.probe.reads(0) if not read.error)
    for _ in range(100):
        time.sleep(0.1)
        if sum(1 for read in actor.probe.reads(0) if not read.error) > before + 5:
            return True
    return False
