"""200 DHCP clients, three real servers with their agents: no address twice and nobody unserved,
on a quiet day, while servers are cut off from each other, and while one is killed."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from ets.lab.dhcpload import Load
from ets.lab.drills import dhcp
from ets.lab.drills.sites import campus, guest_macs, known_macs
from ets.lab.lab import Lab
from ets.site import load as site_load

pytestmark = [pytest.mark.drill, pytest.mark.root, pytest.mark.timeout(280)]

KNOWN, GUESTS = 120, 80
#: a client asks again after 1, 2 and 4 s: a killed server may cost it three tries
WORST = 9.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    site = campus(tmp_path_factory.mktemp("site") / "site.toml", servers=3, known=KNOWN)
    with Lab.up(site, name="tdhcp") as up:
        yield up


@pytest.fixture
def load(lab: Lab) -> Iterator[Load]:
    dhcp.settle(lab)
    with dhcp.clients(lab, known_macs(KNOWN) + guest_macs(GUESTS)) as clients:
        yield clients


def held(load: Load) -> dict[str, IPv4Address]:
    return {client.mac.hex(":"): client.address for client in load.clients.values()}


def test_a_quiet_day(lab: Lab, load: Load) -> None:
    outcome = dhcp.quiet(load)
    assert outcome.duplicates == ()
    assert outcome.unserved == ()
    site = site_load.read(Path(lab.state.site))
    addresses = held(load)
    assert {s.mac: s.address for s in site.stations} == {
        mac: addresses[mac] for mac in known_macs(KNOWN)
    }
    guests = site.stations_net.guests
    assert guests is not None
    assert all(addresses[mac] in guests for mac in guest_macs(GUESTS))
    assert len(outcome.shares) == 3, "every server answers"


def test_servers_cut_off_from_each_other(lab: Lab, load: Load) -> None:
    outcome = dhcp.parted(lab, load, "alpha")
    assert outcome.duplicates == ()
    assert outcome.unserved == ()
    assert outcome.worst < WORST


def test_a_server_is_killed(lab: Lab, load: Load) -> None:
    outcome = dhcp.killed(lab, load, "alpha")
    assert outcome.duplicates == ()
    assert outcome.unserved == ()
    assert outcome.worst < WORST
    assert {wait.kind for wait in outcome.waits} == {"boot", "rebind"}
