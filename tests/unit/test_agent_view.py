"""Who is alive, and what that changes: the order of a list, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from ets.cluster.heartbeat import Link
from ets.cluster.placement import order
from ets.cluster.view import LOST_AFTER, View, boot_order, decide


@dataclass(frozen=True, slots=True)
class Named:
    name: str
    weight: float = 1.0


SERVERS = tuple(Named(name) for name in ("alpha", "beta", "gamma", "delta"))
names = st.sets(st.sampled_from([server.name for server in SERVERS]))
moments = st.none() | st.floats(0, 100)


def view(lan: float | None, stations: float | None, since: float = 0.0) -> View:
    heard: dict[Link, float | None] = {"lan": lan, "stations": stations}
    return View("beta", heard, since)


def test_alive_on_both() -> None:
    made = decide(view(99.9, 99.8), 100.0)
    assert (made.verdict, made.links) == ("alive", ("lan", "stations"))
    assert made.reason == "alive on lan and stations"


def test_one_network_is_enough() -> None:
    made = decide(view(90.0, 99.8), 100.0)
    assert (made.verdict, made.links) == ("alive", ("stations",))
    assert made.reason == "alive on stations; nothing on lan for 10.0 s"


def test_lost_when_nothing_comes_on_any_network() -> None:
    made = decide(view(97.0, 98.0), 100.0)
    assert made.verdict == "lost"
    assert made.reason == "lost: nothing on lan for 3.0 s, nothing on stations for 2.0 s"
    assert decide(view(None, None), 100.0).reason == (
        "lost: nothing on lan ever, nothing on stations ever"
    )


def test_nobody_is_lost_before_anybody_listened() -> None:
    made = decide(view(None, None, since=99.0), 100.0)
    assert made.verdict == "unknown"
    assert made.reason == "not heard yet, listening for 1.0 s"


@given(lan=moments, stations=moments, since=st.floats(0, 100), now=st.floats(0, 200))
def test_the_verdict_follows_the_latest_sign_of_life(
    lan: float | None, stations: float | None, since: float, now: float
) -> None:
    made = decide(view(lan, stations, since), now)
    ages = [max(0.0, now - at) for at in (lan, stations) if at is not None]
    if ages and min(ages) < LOST_AFTER:
        assert made.verdict == "alive"
    else:
        assert made.verdict == ("unknown" if now - since < LOST_AFTER else "lost")
    assert made.reason
    assert (made.age is None) == (not ages)


@given(n=st.integers(0, 1000), drained=names, lost=names)
def test_no_verdict_takes_a_server_off_the_list(n: int, drained: set[str], lost: set[str]) -> None:
    mac = f"52:54:00:00:{n >> 8:02x}:{n & 255:02x}"
    told = boot_order(mac, SERVERS, drained=drained, lost=lost)
    serving = {server.name for server in SERVERS} - drained or {s.name for s in SERVERS}
    assert {server.name for server in told} == serving
    alive = [server for server in told if server.name not in lost]
    gone = [server for server in told if server.name in lost]
    assert list(told) == alive + gone
    placed = [server for server in order(mac, SERVERS) if server.name in serving]
    assert alive == [server for server in placed if server.name not in lost]
    assert gone == [server for server in placed if server.name in lost]
