"""Probe records become reads, and reads become figures: the rules that a promise stands on."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ets.report.reads import (
    Read,
    Window,
    clock_offset,
    errors,
    first_after,
    in_flight,
    longest_stall,
    outage,
    overlapping,
    parse,
    percentile,
    shifted,
    wrong,
)


def steady(start: float, end: float, took: float = 0.005, every: float = 0.1) -> list[Read]:
    count = round((end - start) / every)
    return [Read(start + i * every, took, i, "a") for i in range(count)]


def test_a_record_becomes_a_read() -> None:
    line = json.dumps({"t": 10.5, "wall": 1.0, "block": 7, "us": 500_000, "sum": "ab", "err": 0})
    assert parse(line) == Read(10.5, 0.5, 7, "ab", 0)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_read_or_nothing(line: bytes) -> None:
    assert parse(line) is None or isinstance(parse(line), Read)


@pytest.mark.parametrize(
    "line",
    ['{"t":1,"us":NaN,"block":1,"sum":"","err":0}', '{"t":1', "[]", '{"t":null}', "7", "{}"],
)
def test_a_cut_or_odd_record_is_nothing(line: str) -> None:
    assert parse(line) is None


def test_the_quickest_record_gives_the_clock_offset() -> None:
    assert clock_offset([(105.0, 4.0), (106.2, 6.0), (109.0, 7.0)]) == pytest.approx(100.2)
    assert shifted(Read(1.0, 0.1, 3, "x"), 100.0) == Read(101.0, 0.1, 3, "x")


def test_the_longest_read_that_was_out_in_the_window_is_the_stall() -> None:
    reads = [*steady(0, 5), Read(5.0, 0.8, 99, "a"), *steady(5.9, 10)]
    stall = longest_stall(reads, Window(5.5, 8), pause=0.2)
    assert stall is not None
    assert (stall.seconds, stall.at, stall.lasting) == (0.8, 5.0, False)


def test_a_slow_read_outside_the_window_does_not_count() -> None:
    reads = [Read(0.0, 3.0, 1, "a"), *steady(3.1, 10)]
    stall = longest_stall(reads, Window(5, 8), pause=0.2)
    assert stall is not None
    assert stall.seconds == pytest.approx(0.005)


def test_a_read_that_never_came_back_is_a_lasting_stall() -> None:
    stall = longest_stall(steady(0, 5), Window(5, 12), pause=0.2)
    assert stall is not None
    assert stall.lasting
    assert stall.seconds == pytest.approx(12 - 4.905 - 0.2)


def test_silence_in_the_middle_is_a_stall_even_without_a_slow_read() -> None:
    reads = [*steady(0, 5), *steady(9, 12)]
    stall = longest_stall(reads, Window(5, 10), pause=0.2)
    assert stall is not None
    assert not stall.lasting
    assert stall.seconds == pytest.approx(9 - 4.905 - 0.2)


def test_a_probe_that_never_spoke_gives_no_figure() -> None:
    assert longest_stall([], Window(0, 5), pause=0.2) is None
    assert longest_stall([Read(9, 1, 1, "a")], Window(0, 5), pause=0.2) is None


@given(
    st.lists(st.tuples(st.floats(0, 3), st.floats(0.001, 3)), min_size=1, max_size=20),
    st.floats(0, 10),
    st.floats(0, 10),
)
def test_no_read_that_overlaps_the_window_is_longer_than_its_stall(
    steps: list[tuple[float, float]], a: float, b: float
) -> None:
    reads, now = [], 0.0
    for pause, took in steps:
        reads.append(Read(now + pause, took, 1, "a"))
        now += pause + took
    window = Window(min(a, b), max(a, b))
    stall = longest_stall(reads, window, pause=0.1)
    for read in overlapping(reads, window):
        assert stall is not None
        assert stall.seconds >= read.took


def test_percentile_is_the_nearest_rank() -> None:
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([5.0], 0.99) == 5.0
    assert percentile([], 0.99) is None
    assert percentile([1, 2], 0.5) == 1


def test_errors_wrong_blocks_and_reads_in_flight_are_counted() -> None:
    reads = [
        Read(0, 1, 1, "good1"),
        Read(1, 1, 2, "bad"),
        Read(2, 1, 3, "", error=5),
        Read(2.5, 1, 4, "good4"),
    ]
    assert errors(reads) == 1
    assert wrong(reads, lambda block: f"good{block}") == 1
    assert in_flight(reads, 2.6) == 2


def test_the_first_good_read_after_a_moment() -> None:
    reads = [Read(0, 21.0, 1, "a"), Read(21.1, 0.1, 2, "a")]
    assert first_after(reads, 20.5) == pytest.approx(0.5)
    assert first_after([Read(20, 1, 1, "", error=5)], 20.5) is None
    assert first_after(reads, 30) is None


def test_failed_reads_are_no_data() -> None:
    failing = [Read(5 + i / 10, 0.001, i, "", error=5) for i in range(70)]
    reads = [*steady(0, 5), *failing, *steady(12, 20)]
    assert outage(reads, Window(5, 15), pace=0.1) == pytest.approx(12.005 - 4.905 - 0.1)
    assert outage(steady(0, 20), Window(5, 15), pace=0.1) == pytest.approx(0, abs=1e-6)


def test_a_reader_that_never_recovers_is_without_data_until_the_end() -> None:
    assert outage(steady(0, 5), Window(5, 15), pace=0.1) == pytest.approx(15 - 4.905 - 0.1)
    assert outage([], Window(5, 15), pace=0.1) == pytest.approx(9.9)
