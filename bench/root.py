"""The root under faults: our helper beside the kernel's own multi-connection fail-over.

Station: QEMU/TCG with Debian's cloud kernel; 50 reads per second of blocks never read before, past
every cache, by 8 threads; two nbdkit servers whose reads take 20 ms, so that reads are always in
flight. Each fault hits the server that the station prefers, in a station fresh from boot.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from _bench import Goal, Row, row
from _rootguest import Guest
from _rootrig import BLOCK, Image, Rig, Server, make_image, now

BLOCKS = 32768  # 128 MiB: never-read blocks for the longest run
DELAY_MS = 20
SLOW_MS = 1500
AWAY_S = 20.0
SETTLE_S = 20.0  # how long after the repair a read may still come back


@dataclass(frozen=True, slots=True)
class Fault:
    """``inject`` and ``heal`` one server; the fault lasts ``seconds``."""

    what: str
    inject: Callable[[Server], None]
    heal: Callable[[Server], None]
    seconds: float = 6.0
    everywhere: bool = False


@dataclass(slots=True)
class Seen:
    """Of one fault: the longest read in seconds, the share under 0.5 s, what was wrong, and how
    long after the repair the first read came back."""

    longest: float
    quick: float
    wrong: int
    errors: int
    resumed: float
    quiet: float = field(default=0.0)


def _power_off(server: Server) -> None:
    server.unplug()
    server.kill()


def _power_on(server: Server) -> None:
    server.plug()
    server.start(DELAY_MS)


def _corrupt(image: Image, server: Server) -> None:
    """One bit of every data block changes on this server's disk; nbdkit sees it at once."""
    path = server.exports / image.roothash
    data = bytearray(path.read_bytes())
    for at in range(100, image.size, BLOCK):
        data[at] ^= 1
    with path.open("r+b") as file:
        file.write(data)


def faults(image: Image) -> list[Fault]:
    """What is done to the servers."""
    again = partial(Server.restart, delay_ms=DELAY_MS)
    return [
        Fault("kill", Server.kill, partial(Server.start, delay_ms=DELAY_MS)),
        Fault("hang", Server.stop, Server.resume),
        Fault("power-off", _power_off, _power_on),
        Fault("slow", partial(Server.restart, delay_ms=SLOW_MS), again, seconds=12),
        Fault("corrupt", partial(_corrupt, image), lambda server: None),
        Fault("away", _power_off, _power_on, seconds=AWAY_S, everywhere=True),
    ]


def measure(helper: str, fault: Fault, image: Image, folder: Path) -> Seen:
    """One station, one fault."""
    with Rig(folder, 2) as rig:
        for server in rig.servers:
            server.give(image)
            server.start(DELAY_MS)
        with Guest(rig, image, helper=helper) as guest:
            guest.wait_reading(150)
            quiet = statistics.median(read.us for read in guest.reads[50:]) / 1000
            hit = rig.servers if fault.everywhere else rig.servers[:1]
            began = now()
            for server in hit:
                fault.inject(server)
            time.sleep(fault.seconds)
            for server in hit[::-1]:  # when all are away, the one it prefers less is back first
                fault.heal(server)
                if server is hit[-1]:
                    resumed = _until_reading(guest, now())
            _until_reading(guest, now(), reads=50)
            reads = [read for read in guest.reads if read.at >= began]
            unfinished = now() - began if not reads else 0.0
            right = _digests(image)
            return Seen(
                longest=max((read.us / 1e6 for read in reads), default=unfinished),
                quick=100 * sum(read.us < 500_000 for read in reads) / max(1, len(reads)),
                wrong=sum(not read.err and read.sum != right[read.block] for read in reads),
                errors=sum(read.err != 0 for read in reads),
                resumed=resumed,
                quiet=quiet,
            )


def _until_reading(guest: Guest, since: float, reads: int = 1) -> float:
    """Seconds until that many reads came back; at most SETTLE_S."""
    until = len(guest.reads) + reads
    while len(guest.reads) < until and now() < since + SETTLE_S:
        time.sleep(0.005)
    return now() - since


def _digests(image: Image) -> list[str]:
    data = image.path.read_bytes()
    return [hashlib.sha256(data[at : at + BLOCK]).hexdigest() for at in range(0, image.size, BLOCK)]


def rows(runs: int) -> list[Row]:
    """Measures ``runs`` times, ours and the peer in turn. About seven minutes each time."""
    seen: dict[tuple[str, str], list[Seen]] = {}
    with tempfile.TemporaryDirectory() as folder:
        image = make_image(Path(folder) / "root.img", BLOCKS)
        for run in range(runs):
            for fault in faults(image):
                for helper in ("rootd", "kernel-multi"):
                    work = Path(folder) / f"{run}-{fault.what}-{helper}"
                    work.mkdir()
                    seen.setdefault((fault.what, helper), []).append(
                        measure(helper, fault, image, work)
                    )
                    for copy in work.glob("exports*/*"):
                        copy.unlink()
    return _table(seen)


def _table(seen: dict[tuple[str, str], list[Seen]]) -> list[Row]:
    def line(what: str, fault: str, of: str, unit: str, goal: Goal | None, note: str = "") -> Row:
        def values(helper: str) -> Sequence[float]:
            return [float(getattr(one, of)) for one in seen[fault, helper]]

        return row(what, values("rootd"), values("kernel-multi"), unit, goal, note)

    none = Goal(0)
    return [
        line("one server killed: longest read", "kill", "longest", "s", Goal(0.3),
             "with reads in flight"),
        line("one server hangs: longest read", "hang", "longest", "s", Goal(1)),
        line("one server powered off: longest read", "power-off", "longest", "s", Goal(1)),
        line("one server slow by 1.5 s: reads under 0.5 s", "slow", "quick", "%",
             Goal(99, sense="at least")),
        line("one server slow by 1.5 s: longest read", "slow", "longest", "s", None),
        line("one server's image corrupt: wrong reads", "corrupt", "wrong", "blocks", none,
             "the peer without dm-verity"),
        line("one server's image corrupt: I/O errors", "corrupt", "errors", "reads", none),
        line("all away for 20 s: first read after the return", "away", "resumed", "s", Goal(2)),
        line("all away for 20 s: I/O errors", "away", "errors", "reads", none),
        line("quiet: median read", "kill", "quiet", "ms", None, "20 ms of it the servers'"),
    ]  # fmt: skip
