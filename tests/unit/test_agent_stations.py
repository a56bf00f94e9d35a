"""Stations' reports: bounded, rate-limited, only from who is whom, and never a traceback."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ets.agent import stations as module
from ets.agent.stations import Stations

MAC, ADDRESS = "52:54:00:77:00:01", "10.77.1.1"
REPORT = {
    "mac": MAC,
    "name": "ws01",
    "root": "ab" * 32,
    "digest": "cd" * 32,
    "uptime": 12.5,
    "reads": 100,
    "hedges": 2,
    "wrong": 0,
    "longest_stall_us": 160_000,
    "servers": [
        {
            "address": "10.77.0.11:10809",
            "state": "up",
            "reads": 98,
            "hedges": 2,
            "wrong": 0,
            "latency_us": 900,
        }
    ],
}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def kept(clock: Clock | None = None) -> Stations:
    return Stations({MAC: ADDRESS}.get, monotonic=clock or Clock())


def body(**changes: object) -> bytes:
    return json.dumps({**REPORT, **changes}).encode()


def test_a_report_is_kept() -> None:
    stations = kept()
    assert stations.take(body(), ADDRESS) is None
    (held,) = stations.kept().values()
    assert held.report.longest_stall_us == 160_000
    assert held.report.servers[0].state == "up"


def test_what_later_helpers_add_is_no_error() -> None:
    assert kept().take(body(colour="blue"), ADDRESS) is None


@pytest.mark.parametrize(
    ("content", "source", "why"),
    [
        (body(), "10.77.1.2", "sent from another address than the station's"),
        (body(mac="52:54:00:99:99:99"), ADDRESS, "not a station of this site"),
        (body(mac="../../etc"), ADDRESS, "not a station of this site"),
        (body(reads=-1), ADDRESS, "not a report"),
        (body(reads=2**64), ADDRESS, "not a report"),
        (body(reads="1"), ADDRESS, "not a report"),
        (body(name="<script>"), ADDRESS, "not a report"),
        (body(servers=[REPORT["servers"][0]] * 17), ADDRESS, "not a report"),  # type: ignore[index]
        (b"", ADDRESS, "not a report"),
        (b"[" * 8000, ADDRESS, "not a report"),
        (b" " * 9000, ADDRESS, "too long"),
    ],
)
def test_what_is_not_kept(content: bytes, source: str, why: str) -> None:
    stations = kept()
    assert stations.take(content, source) == why
    assert stations.kept() == {}
    assert stations.counts[why] == 1


@given(content=st.binary(max_size=9000), source=st.text(max_size=50))
def test_any_bytes_are_answered(content: bytes, source: str) -> None:
    assert kept().take(content, source) is not None


def test_an_old_report_is_forgotten() -> None:
    clock = Clock()
    stations = kept(clock)
    stations.take(body(), ADDRESS)
    clock.now += module.KEEP + 1
    assert stations.kept() == {}


def test_a_source_is_held_to_its_rate() -> None:
    clock = Clock()
    stations = kept(clock)
    allowed = 0
    for _ in range(1000):
        allowed += stations.allow(ADDRESS)
        clock.now += 0.01
    assert 10 <= allowed <= 16  # ten seconds at one a second, and the burst
    assert stations.allow("10.77.1.9")


def test_everybody_together_is_held_to_a_rate() -> None:
    stations = kept()
    allowed = sum(stations.allow(f"10.0.{n >> 8}.{n & 255}") for n in range(5000))
    assert allowed == module.BURST_ALL


def test_neither_sources_nor_stations_grow_without_end() -> None:
    stations = Stations(lambda _: ADDRESS, monotonic=Clock())
    for number in range(20_000):
        stations.allow(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        mac = f"52:54:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
        assert stations.take(body(mac=mac), ADDRESS) is None
    assert len(stations._sources) == module.MAX_SOURCES
    assert len(stations.kept()) == module.MAX_STATIONS
