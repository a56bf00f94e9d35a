"""A server as a machine with blank disks: what is done to it from outside, before there is
anything on its disk. What it becomes is in ``test_clone_join.py``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.drills.lab_tools import PAIR, lab_name, leftovers, tiny_store

from ets.errors import DeadlinePassed, HostError, InputError, LabError
from ets.lab.lab import Lab
from ets.lab.machine import GIB

pytestmark = [pytest.mark.drill, pytest.mark.root]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    store = tmp_path_factory.mktemp("images") / "store"
    tiny_store(store)
    with Lab.up(PAIR, name=lab_name("ma"), images=store, blank=["beta"]) as lab:
        yield lab
    assert leftovers(lab.state.name) == []


@pytest.fixture(autouse=True)
def _off(lab: Lab) -> Iterator[None]:
    yield
    lab.machine("beta").power_off()


def test_the_other_server_has_what_a_disk_needs_and_runs_as_ever(lab: Lab) -> None:
    alpha = lab.server("alpha").host
    assert alpha.run(["ets", "verify"], check=False).status == 0
    assert alpha.names("/boot")
    shown = json.loads(alpha.run(["ip", "-json", "address", "show", "eth1"]).stdout)
    assert [a["local"] for a in shown[0]["addr_info"]] == ["10.77.0.11"]
    assert alpha.run(["systemctl", "is-active", "systemd-networkd"]).text == "active\n"
    assert alpha.run(["systemctl", "is-system-running"], check=False).text == "running\n"


def test_a_pulled_cable_leaves_a_server_its_address(lab: Lab) -> None:
    lab.inject("cable", "alpha")
    assert "10.77.0.11" in lab.server("alpha").host.run(["ip", "address", "show", "eth1"]).text
    lab.heal("alpha")


def test_a_container_is_no_machine(lab: Lab) -> None:
    with pytest.raises(InputError, match="container"):
        lab.machine("alpha")
    with pytest.raises(InputError, match="gamma"), Lab.up(PAIR, name="tnone", blank=["gamma"]):
        pass


def test_its_disks_are_blank_take_no_room_and_stay(lab: Lab) -> None:
    beta = lab.machine("beta")
    assert beta.status() == "down"
    beta.start(disks=(4 * GIB, GIB))
    assert [disk.stat().st_size for disk in beta.disks] == [4 * GIB, GIB]
    assert sum(disk.stat().st_blocks for disk in beta.disks) == 0
    with pytest.raises(LabError, match="on already"):
        beta.start()
    beta.power_off()
    with beta.disks[0].open("r+b") as disk:
        disk.write(b"data")
    Lab.attach(lab.state.name).machine("beta").start()
    assert beta.status() == "up", "another process has switched it on"
    assert len(beta.options.disks) == 2
    with beta.disks[0].open("rb") as same:
        assert same.read(4) == b"data"


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_it_boots_from_the_network_once_and_then_from_its_disk(lab: Lab, firmware: str) -> None:
    beta = lab.machine("beta")
    beta.start(boot="once", firmware=firmware, disks=(GIB,))
    network = "iPXE initialising" if firmware == "bios" else "Start PXE"
    disk = "Booting from Hard Disk" if firmware == "bios" else "Misc Device"
    beta.machine.wait_console(network, 60)
    before = beta.machine.console.read_text(errors="replace")
    assert disk not in before
    beta.machine.qmp.execute("system_reset")
    beta.machine.wait_console(disk, 60)
    # A blank disk boots nothing: after it comes the network.
    after = beta.machine.console.read_text(errors="replace").removeprefix(before)
    assert network not in after.partition(disk)[0]


def test_a_hang_and_a_cable(lab: Lab) -> None:
    beta = lab.machine("beta")
    beta.start(boot="net", firmware="bios", disks=(GIB,))
    lab.inject("hang", "beta")
    assert beta.status() == "frozen"
    lab.heal("beta")
    assert beta.status() == "up"
    for network in ("stations", "compute"):
        lab.inject("cable", "beta", network=network)
        lab.heal("beta")
    lab.inject("power-off", "beta")
    assert beta.status() == "down"
    taps = lab.topology.net.run(["ip", "-brief", "link", "show", "type", "tun"]).text
    assert taps == ""


def test_what_has_no_system_cannot_be_asked(lab: Lab) -> None:
    beta = lab.machine("beta")
    with pytest.raises(HostError, match="not running"):
        beta.host.run(["true"])
    beta.start()
    with pytest.raises(DeadlinePassed, match="server beta to boot"):
        beta.wait_booted(1)
    assert beta.sockets("-Hltn") == []


def test_parts_that_nobody_makes_are_refused(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="firmware"):
        lab.machine("beta").start(firmware="coreboot")
    with pytest.raises(InputError, match="network card"):
        lab.machine("beta").start(nic="ne2000")
