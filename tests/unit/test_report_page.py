"""Promises, the picture and the page: nothing unmeasured is held, nothing from outside is needed,
and nothing that is put in can break the page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from ets.report.page import render_page
from ets.report.promises import Promise, to_json
from ets.report.reads import Read, Window
from ets.report.svg import render
from ets.report.timeline import Fault, Moment, Row, Served, Timeline, served_windows

FAULTS = (Fault("kill", "alpha", Window(2, 8)), Fault("away", "alpha+beta", Window(10, 30)))


def timeline(name: str = "ws01", reads: tuple[Read, ...] = ()) -> Timeline:
    row = Row(
        name,
        "BIOS, virtio",
        ("alpha", "beta"),
        reads,
        (Served("alpha", Window(0, 2)), Served("beta", Window(2, 30))),
        (Moment("login", 1.0),),
    )
    return Timeline(Window(0, 40), ("alpha", "beta"), (row,), FAULTS, (("servers", "2"),))


def test_at_the_limit_is_held_and_above_is_not() -> None:
    assert Promise("p", "s", 0.3, 0.3).held
    assert not Promise("p", "s", 0.3, 0.31).held


def test_what_was_not_measured_is_not_held() -> None:
    promise = Promise("p", "s", 1, None, "no station spoke")
    assert not promise.held
    assert promise.shown == "not measured"


def test_what_had_not_ended_is_not_held() -> None:
    assert not Promise("p", "s", 5, 0.2, lasting=True).held


def test_report_json_is_a_list_of_promises() -> None:
    rows = json.loads(to_json([Promise("p", "s", 1, 0.25), Promise("q", "errors", 0, None, "x")]))
    assert [(r["name"], r["unit"], r["limit"], r["measured"], r["held"]) for r in rows] == [
        ("p", "s", 1, 0.25, True),
        ("q", "errors", 0, None, False),
    ]


def test_the_picture_is_well_formed_and_shows_stalls_errors_and_faults() -> None:
    reads = (Read(1, 0.004, 1, "a"), Read(2.1, 0.25, 2, "a"), Read(5, 0.1, 3, "", error=5))
    picture = ET.fromstring(render(timeline(reads=reads)))  # noqa: S314 - our own text
    classes = [element.get("class") for element in picture.iter()]
    assert classes.count("fault") == 2
    assert classes.count("stall") == 1
    assert classes.count("error") == 1
    assert "0.25 s" in [element.text for element in picture.iter()]


def test_reads_outside_the_shown_part_are_not_drawn() -> None:
    picture = ET.fromstring(render(timeline(reads=(Read(90, 1, 1, "a"),))))  # noqa: S314
    assert not [element for element in picture.iter() if element.get("class") == "stall"]


class Page(HTMLParser):
    """Collects tags and what they refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for key, value in attrs if key in {"src", "href"}]


def test_the_page_needs_nothing_from_outside() -> None:
    page = Page()
    text = render_page("demo", [Promise("p", "s", 1, 0.5)], timeline())
    page.feed(text)
    assert "svg" in page.tags
    assert not page.links
    assert "script" not in page.tags
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text


@given(st.text(max_size=30))
def test_no_name_breaks_out_of_the_page(name: str) -> None:
    page = Page()
    page.feed(
        render_page("t", [Promise(f"<script>{name}", "s", 1, 1)], timeline(f"<script>{name}"))
    )
    assert "script" not in page.tags


def test_the_page_says_how_many_promises_were_held() -> None:
    text = render_page("t", [Promise("p", "s", 1, 0.5), Promise("q", "s", 1, 2)], timeline())
    assert "1 of 2 promises were held" in text


def test_samples_of_bytes_become_windows_of_the_serving_server() -> None:
    samples = [
        (0.0, {"alpha": 0, "beta": 0}),
        (1.0, {"alpha": 50, "beta": 2}),
        (2.0, {"alpha": 90, "beta": 2}),
        (3.0, {"alpha": 90, "beta": 2}),
        (4.0, {"alpha": 90, "beta": 40}),
    ]
    assert served_windows(samples) == (
        Served("alpha", Window(0.0, 2.0)),
        Served("beta", Window(3.0, 4.0)),
    )


def test_a_drill_that_broke_off_before_any_fault_has_a_picture() -> None:
    broken = Timeline(Window(0, 0), ("alpha",), (Row("ws01"),))
    assert ET.fromstring(render(broken)).tag == "svg"  # noqa: S314
