"""What a running station notices when the server of its root is killed: ours beside a plain LTSP
station (root over NBD) in the same lab, with the same image and the same probe."""

from __future__ import annotations

import time
from pathlib import Path

from _bench import Goal, Row, row
from _plain import make_plain
from ets.cluster.placement import order
from ets.lab.drills.material import Material, gather
from ets.lab.drills.stage import Actor, Stage
from ets.lab.lab import Lab
from ets.report.judge import Watch, stall
from ets.report.reads import Window
from ets.report.timeline import Fault

SITE = Path(__file__).parents[1] / "examples/pair.toml"
#: seconds that a fault lasts; a read that has not returned by then is counted with this length
LASTS = 20.0
FAULTS = ("kill", "power-off", "hang")
GOALS = {"kill": 0.3, "power-off": 1.0, "hang": 1.0}


def rows(runs: int) -> list[Row]:
    """The longest read stall after each fault, ours and LTSP's."""
    material = gather(SITE, lambda event: None)
    ours: dict[str, list[float]] = {fault: [] for fault in FAULTS}
    plain: dict[str, list[float]] = {fault: [] for fault in FAULTS}
    for _ in range(runs):
        _measure(material, ours, plain=False)
        _measure(material, plain, plain=True)
    frozen = f"≥ {LASTS:g} s: never returned while the server was away"
    return [
        row(f"{fault}: longest read", ours[fault], plain[fault], "s", Goal(GOALS[fault]),
            frozen if plain[fault] and min(plain[fault]) >= LASTS - 2 else "")
        for fault in FAULTS
    ]  # fmt: skip


def _measure(material: Material, into: dict[str, list[float]], *, plain: bool) -> None:
    with Lab.up(SITE, name="bfail", images=material.images) as lab, Stage(lab, print) as stage:
        known = lab.site.stations[0]
        server = order(known.mac, lab.site.servers)[0]
        if plain:
            make_plain(lab, material.manifest, server.name)
        actor = stage.switch_on(known.name, "bios", "virtio")
        stage.wait_reading([actor], 600)
        for fault in FAULTS:
            if not _alive(stage, actor):
                # an LTSP station that froze stays so: what comes later is no better
                into[fault].append(LASTS)
                continue
            time.sleep(3)
            began = stage.now
            with stage.fault(fault, fault, [server]):
                time.sleep(LASTS)
            ended = stage.now
            fresh = Watch(Fault(fault, server.name, Window(began, ended)), Window(began, ended))
            promise = stall(fault, LASTS, stage.rows(), fresh, 0.5)
            if promise.measured is not None:
                into[fault].append(promise.measured)
            time.sleep(10)


def _alive(stage: Stage, actor: Actor) -> bool:
    """Does it read now? Given a little time to come back."""
    before = actor.probe.count
    for _ in range(200):
        time.sleep(0.1)
        if actor.probe.count > before + 5:
            return True
    return False
