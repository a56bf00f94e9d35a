"""From bare metal to in service: a blank machine boots from the network and joins, while the
server that it is copied from is being written to. There is no peer that does this."""

from __future__ import annotations

from pathlib import Path

from _bench import Row, row
from ets.lab.drills.join import join, write_load
from ets.lab.drills.material import gather
from ets.lab.lab import Lab

PAIR = Path(__file__).resolve().parents[1] / "examples/pair.toml"
STAGES = ("installer", "installed", "booted", "in service")


def rows(runs: int) -> list[Row]:
    """Measures ``runs`` times. Three to six minutes each."""
    material = gather(PAIR, lambda _: None, cloneable=True)
    seen: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for _ in range(runs):
        with (
            Lab.up(PAIR, name="joinbench", images=material.images, blank=["beta"]) as lab,
            write_load(lab.server("alpha").host),
        ):
            how = join(lab, "beta", source="alpha")
        for stage in STAGES:
            seen[stage].append(how.stages[stage])
    note = "emulated; 0.8 GB, 15,000 files"
    return [row(f"power-on to {stage}", seen[stage], [], "s", None, note) for stage in STAGES]
