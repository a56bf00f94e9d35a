"""A promise: a figure with a limit. What was not measured is not held."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Promise:
    """``measured`` must be at most ``limit``, both in ``unit``.

    ``measured`` is None when there was nothing to measure, or when the fault could not be shown
    to have bitten; ``detail`` then says why. ``lasting`` means that what was measured had not
    ended when the measurement did (a read that never returned): the figure is a lower bound, and
    a lower bound holds no promise.
    """

    name: str
    unit: str
    limit: float
    measured: float | None
    detail: str = ""
    lasting: bool = False

    @property
    def held(self) -> bool:
        """Was it measured, did it end, and is it within the limit?"""
        return self.measured is not None and not self.lasting and self.measured <= self.limit

    @property
    def shown(self) -> str:
        """The measured value for a person."""
        if self.measured is None:
            return "not measured"
        return f"{'> ' if self.lasting else ''}{figure(self.measured)} {self.unit}"


def figure(value: float) -> str:
    """A number as a person writes it: whole numbers whole, others with two decimals."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.2f}"


def to_json(promises: Iterable[Promise]) -> str:
    """``report.json``: a list of objects with name, unit, limit, measured (null: it was not),
    held, lasting and detail."""
    rows = [
        {
            "name": promise.name,
            "unit": promise.unit,
            "limit": promise.limit,
            "measured": None if promise.measured is None else round(promise.measured, 4),
            "held": promise.held,
            "lasting": promise.lasting,
            "detail": promise.detail,
        }
        for promise in promises
    ]
    return json.dumps(rows, indent=2) + "\n"
