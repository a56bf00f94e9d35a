"""Prometheus metrics, made from the status when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class _Status(Collector):
    def __init__(self, status: dict[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        yield from _servers(self._status)
        yield from _stations(self._status)
        yield from _images(self._status)
        yield _gauge("alarms", "Alarms that stand now", len(self._status["alarms"]))
        yield _gauge("dhcp_ready", "Kea has its configuration", self._status["dhcp"]["ready"])
        yield _gauge("guests", "Guests with an address", self._status["dhcp"]["guests"])
        yield _gauge("uptime_seconds", "Since the agent started", self._status["uptime"])
        for kind, counts in sorted(self._status["counters"].items()):
            family = CounterMetricFamily(
                f"ets_{kind}", f"{kind} by what became of them", None, ["result"]
            )
            for result, count in sorted(counts.items()):
                family.add_metric([result], count)
            yield family


def render(status: dict[str, Any]) -> bytes:
    """The metrics of a status document, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Status(status))
    return generate_latest(registry)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"ets_{name}", text, value=float(value))


def _servers(status: dict[str, Any]) -> Iterator[Metric]:
    alive = GaugeMetricFamily("ets_server_alive", "Heard lately", labels=["server"])
    age = GaugeMetricFamily(
        "ets_heartbeat_age_seconds", "Since last heard", labels=["server", "link"]
    )
    skew = GaugeMetricFamily("ets_clock_skew_seconds", "Its clock less ours", labels=["server"])
    well = GaugeMetricFamily("ets_service_well", "Answers its probes", labels=["server", "service"])
    for row in status["servers"]:
        alive.add_metric([row["name"]], float(row["verdict"] == "alive"))
        if row["skew"] is not None:
            skew.add_metric([row["name"]], row["skew"])
        for link, seconds in row["links"].items():
            if seconds is not None:
                age.add_metric([row["name"], link], seconds)
        if row["self"]:
            for service in row["services"]:
                well.add_metric([row["name"], service["name"]], float(service["well"]))
    yield from (alive, age, skew, well)


def _stations(status: dict[str, Any]) -> Iterator[Metric]:
    computed = GaugeMetricFamily(
        "ets_share_computed", "Stations whose first it is", labels=["server"]
    )
    wanted = GaugeMetricFamily("ets_share_wanted", "By weight", labels=["server"])
    connected = GaugeMetricFamily("ets_stations_connected", "By report", labels=["server"])
    for row in status["shares"]:
        computed.add_metric([row["server"]], row["computed"])
        wanted.add_metric([row["server"]], row["wanted"])
        connected.add_metric([row["server"]], row["connected"])
    reports = [row["report"] for row in status["stations"] if row["report"]]
    stall = max((report["longest_stall_us"] for report in reports), default=0)
    yield from (computed, wanted, connected)
    yield _gauge("stations_reporting", "Stations that reported lately", len(reports))
    yield _gauge("stations_longest_stall_seconds", "Of all that report", stall / 1e6)
    yield _gauge("stations_wrong_blocks", "Of all that report", sum(r["wrong"] for r in reports))


def _images(status: dict[str, Any]) -> Iterator[Metric]:
    here = GaugeMetricFamily(
        "ets_image_served", "Published, whole and served here", labels=["image"]
    )
    equal = GaugeMetricFamily("ets_image_equal", "Same on all live servers", labels=["image"])
    generation = GaugeMetricFamily("ets_image_generation", "Of the published one", labels=["image"])
    for row in status["images"]:
        here.add_metric([row["name"]], float(row["here"]))
        equal.add_metric([row["name"]], float(row["equal"]))
        if row["generation"] is not None:
            generation.add_metric([row["name"]], row["generation"])
    yield from (here, equal, generation)
