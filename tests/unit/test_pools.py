"""Addresses computed from the site file: guests' slices and known stations without an address."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from ets.site.model import AddressRange, Network, Server, Site, StationDefaults
from ets.site.pools import assign_known, guest_slice


def address_range(first: int, size: int) -> AddressRange:
    base = int(IPv4Address("10.0.0.0"))
    return AddressRange(IPv4Address(base + first), IPv4Address(base + first + size - 1))


def site(servers: int, guests: AddressRange | None) -> Site:
    network = Network("stations", "eth1", IPv4Network("10.0.0.0/8"), guests=guests)
    return Site(
        name="s",
        domain="s.example",
        timezone="Etc/UTC",
        networks={"stations": network},
        servers=tuple(
            Server(f"s{index}", {"stations": IPv4Address(f"10.255.0.{index + 1}")})
            for index in range(servers)
        ),
        stations=(),
        defaults=StationDefaults(image="i"),
        images={},
    )


ranges = st.builds(address_range, st.integers(1, 2**20), st.integers(1, 5000))


@given(ranges, st.integers(1, 20))
def test_guests_slices_are_disjoint_and_cover_the_range(pool: AddressRange, count: int) -> None:
    given_site = site(count, pool)
    slices = [guest_slice(given_site, server) for server in given_site.servers]
    there = [part for part in slices if part is not None]
    assert [address for part in there for address in part] == list(pool)
    sizes = [len(part) if part else 0 for part in slices]
    assert max(sizes) - min(sizes) <= 1


def test_there_are_no_slices_without_guests() -> None:
    without_range = site(2, None)
    assert guest_slice(without_range, without_range.servers[0]) is None
    refused = replace(
        site(2, address_range(1, 10)), defaults=StationDefaults(image="i", guests=False)
    )
    assert guest_slice(refused, refused.servers[0]) is None


macs = st.sets(st.integers(0, 2**48 - 1).map(lambda n: n.to_bytes(6, "big").hex(":")), max_size=60)


@given(macs, ranges, st.data())
def test_known_stations_get_free_addresses_of_the_pool(
    wanted: set[str], pool: AddressRange, data: st.DataObject
) -> None:
    taken = data.draw(st.sets(st.sampled_from(list(pool)[:200]), max_size=20))
    outside = {IPv4Address("10.254.0.1")}
    got = assign_known(wanted, pool, taken | outside)
    assert set(got) <= wanted
    assert len(set(got.values())) == len(got)
    assert all(address in pool and address not in taken for address in got.values())
    assert len(got) == min(len(wanted), len(pool) - len(taken))


@given(macs, ranges, st.randoms(use_true_random=False))
def test_the_order_of_the_file_means_nothing(
    wanted: set[str], pool: AddressRange, chance: random.Random
) -> None:
    shuffled = sorted(wanted)
    chance.shuffle(shuffled)
    assert assign_known(shuffled, pool, ()) == assign_known(sorted(wanted), pool, ())


def test_a_new_station_rarely_moves_another() -> None:
    """In a pool with room to spare nearly all stations keep their address when one is added."""
    pool = address_range(256, 1000)
    before = [f"52:54:00:00:{n >> 8:02x}:{n & 255:02x}" for n in range(100)]
    held = assign_known(before, pool, ())
    after = assign_known(["52:54:00:00:ff:ff", *before], pool, ())
    assert sum(held[mac] != after[mac] for mac in before) <= 2


def test_the_assignment_is_part_of_the_format() -> None:
    """Servers of two ETS versions must give one station the same address."""
    pool = AddressRange(IPv4Address("10.77.1.1"), IPv4Address("10.77.1.250"))
    assert assign_known(["52:54:00:77:00:01", "52:54:00:77:00:02"], pool, ()) == {
        "52:54:00:77:00:01": IPv4Address("10.77.1.199"),
        "52:54:00:77:00:02": IPv4Address("10.77.1.170"),
    }


def test_a_full_pool_of_many_addresses_is_filled_quickly() -> None:
    pool = address_range(0, 4096)
    wanted = [n.to_bytes(6, "big").hex(":") for n in range(4096)]
    assert sorted(assign_known(wanted, pool, ()).values()) == list(pool)
