"""Stations of the lab: every kind of machine gets as far as its boot script, and to its login."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.drills.lab_tools import PAIR, lab_name, leftovers, tiny_store

from ets.errors import LabError
from ets.host.deadline import Deadline, wait_for
from ets.lab.drills.material import gather
from ets.lab.lab import Lab
from ets.lab.wire import Seen

pytestmark = [pytest.mark.drill, pytest.mark.root]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    store = tmp_path_factory.mktemp("images") / "store"
    tiny_store(store)
    with Lab.up(PAIR, name=lab_name("st"), images=store) as lab:
        yield lab
    assert leftovers(lab.state.name) == []


@pytest.mark.timeout(600)
def test_a_bios_station_gets_one_address_from_both_servers_and_its_script(lab: Lab) -> None:
    with lab.dhcp_capture() as wire:
        station = lab.start_station("ws01")
        with pytest.raises(LabError, match="on already"):
            station.start()
        station.wait_console("/boot/52-54-00-77-00-01.ipxe... ok", 240)
        seen = wire.of(station.mac)
    known = lab.site.station(station.mac)
    assert known is not None
    offers = [packet for packet in seen if packet.kind == "OFFER"]
    assert {packet.address for packet in offers} == {known.address}
    servers = {server.stations for server in lab.site.servers}
    assert {packet.server for packet in offers} == servers
    assert [packet.kind for packet in seen if packet.kind in ("REQUEST", "ACK")][:2] == [
        "REQUEST",
        "ACK",
    ]
    answer = wire.first_answer(station.mac)
    assert answer is not None
    assert 0 < answer < 1
    before_off = station.traffic()
    assert before_off.received > 1000
    assert before_off.sent > 1000
    assert station.qmp.execute("query-status")["running"]
    with pytest.raises(LabError, match="no-such-command"):
        station.qmp.execute("no-such-command")
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(station.line))
    station.stop()
    assert not station.running
    taps = lab.topology.net.run(["ip", "-brief", "link", "show", "type", "tun"]).text
    assert taps == ""


@pytest.mark.timeout(600)
def test_a_station_switched_on_again_starts_afresh(lab: Lab) -> None:
    station = lab.start_station("guest", nic="e1000")
    station.wait_console("iPXE", 120)
    station.stop()
    station.start()
    assert station.powered_on
    assert b"Configuring" not in station.console.read_bytes()
    assert Lab.attach(lab.state.name).station("guest").running
    station.stop()


def firmware_classes(seen: list[Seen]) -> int:
    """How many times the machine was given an address: once per boot program."""
    return sum(packet.kind == "ACK" for packet in seen)


KINDS: list[dict[str, Any]] = [
    {"firmware": "bios", "nic": "virtio"},
    {"firmware": "bios", "nic": "e1000"},
    {"firmware": "uefi", "nic": "virtio"},
    {"firmware": "uefi", "nic": "e1000"},
    {"firmware": "uefi", "rom": True},
    {"firmware": "uefi", "http": True},
]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_every_kind_of_machine_reaches_its_login(kind: dict[str, Any], tmp_path: Path) -> None:
    site = PAIR
    if kind.get("nic") == "e1000":
        # Debian's kernel for clouds has no driver for real cards
        site = tmp_path / "site.toml"
        site.write_text(PAIR.read_text().replace("linux-image-cloud-amd64", "linux-image-amd64"))
    images = gather(site, lambda _: None).images
    with Lab.up(site, name=lab_name("ln"), images=images) as lab, lab.dhcp_capture() as wire:
        station = lab.start_station("ws02", **kind)
        station.wait_login(900)
        # PXE and HTTP boot load a boot program, which asks again; a ROM with iPXE does not
        native = kind["firmware"] == "uefi" and not kind.get("rom")
        assert firmware_classes(wire.of(station.mac)) >= (2 if native else 1)
        # the probe begins at the login
        wait_for("the probe", station.probe_lines, Deadline(60))
