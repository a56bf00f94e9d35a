"""Rows of measurements: medians, goals, and that a missing figure holds nothing."""

from __future__ import annotations

import json

import pytest

import _bench as bench


def test_a_row_has_medians_a_ratio_and_a_spread() -> None:
    row = bench.row("stall", [0.2, 0.1, 0.4], [4.0, 2.0], "s", bench.Goal(0.3))
    assert (row.ours, row.peer, row.spread) == (0.2, 3.0, (0.1, 0.4))
    assert row.ratio == pytest.approx(0.2 / 3)
    assert row.held


@pytest.mark.parametrize(
    ("goal", "held"),
    [
        (bench.Goal(2), True),
        (bench.Goal(1.9), False),
        (bench.Goal(0.5, of="ratio"), True),
        (bench.Goal(0.4, of="ratio"), False),
        (bench.Goal(3, sense="at least"), False),
        (None, True),
    ],
)
def test_goals(goal: bench.Goal | None, held: bool) -> None:
    assert bench.row("x", [2.0], [4.0], "s", goal).held is held


def test_a_missing_figure_holds_no_goal() -> None:
    assert not bench.row("x", [], [1.0], "s", bench.Goal(9)).held
    assert not bench.row("x", [1.0], [], "s", bench.Goal(9, of="ratio")).held


def test_the_json_has_every_column() -> None:
    (row,) = json.loads(
        bench.as_json([bench.row("x", [2.0], [4.0], "s", bench.Goal(0.5, "ratio"))])
    )
    assert row == {
        "what": "x", "ours": 2.0, "peer": 4.0, "unit": "s", "ratio": 0.5,
        "goal": "≤ 0.50 × peer", "held": True, "spread": [2.0, 2.0], "note": "",
    }  # fmt: skip
