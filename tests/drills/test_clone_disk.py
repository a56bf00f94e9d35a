"""A blank disk becomes a server's: partitioned, filled, made bootable, and started from BIOS and
from UEFI, in machines with Debian's own kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.drills.disk_rig import Firmware, Rig, blank_disk, guest_image, moments

pytestmark = [pytest.mark.root, pytest.mark.drill, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return guest_image(tmp_path_factory.mktemp("guest"))


@pytest.fixture
def rig(tmp_path: Path, image: tuple[Path, Path, Path]) -> Rig:
    return Rig(tmp_path, image)


def _is_right(server: Any, firmware: Firmware, kind: str) -> None:
    assert server["firmware"] == firmware
    assert "drill=kept" in server["cmdline"]
    assert "root=UUID=" in server["cmdline"]
    root = server["root"]["filesystems"][0]
    assert root["fstype"] == kind
    assert root["options"].startswith("rw")
    assert not server["failed"].strip(), server["failed"]
    assert server["efi"]["filesystems"][0]["fstype"] == "vfat"


def test_a_plain_disk_starts_from_bios_and_uefi(rig: Rig) -> None:
    disk = rig.disk("one")
    assert rig.install([disk])["event"] == "done"
    first = rig.boot([disk], "bios")
    _is_right(first, "bios", "ext4")
    assert "ip=dhcp" not in first["cmdline"], "what belongs to the old server's disks and network"

    # The server has run update-grub since: both firmwares find that configuration as well.
    second = rig.boot([disk], "uefi")
    _is_right(second, "uefi", "ext4")
    assert "noresume" in first["cmdline"]
    assert "noresume" not in second["cmdline"]

    # What was installed to its end holds data, and stays until somebody says otherwise.
    again = rig.install([disk])
    assert again["event"] == "refused"
    assert "an installed server on /dev/vda3" in again["error"]
    assert "erase" in again["hint"]


def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(rig: Rig) -> None:
    disk = rig.disk("small", mib=900)
    said = rig.install([disk])
    assert said["event"] == "refused"
    assert "/dev/vda (944 MB" in said["error"]
    assert "is too small: " in said["error"]
    assert disk.read_bytes().count(0) == disk.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lvm", "btrfs"])
def test_other_layouts_start_from_bios_and_uefi(rig: Rig, kind: str) -> None:
    disk = rig.disk("one", mib=3200)
    assert rig.install([disk], layout=kind)["event"] == "done"
    for firmware in ("bios", "uefi"):
        _is_right(rig.boot([disk], firmware), firmware, "ext4" if kind == "lvm" else kind)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("kind", ["plain", "lvm", "btrfs"])
def test_a_mirror_starts_from_both_disks_and_from_each_alone(rig: Rig, kind: str) -> None:
    disks = [rig.disk("one", mib=3200), rig.disk("two", mib=3300)]
    done = rig.install(disks, layout=kind, mirror=True, seconds=1200)
    assert done["event"] == "done"
    assert sum("boot loader" in line for line in done["done"]) == 4
    system = "btrfs" if kind == "btrfs" else "ext4"
    server = rig.boot(disks, "bios")
    _is_right(server, "bios", system)
    assert "[UU]" in server["mdstat"]
    # What is written while a disk is missing must not be lost when it is the other one that is
    # taken away next, so each goes from a copy of the whole pair.
    for alone, firmware in ((0, "uefi"), (1, "uefi"), (1, "bios")):
        with rig.kept(disks):
            server = rig.boot([disks[alone]], firmware)  # type: ignore[arg-type]
            assert server["firmware"] == firmware
            assert server["root"]["filesystems"][0]["fstype"] == system
            assert "raid1" in server["mdstat"]
            assert "[2/1]" in server["mdstat"]


@pytest.mark.slow
def test_an_initramfs_that_was_made_for_other_disks_is_made_anew(rig: Rig) -> None:
    disk = rig.disk("one")
    done = rig.install([disk], dep=True, seconds=900)
    assert any("initramfs" in line for line in done["done"])
    _is_right(rig.boot([disk], "bios"), "bios", "ext4")


@pytest.mark.slow
def test_an_installation_that_lost_power_while_copying_goes_on(rig: Rig) -> None:
    disk = rig.disk("one")
    with rig.installer([disk]) as machine:
        machine.wait_until(200, lambda: any(e["event"] == "made" for e in machine.said()))
        machine.wait_until(8, lambda: False)
        machine.kill()
        assert machine.said()[-1]["event"] == "made"
    done = rig.install([disk])
    assert (done["event"], done["resumed"]) == ("done", True)
    _is_right(rig.boot([disk], "bios"), "bios", "ext4")


@pytest.mark.slow
@pytest.mark.parametrize("mirror", [False, True])
def test_a_server_that_was_made_and_never_served_is_gone_on_with(rig: Rig, mirror: bool) -> None:
    """As after a power cut between the installer's last write and its last word."""
    disks = [rig.disk("one"), rig.disk("two")][: 1 + mirror]
    assert rig.install(disks, mirror=mirror, joining=True)["resumed"] is False
    again = rig.install(disks, mirror=mirror, stop="made")
    assert (again["event"], again["resumed"]) == ("made", True)
    # from then on it is unfinished again
    again = rig.install(disks, mirror=mirror)
    assert (again["event"], again["resumed"]) == ("done", True)
    assert rig.install(disks, mirror=mirror)["event"] == "refused"


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(("kind", "mirror"), [("plain", False), ("lvm", True), ("btrfs", True)])
def test_power_lost_at_any_moment_of_partitioning_leaves_nothing_that_needs_a_person(
    rig: Rig, kind: str, mirror: bool
) -> None:
    """After each cut the same disks are simply taken again, without leave to erase anything."""
    disks = [rig.disk("one", mib=3200), rig.disk("two", mib=3200)][: 1 + mirror]
    wishes: dict[str, Any] = {"layout": kind, "mirror": mirror, "stop": "made"}
    took = rig.making(disks, **wishes)
    for moment in moments(10, took, seed=len(kind)):
        for disk in disks:
            blank_disk(disk, disk.stat().st_size)
        with rig.installer(disks, **wishes) as machine:
            machine.wait_until(200, lambda: any(e["event"] == "chosen" for e in machine.said()))
            machine.wait_until(moment, lambda: False)
            machine.kill()
        again = rig.install(disks, **wishes)
        assert again["event"] == "made", (moment, again)
        # and what is made is found
        assert rig.install(disks, **wishes)["resumed"] is True
