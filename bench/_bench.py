"""What every measurement shares: a row, its goal, the table and the JSON.

A measurement is ``bench/<name>.py`` with ``rows(runs) -> list[Row]``: it measures ``runs`` times,
alternating with its peer where there is one, and gives medians. ``bench/run`` finds it by name.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from ets.errors import EtsError
from ets.host.run import log_to_stderr
from ets.report.promises import figure

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Goal:
    """``of`` (our figure, or its ratio to the peer's) must be at most, or at least, ``limit``."""

    limit: float
    of: Literal["ours", "ratio"] = "ours"
    sense: Literal["at most", "at least"] = "at most"

    def holds(self, ours: float | None, ratio: float | None) -> bool:
        """Never with a figure that is missing."""
        value = ours if self.of == "ours" else ratio
        if value is None:
            return False
        return value <= self.limit if self.sense == "at most" else value >= self.limit

    def __str__(self) -> str:
        sign = "≤" if self.sense == "at most" else "≥"
        return f"{sign} {figure(self.limit)}{' × peer' if self.of == 'ratio' else ''}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line: medians of ours and of the peer's, in ``unit``. None: not measured, or never
    (``note`` says which). ``spread`` is (least, greatest) of ours. Without a goal the row is for
    information and holds."""

    what: str
    ours: float | None
    peer: float | None
    unit: str
    goal: Goal | None = None
    spread: tuple[float, float] | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours divided by the peer's."""
        if self.ours is None or not self.peer:
            return None
        return self.ours / self.peer

    @property
    def held(self) -> bool:
        """Is the goal held?"""
        return self.goal is None or self.goal.holds(self.ours, self.ratio)


def row(
    what: str,
    ours: Sequence[float],
    peer: Sequence[float],
    unit: str,
    goal: Goal | None = None,
    note: str = "",
) -> Row:
    """A row from the runs' figures; an empty sequence means that there is no figure."""
    return Row(
        what,
        statistics.median(ours) if ours else None,
        statistics.median(peer) if peer else None,
        unit,
        goal,
        (min(ours), max(ours)) if ours else None,
        note,
    )


def names() -> list[str]:
    """The measurements that exist."""
    return sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))


def show(name: str, rows: Sequence[Row]) -> None:
    """Print the table."""
    table = Table(title=f"bench {name}", title_justify="left")
    for head in ("what", "ours", "spread", "peer", "unit", "ratio", "goal", "held", "note"):
        table.add_column(head, justify="right" if head in {"ours", "peer", "ratio"} else "left")
    for line in rows:
        spread = f"{figure(line.spread[0])} to {figure(line.spread[1])}" if line.spread else ""
        table.add_row(
            line.what,
            "–" if line.ours is None else figure(line.ours),
            spread,
            "–" if line.peer is None else figure(line.peer),
            line.unit,
            "–" if line.ratio is None else f"{line.ratio:.2f}",
            "" if line.goal is None else str(line.goal),
            "" if line.goal is None else "yes" if line.held else "NO",
            line.note,
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def as_json(rows: Sequence[Row]) -> str:
    """The rows for a program: what, ours, peer, unit, ratio, goal, held, spread, note."""
    return (
        json.dumps(
            [
                {
                    "what": line.what,
                    "ours": line.ours,
                    "peer": line.peer,
                    "unit": line.unit,
                    "ratio": line.ratio,
                    "goal": None if line.goal is None else str(line.goal),
                    "held": line.held,
                    "spread": line.spread,
                    "note": line.note,
                }
                for line in rows
            ],
            indent=2,
        )
        + "\n"
    )


def main(arguments: Sequence[str]) -> int:
    """``NAME [--json FILE] [--runs N]``; returns the exit status: 0 when every goal is held."""
    import argparse

    parser = argparse.ArgumentParser(prog="bench/run", description="Measure, beside a peer.")
    parser.add_argument("name", choices=names(), help="what to measure")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    parser.add_argument("--runs", type=int, default=3, help="how often; medians are shown")
    given = parser.parse_args(arguments)
    if given.runs < 1:
        parser.error("--runs must be at least 1")
    sys.path.insert(0, str(HERE))
    log_to_stderr(verbose=False)
    try:
        rows: list[Row] = import_module(given.name).rows(given.runs)
    except EtsError as error:
        print(f"bench {given.name}: {error}", file=sys.stderr)
        return error.exit_code
    show(given.name, rows)
    if given.json:
        given.json.write_text(as_json(rows))
    return 0 if rows and all(line.held for line in rows) else 1


if __name__ == "__main__":
    # the measurements import this file as _bench: there must be one Row, not two
    sys.path.insert(0, str(HERE))
    sys.exit(import_module("_bench").main(sys.argv[1:]))
