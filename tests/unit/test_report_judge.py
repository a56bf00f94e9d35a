"""Promises from reads: what counts, and that without evidence nothing is held."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ets.report import judge
from ets.report.reads import Read, Window
from ets.report.timeline import Fault, Row, Served

KILL = judge.Watch(Fault("kill", "alpha", Window(10, 18)), Window(10, 22))


def station(name: str = "ws01", *extra: Read, server: str = "alpha", until: float = 30) -> Row:
    reads = [Read(i / 10, 0.005, i, "good") for i in range(round(until * 10))]
    clear = [r for r in reads if not any(e.start <= r.end and r.start <= e.end for e in extra)]
    return Row(
        name,
        order=("alpha", "beta"),
        reads=tuple(sorted([*clear, *extra], key=lambda r: r.start)),
        served=(Served(server, Window(0, 10)), Served("beta", Window(10, 30))),
    )


def test_a_stall_is_the_longest_read_of_any_station() -> None:
    rows = [station("ws01", Read(9.95, 0.21, 1, "good")), station("ws02")]
    promise = judge.stall("kill", 0.3, rows, KILL, pause=0.15)
    assert promise.held
    assert promise.measured == pytest.approx(0.21)
    assert "ws01" in promise.detail
    assert "under way at that moment: 2" in promise.detail


def test_a_kill_that_met_no_read_shows_nothing() -> None:
    rows = [station()]
    assert judge.stall("kill", 0.3, rows, KILL, pause=0.15, struck=10.05).measured is None
    assert judge.stall("kill", 0.3, rows, KILL, pause=0.15, struck=10.003).held


def test_a_read_that_never_returned_breaks_the_promise() -> None:
    promise = judge.stall("kill", 0.3, [station(until=10)], KILL, pause=0.15)
    assert not promise.held
    assert promise.lasting
    assert promise.measured == pytest.approx(22 - 9.905 - 0.15)


def test_a_server_that_nobody_used_shows_nothing() -> None:
    promise = judge.stall("kill", 0.3, [station(server="beta")], KILL, pause=0.15)
    assert promise.measured is None
    assert not promise.held


def test_a_silent_station_shows_nothing() -> None:
    silent = replace(station("ws02"), reads=())
    rows = [station(), silent]
    for promise in (
        judge.stall("x", 0.3, rows, KILL, pause=0.15),
        judge.io_errors("x", rows, KILL),
        judge.wrong_blocks("x", rows, KILL, lambda _: "good", noticed=3),
        judge.slow_reads("x", 0.5, rows, KILL),
    ):
        assert promise.measured is None
        assert "ws02" in promise.detail


def test_slow_reads_are_judged_by_their_99th_percentile() -> None:
    slow = [Read(10.5 + i * 0.2, 0.16, 900 + i, "good") for i in range(10)]
    assert judge.slow_reads("slow", 0.5, [station("ws01", *slow)], KILL).held
    slower = [Read(10.5 + i * 1.6, 1.5, 900 + i, "good") for i in range(4)]
    assert not judge.slow_reads("slow", 0.5, [station("ws01", *slower)], KILL).held


def test_wrong_bytes_are_counted_against_the_image() -> None:
    rows = [station("ws01", Read(12, 0.01, 5, "bad"))]
    promise = judge.wrong_blocks("corrupt", rows, KILL, lambda _: "good", noticed=4)
    assert promise.measured == 1
    assert not promise.held
    assert judge.wrong_blocks("corrupt", [station()], KILL, lambda _: "good", noticed=4).held


def test_corruption_that_reached_nobody_shows_nothing() -> None:
    promise = judge.wrong_blocks("corrupt", [station()], KILL, lambda _: "good", noticed=0)
    assert promise.measured is None


def test_errors_are_counted_in_the_window_only() -> None:
    before, within = Read(5, 0.1, 1, "", error=5), Read(11, 0.1, 1, "", error=5)
    assert judge.io_errors("x", [station("ws01", before)], KILL).measured == 0
    assert judge.io_errors("x", [station("ws01", before, within)], KILL).measured == 1


def test_reading_again_is_the_slowest_station_after_the_return() -> None:
    rows = [station("ws01", Read(5, 15.4, 1, "good")), station("ws02", Read(5.1, 15.2, 2, "good"))]
    promise = judge.reading_again("away", 2, rows, returned=20.0, least_stall=10)
    assert promise.measured == pytest.approx(0.4)
    assert promise.held


def test_a_station_that_read_on_shows_that_not_all_were_away() -> None:
    promise = judge.reading_again("away", 2, [station()], returned=20.0, least_stall=10)
    assert promise.measured is None


def test_a_station_that_never_read_again_holds_nothing() -> None:
    promise = judge.reading_again("away", 2, [station(until=5)], returned=20.0, least_stall=10)
    assert promise.measured is None
    assert "did not read again" in promise.detail


def test_the_dhcp_answer_is_compared_with_a_quiet_day() -> None:
    assert judge.dhcp_delay("dhcp", 1, [0.1, 0.2], 0.9).measured == pytest.approx(0.7)
    assert judge.dhcp_delay("dhcp", 1, [0.5], 0.1).measured == 0
    assert judge.dhcp_delay("dhcp", 1, [0.5], None).measured is None
    assert judge.dhcp_delay("dhcp", 1, [], 0.5).measured is None
