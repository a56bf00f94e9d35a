"""A whole server's copy: ours beside rsync over ssh, and beside ``cp -a`` as the floor.

A tree of 2.2 GB and 60,000 files, in memory at the start; ssh over the loopback of a network
namespace with AES-128-GCM for both. Both copies preserve hard links, ACLs, extended attributes,
holes and owners' numbers. The order changes from run to run.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from _bench import Goal, Row, row
from _clonerig import Wire, clear, make_tree, warm, wire
from ets.clone.pull import pull
from ets.host.run import run

CHANGED = 50
RSYNC = ("rsync", "-aHAXS", "--numeric-ids", "--delete", "--modify-window=-1")


@dataclass(frozen=True, slots=True)
class Took:
    """``wall`` and processor seconds of both ends, megabytes on the wire, and seconds of silence
    on the source."""

    wall: float
    cpu: float
    wire: float
    paused: float = 0.0


Copy = Callable[[Wire, Path, Path], float]


def _ours(link: Wire, source: Path, into: Path) -> float:
    return pull(link.wrap, into, source=str(source)).paused


def _rsync(link: Wire, source: Path, into: Path) -> float:
    shell = " ".join(link.ssh)
    run([*RSYNC, "-e", shell, f"root@127.0.0.1:{source}/", f"{into}/"], deadline=3600)
    return 0.0


def _cp(link: Wire, source: Path, into: Path) -> float:
    del link
    run(["cp", "-a", f"{source}/.", f"{into}/"], deadline=3600)
    return 0.0


WAYS: dict[str, Copy] = {"ours": _ours, "rsync": _rsync, "cp": _cp}


def _timed(way: str, link: Wire, source: Path, into: Path) -> Took:
    run(["sync"], deadline=600)  # the copy before may still be on its way to the disk
    cpu, bytes_ = link.seconds(), link.received()
    began = time.monotonic()
    paused = WAYS[way](link, source, into)
    wall = time.monotonic() - began
    return Took(wall, link.seconds() - cpu, (link.received() - bytes_) / 1e6, paused)


def _change(source: Path, run_: int) -> None:
    """Other content in some files, of the same length, in the same second."""
    files = sorted(source.glob("d1*/e*/f*"))[run_::37][:CHANGED]
    for path in files:
        with path.open("r+b") as file:
            file.write(os.urandom(16))


def rows(runs: int) -> list[Row]:
    """Measures ``runs`` times. About two minutes each."""
    seen: dict[tuple[str, str], list[Took]] = {}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        top = Path(folder)
        source = top / "source"
        make_tree(source)
        with wire(top / "wire") as link:
            for number in range(runs):
                ways = list(WAYS)[number % 3 :] + list(WAYS)[: number % 3]
                for way in ways:
                    clear(top / way)
                    warm(source)
                    seen.setdefault(("full", way), []).append(_timed(way, link, source, top / way))
                for what in ("0", "50"):
                    for way in ("ours", "rsync"):
                        if what == "50":
                            _change(source, number)
                        took = _timed(way, link, source, top / way)
                        seen.setdefault((what, way), []).append(took)
        with wire(top / "slow", "1gbit") as link:
            for way in ("ours", "rsync"):
                clear(top / way)
                warm(source)
                seen["1 Gbit/s", way] = [_timed(way, link, source, top / way)]
    return _table(seen)


def _table(seen: dict[tuple[str, str], list[Took]]) -> list[Row]:
    def of(what: str, way: str, field: str = "wall") -> Sequence[float]:
        return [float(getattr(one, field)) for one in seen[what, way]]

    floor = of("full", "cp")
    more = [b - a for a, b in zip(of("0", "ours"), of("50", "ours"), strict=True)]
    peer = [b - a for a, b in zip(of("0", "rsync"), of("50", "rsync"), strict=True)]
    return [
        row("full copy", of("full", "ours"), of("full", "rsync"), "s", Goal(0.8, "ratio")),
        row("full copy, beside cp -a", of("full", "ours"), floor, "s", Goal(1.6, "ratio"),
            "peer: cp -a on one machine"),
        row("full copy: processor, both ends", of("full", "ours", "cpu"),
            of("full", "rsync", "cpu"), "s", None,
            f"cp -a: {statistics.median(of('full', 'cp', 'cpu')):.1f} s"),
        row("full copy: on the wire", of("full", "ours", "wire"), of("full", "rsync", "wire"),
            "MB", None),
        row("full copy at 1 Gbit/s", of("1 Gbit/s", "ours"), of("1 Gbit/s", "rsync"), "s", None,
            "compressed, for that is faster there"),
        row("full copy at 1 Gbit/s: on the wire", of("1 Gbit/s", "ours", "wire"),
            of("1 Gbit/s", "rsync", "wire"), "MB", None),
        row("again, nothing changed", of("0", "ours"), of("0", "rsync"), "s", None,
            "with the pass in silence"),
        row("again, 50 files changed", of("50", "ours"), of("50", "rsync"), "s", None),
        row("what 50 files cost", more, peer, "s", Goal(2)),
        row("again, 50 files: on the wire", of("50", "ours", "wire"), of("50", "rsync", "wire"),
            "MB", None),
        row("the source's silence", of("full", "ours", "paused"), [], "s", None,
            "nothing is stopped here; see the tests for a server's"),
    ]  # fmt: skip
