"""A blank disk becomes a server's: partitioned, filled, made bootable, and started from BIOS and
from UEFI, in machines with Debian's own kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.drills.disk_rig import Firmware, Rig, guest_image

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
    assert "root=/dev/old" not in server["cmdline"]
    assert "root=UUID=" in server["cmdline"]
    root = server["root"]["filesystems"][0]
    assert root["fstype"] == kind
    assert root["options"].startswith("rw")
    assert not server["failed"].strip(), server["failed"]
    assert server["efi"]["filesystems"][0]["fstype"] == "vfat"


def test_a_plain_disk_starts_from_bios_and_uefi(rig: Rig) -> None:
    disk = rig.disk("one")
    assert rig.install([disk])["event"] == "done"
    for firmware in ("bios", "uefi"):
        _is_right(rig.boot([disk], firmware), firmware, "ext4")

    # What was installed to its end holds data, and stays until somebody says otherwise.
    again = rig.install([disk])
    assert again["event"] == "refused"
    assert "an installed server on /dev/vda3" in again["error"]
    assert "erase" in again["hint"]
