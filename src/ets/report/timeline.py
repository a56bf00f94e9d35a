"""What happened during a drill, as the picture shows it. Times are seconds from the drill's
beginning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ets.report.reads import Read, Window


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault on ``target`` (a server's name, or several joined with ``+``), and its window:
    from the moment it was injected to the moment it was healed."""

    name: str
    target: str
    window: Window


@dataclass(frozen=True, slots=True)
class Moment:
    """Something worth a mark: ``login``, ``first DHCP answer``, ``switched on``."""

    name: str
    at: float


@dataclass(frozen=True, slots=True)
class Served:
    """During ``window`` the station's blocks came from ``server``."""

    server: str
    window: Window


@dataclass(frozen=True, slots=True)
class Row:
    """One station: what it is (``BIOS, virtio``), its order of servers, and what was seen."""

    name: str
    kind: str = ""
    order: tuple[str, ...] = ()
    reads: tuple[Read, ...] = ()
    served: tuple[Served, ...] = ()
    moments: tuple[Moment, ...] = ()


@dataclass(frozen=True, slots=True)
class Timeline:
    """The whole drill. ``shown`` is the part that the picture shows; ``servers`` give their
    colours in this order."""

    shown: Window
    servers: tuple[str, ...]
    rows: tuple[Row, ...]
    faults: tuple[Fault, ...] = ()
    facts: tuple[tuple[str, str], ...] = field(default=())


def served_windows(
    samples: Sequence[tuple[float, dict[str, int]]], *, least: int = 1
) -> tuple[Served, ...]:
    """From samples (moment, bytes that each server has sent to the station so far) the windows
    in which one server sent the most; a stretch in which nobody sent ``least`` bytes belongs to
    nobody. Counters that went back (they began anew) count as nothing."""
    found: list[Served] = []
    for (start, before), (end, after) in pairwise(samples):
        sent = {server: count - before.get(server, 0) for server, count in after.items()}
        best = max(sent, key=lambda server: (sent[server], server), default=None)
        if best is None or sent[best] < least:
            continue
        if found and found[-1].server == best and found[-1].window.end == start:
            found[-1] = Served(best, Window(found[-1].window.start, end))
        else:
            found.append(Served(best, Window(start, end)))
    return tuple(found)


def longest_per_fault(
    row: Row, faults: Iterable[Fault], until: float
) -> list[tuple[Fault, Read | None]]:
    """For each fault the slowest read of this station from its beginning to the next fault's
    (or ``until``); None where no read was out."""
    ordered = sorted(faults, key=lambda fault: fault.window.start)
    ends = [*(fault.window.start for fault in ordered[1:]), until][: len(ordered)]
    found: list[tuple[Fault, Read | None]] = []
    for fault, end in zip(ordered, ends, strict=True):
        inside = [r for r in row.reads if r.start <= end and r.end >= fault.window.start]
        found.append((fault, max(inside, key=lambda read: read.took, default=None)))
    return found
