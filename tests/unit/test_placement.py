"""The three promises of ets.cluster.placement, and that it is the same hash for ever."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ets.cluster.placement import order, score


@dataclass(frozen=True)
class Box:
    name: str
    weight: float


def macs(seed: int, count: int) -> list[str]:
    chance = random.Random(seed)
    return [
        ":".join(f"{byte:02x}" for byte in (0x52, 0x54, *chance.randbytes(4))) for _ in range(count)
    ]


def shares(stations: Sequence[str], servers: Sequence[Box]) -> Counter[str]:
    return Counter(order(mac, servers)[0].name for mac in stations)


#: below this probability a count is no accident. A run looks at fewer than 5000 counts, so a false
#: alarm has a probability below 5e-10 over all of them together.
NO_ACCIDENT = 1e-13


def tail(count: int, n: int, p: float) -> float:
    """The binomial probability of a count at least as far from n·p, on its side: exact."""
    step = 1 if count >= n * p else -1
    total, k = 0.0, count
    while 0 <= k <= n:
        ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        term = math.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))
        total += term
        if term < total * 1e-12:
            break
        k += step
    return total


def fair(count: int, n: int, weight: float, total: float) -> bool:
    """Can ``count`` of ``n`` stations be what the binomial makes of this share?"""
    return count == n if weight == total else tail(count, n, weight / total) > NO_ACCIDENT


weights = st.floats(min_value=0.25, max_value=8.0, allow_nan=False)
fleets = st.lists(weights, min_size=2, max_size=8).map(
    lambda given: [Box(f"server{index}", weight) for index, weight in enumerate(given)]
)
seeds = st.integers(0, 2**32)


@given(fleets, seeds)
def test_shares_follow_the_weights(servers: list[Box], seed: int) -> None:
    counts = shares(macs(seed, 300), servers)
    total = sum(server.weight for server in servers)
    for server in servers:
        assert fair(counts[server.name], 300, server.weight, total)


@given(fleets, seeds, st.data())
def test_a_loss_moves_only_the_stations_of_the_lost_server(
    servers: list[Box], seed: int, data: st.DataObject
) -> None:
    lost = data.draw(st.sampled_from(servers))
    left = [server for server in servers if server != lost]
    for mac in macs(seed, 300):
        before = order(mac, servers)
        after = order(mac, left)
        # the others keep their relative order, so whoever did not use the lost one stays
        assert after == tuple(server for server in before if server != lost)


@given(fleets, seeds, st.data())
def test_the_lost_servers_stations_spread_over_the_rest(
    servers: list[Box], seed: int, data: st.DataObject
) -> None:
    lost = data.draw(st.sampled_from(servers))
    left = [server for server in servers if server != lost]
    moved = [mac for mac in macs(seed, 300) if order(mac, servers)[0] == lost]
    counts = shares(moved, left)
    total = sum(server.weight for server in left)
    for server in left:
        assert fair(counts[server.name], len(moved), server.weight, total)


@given(fleets, seeds, st.randoms(use_true_random=False))
def test_a_return_restores_the_order_before(
    servers: list[Box], seed: int, chance: random.Random
) -> None:
    # the returned server stands somewhere else in the list of servers in service
    returned = list(servers)
    chance.shuffle(returned)
    for mac in macs(seed, 300):
        assert order(mac, returned) == order(mac, servers)


@given(fleets, st.integers(0, 2**48 - 1))
def test_every_station_has_every_server(servers: list[Box], number: int) -> None:
    mac = number.to_bytes(6, "big").hex(":")
    assert sorted(order(mac, servers), key=lambda s: s.name) == sorted(
        servers, key=lambda s: s.name
    )
    assert all(0 < score(mac, server) < math.inf for server in servers)
    assert order(mac.upper(), servers) == order(mac, servers)


@given(fleets, seeds, st.integers(0, 7))
def test_more_weight_never_takes_stations_away(servers: list[Box], seed: int, which: int) -> None:
    chosen = servers[which % len(servers)]
    heavier = [Box(s.name, s.weight * 1.5) if s == chosen else s for s in servers]
    for mac in macs(seed, 100):
        before, after = order(mac, servers)[0].name, order(mac, heavier)[0].name
        assert after in {before, chosen.name}


def test_a_hundred_thousand_stations() -> None:
    servers = [Box("ada", 2), Box("bohr", 2), Box("curie", 1), Box("darwin", 1), Box("euler", 0.5)]
    counts = shares(macs(2024, 100_000), servers)
    for server in servers:
        assert fair(counts[server.name], 100_000, server.weight, 6.5)
    assert sum(counts.values()) == 100_000


def test_consecutive_macs_are_spread_too() -> None:
    """A room's cards are often bought together: their MACs differ in the last byte only."""
    servers = [Box("alpha", 1), Box("beta", 1)]
    room = [f"52:54:00:77:{n >> 8:02x}:{n & 255:02x}" for n in range(1000)]
    assert fair(shares(room, servers)["alpha"], 1000, 1, 2)


def test_the_measure_itself_sees_an_unfair_hash() -> None:
    """Weights ignored, and a share that is wrong by a tenth: both are found."""
    assert fair(150, 300, 1, 2)
    assert fair(190, 300, 1, 2)
    assert not fair(150, 300, 4, 5)
    assert not fair(55_000, 100_000, 1, 2)
    assert not fair(0, 300, 1, 8)


@pytest.mark.parametrize(
    ("mac", "expected"),
    [
        ("52:54:00:77:00:01", ("beta", "alpha")),
        ("52:54:00:77:00:02", ("alpha", "beta")),
        ("52:54:00:77:00:03", ("alpha", "beta")),
        ("52:54:00:77:00:04", ("beta", "alpha")),
        ("52:54:00:77:00:05", ("alpha", "beta")),
    ],
)
def test_the_hash_is_part_of_the_format(mac: str, expected: tuple[str, ...]) -> None:
    """Servers of two ETS versions serve one site during an upgrade: the order may never change."""
    found = order(mac, [Box("alpha", 1), Box("beta", 1)])
    assert tuple(server.name for server in found) == expected
