"""Kea's configuration: no address twice, whatever was learned."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ets.services._kea import written
from ets.services.dhcp import Learned, desired, kea_config
from ets.site.load import read
from ets.site.model import Server, Site
from ets.site.pools import guest_slice

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SITES = [read(path) for path in sorted(EXAMPLES.glob("*.toml"))]
PAIR = read(EXAMPLES / "pair.toml")
ALPHA, BETA = PAIR.servers
GUESTS = PAIR.stations_net.guests
#: servers that may boot from the network to become one have an address there: their own
OWN = [(server.mac, str(server.stations)) for server in PAIR.servers if server.mac]
MACS = st.integers(0, 40).map(lambda n: f"52:54:00:77:00:{n:02x}")
ADDRESSES = st.one_of(
    st.integers(int(IPv4Address("10.77.2.1")), int(IPv4Address("10.77.2.40"))),
    st.integers(int(IPv4Address("10.77.0.0")), int(IPv4Address("10.77.4.10"))),
).map(IPv4Address)
LEARNED = st.lists(
    st.builds(Learned, mac=MACS, address=ADDRESSES, hostname=st.just("")), max_size=60
)


def dhcp4(site: Site, server: Server, **options: Any) -> dict[str, Any]:
    """What is inside ``Dhcp4``."""
    config: dict[str, Any] = kea_config(site, server, **options)
    (inner,) = config.values()
    found: dict[str, Any] = inner
    return found


def reservations(config: dict[str, Any]) -> list[tuple[str, str]]:
    """(MAC, address) of each, in order."""
    (subnet,) = config["subnet4"]
    return [(row["hw-address"], row["ip-address"]) for row in subnet["reservations"]]


def dynamic(config: dict[str, Any]) -> set[IPv4Address]:
    """Every address that a server may lease to anybody."""
    (subnet,) = config["subnet4"]
    found: set[IPv4Address] = set()
    for pool in subnet["pools"]:
        first, last = map(IPv4Address, pool["pool"].split(" - "))
        found.update(IPv4Address(number) for number in range(int(first), int(last) + 1))
    return found


def test_reservations_are_the_same_on_all_servers_and_lie_in_no_pool() -> None:
    for site in SITES:
        configs = [dhcp4(site, server) for server in site.servers]
        for config in configs:
            stations = [(s.mac, str(s.address)) for s in site.stations]
            servers = [(s.mac, str(s.stations)) for s in site.servers if s.mac]
            assert reservations(config) == stations + servers
            reserved = {IPv4Address(address) for _, address in reservations(config)}
            assert not any(reserved & dynamic(other) for other in configs)


def test_dynamic_pools_are_disjoint_and_together_the_guests_range() -> None:
    for site in SITES:
        guests = site.stations_net.guests if site.defaults.guests else ()
        pools = [dynamic(dhcp4(site, server)) for server in site.servers]
        assert sum(map(len, pools)) == len(set().union(*pools)) == len(guests or ())


@given(learned=LEARNED)
def test_no_mac_and_no_address_twice_whatever_was_learned(learned: list[Learned]) -> None:
    assert GUESTS is not None
    rows = reservations(dhcp4(PAIR, ALPHA, learned=learned))
    known = len(PAIR.stations) + len(OWN)
    assert rows[:known] == reservations(dhcp4(PAIR, ALPHA))
    assert len({mac for mac, _ in rows}) == len({address for _, address in rows}) == len(rows)
    assert all(IPv4Address(address) in GUESTS for _, address in rows[known:])


@given(learned=LEARNED)
def test_servers_that_learned_the_same_reserve_the_same(learned: list[Learned]) -> None:
    assert reservations(dhcp4(PAIR, ALPHA, learned=learned)) == reservations(
        dhcp4(PAIR, BETA, learned=learned)
    )


@given(learned=LEARNED)
def test_every_guest_that_contradicts_nobody_is_reserved(learned: list[Learned]) -> None:
    assert GUESTS is not None
    rows = reservations(dhcp4(PAIR, ALPHA, learned=learned))
    for guest in learned:
        if guest.address not in GUESTS or PAIR.station(guest.mac):
            assert (guest.mac, str(guest.address)) not in rows
        else:
            assert any(guest.mac == mac or str(guest.address) == a for mac, a in rows)


def test_a_site_without_guests_leases_to_nobody_and_reserves_for_no_guest() -> None:
    net = replace(PAIR.stations_net, guests=None)
    site = replace(
        PAIR,
        defaults=replace(PAIR.defaults, guests=False),
        networks={**PAIR.networks, "stations": net},
    )
    config = dhcp4(site, ALPHA, learned=[Learned("02:00:00:00:00:01", IPv4Address("10.77.2.9"))])
    assert dynamic(config) == set()
    assert len(reservations(config)) == len(site.stations) + len(OWN)
    assert config["client-classes"][-1]["name"] == "DROP"


def test_drained_and_closed_differ_from_serving_in_one_thing_each() -> None:
    serving = dhcp4(PAIR, ALPHA)
    drained = dhcp4(PAIR, ALPHA, serving=False)
    assert [key for key in serving if serving[key] != drained[key]] == ["interfaces-config"]
    assert drained["interfaces-config"]["interfaces"] == []
    closed = dhcp4(PAIR, ALPHA, newcomers=False)
    assert [key for key in serving if serving[key] != closed[key]] == ["client-classes"]
    assert [c["name"] for c in closed["client-classes"]][:-1] == [
        c["name"] for c in serving["client-classes"]
    ]


def test_stations_renew_long_before_the_lease_ends() -> None:
    config = dhcp4(PAIR, ALPHA)
    assert 0 < config["renew-timer"] < config["rebind-timer"] <= config["valid-lifetime"] / 2


def test_the_file_takes_no_newcomers_until_the_agent_has_spoken() -> None:
    (file,) = (
        file
        for file in desired(PAIR, ALPHA).files
        if file.path.endswith(".conf") and "kea/" in file.path
    )
    assert json.loads(file.content) == kea_config(PAIR, ALPHA, newcomers=False)


def test_what_is_empty_is_not_said() -> None:
    """Kea refuses an option without data."""
    site = replace(PAIR, dns=())
    (subnet,) = dhcp4(site, ALPHA)["subnet4"]
    names = [row["name"] for row in subnet["option-data"]]
    assert names == ["domain-name", "ntp-servers"]
    assert all(row["data"] for row in subnet["option-data"])
    gateway = replace(PAIR.stations_net, gateway=IPv4Address("10.77.0.1"))
    routed = replace(PAIR, networks={**PAIR.networks, "stations": gateway})
    (subnet,) = dhcp4(routed, ALPHA)["subnet4"]
    assert subnet["option-data"][0] == {"name": "routers", "data": "10.77.0.1"}


def test_boot_files_fit_the_header() -> None:
    """128 bytes with the closing zero (RFC 2131, figure 1); 64 for the server's name."""
    for site in SITES:
        for server in site.servers:
            config = dhcp4(site, server)
            for entry in config["client-classes"]:
                assert len(entry.get("boot-file-name", "")) < 128
            assert len(config["subnet4"][0]["server-hostname"]) < 64


def test_slices_of_the_file_are_those_that_every_server_computes() -> None:
    for server in PAIR.servers:
        own = guest_slice(PAIR, server)
        assert own is not None
        assert dynamic(dhcp4(PAIR, server)) == set(own)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_is_written_is_json(value: object) -> None:
    assert json.loads(written(value)) == value


def test_a_station_is_one_line() -> None:
    for site in SITES:
        text = written(kea_config(site, site.servers[0]))
        for station in site.stations:
            (line,) = (line for line in text.splitlines() if station.mac in line)
            assert str(station.address) in line
