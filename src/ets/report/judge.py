"""From what the stations saw to promises. Each function makes one promise; when a station never
spoke, or when nobody used the server that was hit, there is no figure and so nothing is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ets.report.promises import Promise
from ets.report.reads import (
    Read,
    Window,
    errors,
    first_after,
    in_flight,
    longest_stall,
    overlapping,
    percentile,
    wrong,
)
from ets.report.timeline import Fault, Row


@dataclass(frozen=True, slots=True)
class Watch:
    """A fault and the stretch in which its effects are looked for: usually from its beginning to
    the next fault's, so that healing is watched too."""

    fault: Fault
    window: Window


def silent(rows: Iterable[Row], window: Window) -> str:
    """Which stations had said nothing by the end of the window; empty when all had spoken."""
    return ", ".join(row.name for row in rows if not any(r.start <= window.end for r in row.reads))


def users(rows: Iterable[Row], server: str, moment: float, *, before: float = 2.0) -> list[str]:
    """The stations that got blocks from the server in the seconds before the moment."""
    return [
        row.name
        for row in rows
        if any(
            served.server == server
            and served.window.start <= moment
            and served.window.end >= moment - before
            for served in row.served
        )
    ]


def stall(
    name: str,
    limit: float,
    rows: Sequence[Row],
    watch: Watch,
    pause: float,
    *,
    struck: float | None = None,
) -> Promise:
    """The longest time that a read of any station was out in the window, in seconds. With
    ``struck``, the moment when the server went, a read must have been under way just then."""
    unit = "s"
    if missing := silent(rows, watch.window):
        return Promise(name, unit, limit, None, f"nothing was read on {missing}")
    hit = users(rows, watch.fault.target, watch.fault.window.start)
    if not hit:
        return Promise(name, unit, limit, None, f"no station was reading from {watch.fault.target}")
    found = [(longest_stall(row.reads, watch.window, pause=pause), row.name) for row in rows]
    seen = [(longest, station) for longest, station in found if longest is not None]
    worst, station = max(seen, key=lambda pair: pair[0].seconds)
    moment = watch.fault.window.start if struck is None else struck
    out = sum(in_flight(row.reads, moment) for row in rows)
    detail = (
        f"worst: {station}; {watch.fault.target} was serving {', '.join(hit)}; "
        f"reads under way at that moment: {out}"
    )
    if struck is not None and not out:
        return Promise(name, unit, limit, None, "no read was under way at that moment")
    lasting = any(longest.lasting and longest.seconds > limit for longest, _ in seen)
    return Promise(name, unit, limit, worst.seconds, detail, lasting=lasting)


def slow_reads(name: str, limit: float, rows: Sequence[Row], watch: Watch) -> Promise:
    """What 99 % of all stations' reads took at most while one server was slow, in seconds."""
    during = watch.fault.window
    reads = [r for row in rows for r in row.reads if during.start <= r.start <= during.end]
    share = percentile((read.took for read in reads), 0.99)
    hit = users(rows, watch.fault.target, during.start)
    if missing := silent(rows, during):
        return Promise(name, "s", limit, None, f"nothing was read on {missing}")
    if not hit or share is None:
        return Promise(name, "s", limit, None, f"no station was reading from {watch.fault.target}")
    longest = max(read.took for read in reads)
    return Promise(name, "s", limit, share, f"{len(reads)} reads, the longest {longest:.2f} s")


def wrong_blocks(
    name: str, rows: Sequence[Row], watch: Watch, good: Callable[[int], str], noticed: int
) -> Promise:
    """Reads that gave other bytes than the published image has. ``noticed`` is how many wrong
    blocks the stations' helpers saw and refused in the window: without one, the fault never
    reached a station and nothing was shown."""
    unit = "wrong reads"
    reads = [read for row in rows for read in overlapping(row.reads, watch.window)]
    if missing := silent(rows, watch.window):
        return Promise(name, unit, 0, None, f"nothing was read on {missing}")
    count = wrong(reads, good)
    if not noticed and not count:
        return Promise(name, unit, 0, None, "no station was sent a wrong block")
    return Promise(name, unit, 0, count, f"{len(reads)} reads; {noticed} wrong blocks were refused")


def io_errors(name: str, rows: Sequence[Row], watch: Watch) -> Promise:
    """Reads that failed in the window."""
    reads: list[Read] = [r for row in rows for r in overlapping(row.reads, watch.window)]
    if missing := silent(rows, watch.window):
        return Promise(name, "errors", 0, None, f"nothing was read on {missing}")
    return Promise(name, "errors", 0, errors(reads), f"{len(reads)} reads on {len(rows)} stations")


def reading_again(
    name: str, limit: float, rows: Sequence[Row], returned: float | None, least_stall: float
) -> Promise:
    """Seconds from the return of the first server to the first good read, of the last station.
    Every station must have had a read out for ``least_stall`` seconds before: otherwise the
    servers were not away."""
    if returned is None:
        return Promise(name, "s", limit, None, "no server was seen to return")
    waits: list[tuple[float, str]] = []
    for row in rows:
        wait = first_after(row.reads, returned)
        if wait is None:
            return Promise(name, "s", limit, None, f"{row.name} did not read again")
        waits.append((wait, row.name))
        longest = max((r.took for r in row.reads if r.start <= returned <= r.end), default=0.0)
        if longest < least_stall:
            return Promise(name, "s", limit, None, f"{row.name} was still reading: not all away")
    if not waits:
        return Promise(name, "s", limit, None, "no station")
    worst, station = max(waits)
    return Promise(name, "s", limit, worst, f"worst: {station}")


def dhcp_delay(name: str, limit: float, quiet: Sequence[float], measured: float | None) -> Promise:
    """How much later than on a quiet day (the slowest of ``quiet``) the first DHCP answer came
    after the first question, in seconds; never below 0."""
    if measured is None or not quiet:
        what = "no answer was seen" if quiet else "no quiet day was seen"
        return Promise(name, "s", limit, None, what)
    usual = max(quiet)
    return Promise(
        name,
        "s",
        limit,
        max(0.0, measured - usual),
        f"answered after {measured:.2f} s; on a quiet day after at most {usual:.2f} s",
    )
