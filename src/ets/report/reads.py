"""What the stations' probes saw: one record per read of a block that was never read before.

Times are seconds on the watcher's clock. A station's own clock starts at its boot; ``offset``
maps it (watcher's time = station's + offset), see ``clock_offset``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Read:
    """One read: begun at ``start``, ``took`` seconds; ``error`` is an errno, 0 when it went well;
    ``sum`` the sha256 (hex) of the 4096 bytes that came, empty after an error."""

    start: float
    took: float
    block: int
    sum: str
    error: int = 0

    @property
    def end(self) -> float:
        """When it came back."""
        return self.start + self.took


@dataclass(frozen=True, slots=True)
class Window:
    """From ``start`` to ``end``, both included, in seconds on the watcher's clock."""

    start: float
    end: float

    @property
    def length(self) -> float:
        """Seconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Stall:
    """The longest time that one read was out. ``lasting``: it had not come back at the end."""

    seconds: float
    at: float
    lasting: bool = False


def parse(line: bytes | str) -> Read | None:
    """One line of a probe, on the station's clock; ``t`` is when the read began. None for a line
    that is no whole record: the last one before a station was switched off may be cut."""
    try:
        record = json.loads(line)
        took = float(record["us"]) / 1e6
        read = Read(
            start=float(record["t"]),
            took=took,
            block=int(record["block"]),
            sum=str(record["sum"]),
            error=int(record["err"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    return read if math.isfinite(read.start) and math.isfinite(read.took) else None


def clock_offset(pairs: Iterable[tuple[float, float]]) -> float:
    """From (when a record arrived, on the watcher's clock; when its read ended, on the station's)
    the offset between the clocks: the least difference, because a record is never early and the
    quickest one was hardly late. Raises ValueError when there is no pair."""
    return min(arrived - ended for arrived, ended in pairs)


def shifted(read: Read, offset: float) -> Read:
    """The same read on the watcher's clock."""
    return Read(read.start + offset, read.took, read.block, read.sum, read.error)


def overlapping(reads: Iterable[Read], window: Window) -> list[Read]:
    """The reads that were out at some moment of the window."""
    return [read for read in reads if read.start <= window.end and read.end >= window.start]


def longest_stall(reads: Sequence[Read], window: Window, *, pause: float) -> Stall | None:
    """The longest time that a read of this one station was out during the window.

    ``pause`` is what the probe waits between two reads at most (seconds). Silence counts: a probe
    that says nothing for longer than ``pause`` has a read out, so the time since its last word,
    less the pause, is a stall too; one that never spoke again has a lasting one. A read that
    failed is no stall (it is an error, counted as such). None when the probe had never spoken.
    """
    spoken = sorted((read for read in reads if read.start <= window.end), key=lambda r: r.start)
    if not spoken:
        return None
    inside = [read for read in spoken if read.end >= window.start]
    stalls = [Stall(read.took, read.start) for read in inside]
    for before, after in pairwise(spoken):
        silence = after.start - before.end - pause
        if silence > 0 and after.start >= window.start:
            stalls.append(Stall(silence, before.end + pause))
    last = max(read.end for read in spoken)
    heard_later = any(read.start > window.end for read in reads)
    if not heard_later and window.end - last > pause:
        stalls.append(Stall(window.end - last - pause, last + pause, lasting=True))
    return max(stalls, key=lambda stall: stall.seconds, default=Stall(0.0, window.start))


def percentile(values: Iterable[float], share: float) -> float | None:
    """The smallest value that at least ``share`` (0 to 1) of all values do not exceed
    (nearest rank); None when there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def errors(reads: Iterable[Read]) -> int:
    """How many reads failed."""
    return sum(1 for read in reads if read.error)


def wrong(reads: Iterable[Read], good: Callable[[int], str]) -> int:
    """How many reads came back with other bytes than the published image has there. ``good``
    gives the sha256 (hex) of a block of it, computed by the watcher from its own copy."""
    return sum(1 for read in reads if not read.error and read.sum != good(read.block))


def first_after(reads: Iterable[Read], moment: float) -> float | None:
    """Seconds from ``moment`` to the first good read that came back after it; None when none
    did."""
    return min(
        (read.end - moment for read in reads if not read.error and read.end > moment), default=None
    )


def outage(reads: Sequence[Read], window: Window, *, pace: float) -> float:
    """The longest time in the window without a read that went well, in seconds, less the ``pace``
    at which the probe reads. Counts stalls and failures alike, and ends with the window: a reader
    that never recovered has been without data until then."""
    ends = sorted(read.end for read in reads if not read.error)
    inside = [end for end in ends if window.start <= end <= window.end]
    before = [end for end in ends if end < window.start][-1:]
    moments = [*before, *inside, window.end]
    if not before:
        moments = [window.start, *moments]
    return max(0.0, max(b - a for a, b in pairwise(moments)) - pace)


def in_flight(reads: Iterable[Read], moment: float) -> int:
    """How many reads were out at that moment."""
    return sum(1 for read in reads if read.start <= moment <= read.end)
