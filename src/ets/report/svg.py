"""The timeline as one inline SVG: a row per station, its reads as strokes (taller: slower, on a
logarithmic scale), the server that served it as a coloured band below, faults as columns.

Colours are CSS variables of the page (``html.py``), so the picture follows light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from ets.report.reads import Read, Window
from ets.report.timeline import Fault, Row, Timeline, longest_per_fault

WIDTH = 1180
LEFT = 150
RIGHT = 20
TOP = 102
ROW = 92
STROKES = 58
BAND = 12
AXIS = 34
#: a stroke's height grows with the logarithm of the read's time, from FAST to SLOW seconds
FAST = 0.001
SLOW = 20.0
#: reads slower than this are drawn as wide as they lasted
STALL = 0.1
#: and from here on their length is written beside the longest after each fault
TOLD = 0.2
#: neighbouring fast reads closer than this many pixels are drawn as one (the slowest of them)
GRAIN = 1.5


def colour(servers: tuple[str, ...], name: str) -> str:
    """The CSS colour of a server; grey for one that is unknown."""
    return f"var(--s{servers.index(name) % 6})" if name in servers else "var(--faint)"


def height(seconds: float) -> float:
    """Of a stroke, in pixels."""
    share = math.log(max(seconds, FAST) / FAST) / math.log(SLOW / FAST)
    return 3 + min(1.0, share) * (STROKES - 3)


class Picture:
    """Collects the elements of one timeline; ``text`` is the whole ``<svg>``."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.scale = (WIDTH - LEFT - RIGHT) / max(timeline.shown.length, 1e-9)
        self.height = TOP + ROW * len(timeline.rows) + AXIS

    def x(self, moment: float) -> float:
        """Where a moment lies, kept inside the picture."""
        shown = self.timeline.shown
        return LEFT + (min(max(moment, shown.start), shown.end) - shown.start) * self.scale

    def visible(self, window: Window) -> bool:
        """Does any of it lie in the shown part?"""
        shown = self.timeline.shown
        return window.end >= shown.start and window.start <= shown.end

    def text(self) -> str:
        """The picture."""
        parts = [*self.faults(), *self.axis()]
        for index, row in enumerate(self.timeline.rows):
            parts.extend(self.row(row, TOP + ROW * index))
        body = "\n".join(parts)
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" '
            f'aria-label="Timeline of the stations\' reads, and the faults">\n{body}\n</svg>'
        )

    def faults(self) -> Iterator[str]:
        """Columns; their labels stand on up to three levels, so that narrow ones do not meet."""
        bottom = self.height - AXIS
        ends = [-1e9] * 3
        for fault in sorted(self.timeline.faults, key=lambda fault: fault.window.start):
            if not self.visible(fault.window):
                continue
            left, right = self.x(fault.window.start), self.x(fault.window.end)
            yield (
                f'<rect class="fault" x="{left:.1f}" y="{TOP - 8}" '
                f'width="{max(right - left, 1.5):.1f}" height="{bottom - TOP + 8}">'
                f"<title>{escape(title(fault))}</title></rect>"
            )
            wide = 7.0 * max(len(fault.name), len(fault.target))
            level = next((n for n, end in enumerate(ends) if left >= end), 2)
            ends[level] = left + wide + 6
            y = 16 + 28 * level
            yield f'<text class="label" x="{left:.1f}" y="{y}">{escape(fault.name)}</text>'
            yield f'<text class="small" x="{left:.1f}" y="{y + 12}">{escape(fault.target)}</text>'
            yield f'<path class="edge" d="M{left:.1f} {y + 15}V{bottom}"/>'

    def axis(self) -> Iterator[str]:
        """Seconds along the bottom."""
        shown = self.timeline.shown
        bottom = self.height - AXIS
        step = next((s for s in (1, 2, 5, 10, 20, 30, 60) if shown.length / s <= 16), 120)
        second = math.ceil(shown.start / step) * step
        while second <= shown.end:
            x = self.x(second)
            yield f'<path class="tick" d="M{x:.1f} {bottom}v5"/>'
            yield f'<text class="small mid" x="{x:.1f}" y="{bottom + 18}">{second} s</text>'
            second += step

    def row(self, row: Row, top: float) -> Iterator[str]:
        """One station."""
        base = top + STROKES + 4
        yield f'<path class="rule" d="M{LEFT} {base:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text class="name" x="0" y="{top + 26:.1f}">{escape(row.name)}</text>'
        yield f'<text class="small" x="0" y="{top + 41:.1f}">{escape(row.kind)}</text>'
        order = " → ".join(row.order)
        yield f'<text class="small" x="0" y="{top + 55:.1f}">{escape(order)}</text>'
        for served in row.served:
            if self.visible(served.window):
                left, right = self.x(served.window.start), self.x(served.window.end)
                yield (
                    f'<rect x="{left:.1f}" y="{base + 3:.1f}" width="{max(right - left, 0.6):.1f}" '
                    f'height="{BAND}" fill="{colour(self.timeline.servers, served.server)}">'
                    f"<title>{escape(served.server)}</title></rect>"
                )
        yield from self.strokes(row, base)
        for moment in row.moments:
            if self.visible(Window(moment.at, moment.at)):
                x = self.x(moment.at)
                yield f'<path class="moment" d="M{x:.1f} {base + BAND + 3:.1f}V{top + 4:.1f}"/>'
                crowded = x > WIDTH - RIGHT - 7 * len(moment.name)
                place = f'x="{x - 3:.1f}" text-anchor="end"' if crowded else f'x="{x + 3:.1f}"'
                name = escape(moment.name)
                yield f'<text class="small" {place} y="{top + 12:.1f}">{name}</text>'

    def strokes(self, row: Row, base: float) -> Iterator[str]:
        """Reads: quick ones as one path, stalls and errors each as a block of its real length."""
        quick: dict[int, Read] = {}
        for read in row.reads:
            if not self.visible(Window(read.start, read.end)):
                continue
            if read.error or read.took >= STALL:
                left, right = self.x(read.start), self.x(read.end)
                tall = height(read.took)
                what = f"I/O error {read.error}" if read.error else f"{read.took:.3f} s"
                yield (
                    f'<rect class="{"error" if read.error else "stall"}" x="{left:.1f}" '
                    f'y="{base - tall:.1f}" width="{max(right - left, 1.4):.1f}" '
                    f'height="{tall:.1f}"><title>{what}</title></rect>'
                )
                continue
            slot = int(self.x(read.start) / GRAIN)
            if slot not in quick or quick[slot].took < read.took:
                quick[slot] = read
        path = "".join(
            f"M{slot * GRAIN:.1f} {base:.1f}v-{height(read.took):.1f}"
            for slot, read in sorted(quick.items())
        )
        if path:
            yield f'<path class="quick" d="{path}"/>'
        yield from self.worst(row, base)

    def worst(self, row: Row, base: float) -> Iterator[str]:
        """The longest read after each fault, in figures."""
        for _, read in longest_per_fault(row, self.timeline.faults, self.timeline.shown.end):
            if read is not None and read.took >= TOLD:
                yield (
                    f'<text class="worst" x="{self.x(read.end) + 3:.1f}" '
                    f'y="{base - height(read.took) + 8:.1f}">{read.took:.2f} s</text>'
                )


def title(fault: Fault) -> str:
    """What a pointer on the column shows."""
    return f"{fault.name} of {fault.target}, {fault.window.length:.1f} s"


def render(timeline: Timeline) -> str:
    """The picture as text to be placed in a page."""
    return Picture(timeline).text()
