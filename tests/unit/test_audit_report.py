"""Findings as an admin and a program read them."""

from __future__ import annotations

import json

from ets.audit import report
from ets.audit.finding import Finding

NAMES = ["alpha", "beta", "gamma"]
ODD = Finding(
    "file", "/etc/<b>", 40, "file /etc/<b> is missing on beta", {"alpha": "x", "beta": "missing"},
    ("and a link",), ("beta",),
)  # fmt: skip


def test_text() -> None:
    assert list(report.text([ODD], NAMES)) == [
        " 40  file /etc/<b> is missing on beta",
        "       └ and a link",
        "alpha, beta, gamma: 1 thing differs; beta is probably the odd one",
    ]
    assert list(report.text([], NAMES)) == ["alpha, beta, gamma: equal"]


def test_json() -> None:
    document = json.loads(report.plain([ODD], NAMES))
    assert document["odd"] == "beta"
    assert document["findings"][0]["consequences"] == ["and a link"]


def test_the_page_has_a_column_for_each_server_and_obeys_no_name() -> None:
    page = report.page([ODD], NAMES)
    assert all(f"<th>{name}</th>" in page for name in NAMES)
    assert "/etc/&lt;b&gt;" in page
    assert "<b>" not in page
