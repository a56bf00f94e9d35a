"""What the installer reads from its command line, and what it tells a person."""

from __future__ import annotations

import pytest

from ets.clone.disks import Disk, Machine, Nic
from ets.clone.install import described, kind_of, progress_words, summary, wishes
from ets.clone.pull import Copied, Progress
from ets.errors import CloneError


def test_the_command_line_names_servers_card_and_disks() -> None:
    line = "initrd=x ets.join=10.0.0.1,10.0.0.2 BOOTIF=01-52-54-00-AB-00-01 ets.disk=sda,sdb quiet"
    found = wishes(line)
    assert found.servers == ("10.0.0.1", "10.0.0.2")
    assert found.mac == "52:54:00:ab:00:01"
    assert found.disks == ("sda", "sdb")


def test_a_machine_that_was_not_sent_by_a_join_is_told_what_to_do() -> None:
    with pytest.raises(CloneError) as error:
        wishes("root=/dev/nbd0 ets.servers=10.0.0.1")
    assert "ets.join" in error.value.message
    assert "ets join NAME" in error.value.hint


def test_a_layout_of_a_newer_primary_is_refused_by_name() -> None:
    assert kind_of("btrfs") == "btrfs"
    with pytest.raises(CloneError, match="'zfs'"):
        kind_of("zfs")


def test_everything_found_in_a_machine_is_shown() -> None:
    disk = Disk("/dev/sda", 500_000_000_000, model="SAMSUNG", holds=("ntfs 'Windows'",))
    nic = Nic("enp1s0", "52:54:00:00:00:01", up=True, speed=1000)
    lines = described(Machine((disk,), (nic,), 8 << 30, "uefi", 4, "OptiPlex"))
    text = "\n".join(lines)
    for part in ("OptiPlex", "4 processors", "8.6 GB", "UEFI", "enp1s0", "1000 Mbit/s", "Windows"):
        assert part in text
    assert "no disk at all" in described(Machine((), (nic,), 1 << 30, "bios"))[-1]


def test_progress_has_amount_rate_and_time_left() -> None:
    words = progress_words(Progress("everything", 500_000_000, 1_000_000_000, 10e6, 50.4))
    assert words == "everything: 500 MB of 1.0 GB, 10.0 MB/s, 50 s left"
    assert "1 min 30 s left" in progress_words(Progress("x", 1, 2, 1.0, 90.0))
    assert "left" not in progress_words(Progress("x", 1, 2, 1.0, None))


def test_the_end_says_how_long_the_primary_stood_still() -> None:
    words = summary(Copied(788_000_000, 471_000_000, 88.2, 14951, 0.21, "all", ()))
    assert "14951 files" in words
    assert "1 min 28 s" in words
    assert "0.2 s" in words
