"""What is found in a machine, and which of its disks a server may go on."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ets.clone.disks import (
    Disk,
    Machine,
    _sampled,
    choose,
    parse_disks,
    parse_nics,
    size_words,
)
from ets.errors import CloneError
from ets.host.local import LocalHost

CAPTURES = Path(__file__).with_name("lsblk")
GB = 10**9
ROOM = 4 * GB
BLANK = Disk("/dev/vda", 8 * GB)
UNFINISHED = Disk(
    "/dev/vdb",
    8 * GB,
    holds=("a partition table (gpt)",),
    names=("ets-bios", "ets-esp", "ets-root"),
)
INSTALLED = Disk(
    "/dev/vdc",
    8 * GB,
    holds=("a partition table (gpt)", "an installed server on /dev/vdc3"),
    names=("ets-bios", "ets-esp", "ets-server"),
)
DATA = Disk("/dev/vdd", 8 * GB, holds=("ext4 'data'",), serial="4711")
MOUNTED = Disk("/dev/vde", 8 * GB, holds=("ext4",), busy=("/dev/vde is mounted at /srv",))
SMALL = Disk("/dev/vdf", 2 * GB)
STICK = Disk("/dev/sdx", 64 * GB, removable=True)


def machine(*disks: Disk) -> Machine:
    return Machine(disks, (), 2 * GB, "bios")


def refused(*disks: Disk, **how: object) -> str:
    with pytest.raises(CloneError) as caught:
        choose(machine(*disks), room=ROOM, **how)  # type: ignore[arg-type]
    return str(caught.value)


def test_the_only_blank_disk_is_taken() -> None:
    choice = choose(machine(DATA, BLANK, MOUNTED), room=ROOM)
    assert choice.disks == (BLANK,)
    assert choice.erases == ()
    assert choice.reason.startswith("/dev/vda (8.0 GB), blank")


def test_a_disk_that_holds_data_is_refused_with_what_was_found_until_told() -> None:
    said = refused(DATA)
    assert "/dev/vdd (8.0 GB, serial 4711) holds data: ext4 'data'" in said
    assert "→ allow to erase" in said
    choice = choose(machine(DATA), room=ROOM, erase=True)
    assert choice.erases == ("/dev/vdd: ext4 'data'",)


def test_an_installed_server_is_data_and_an_unfinished_installation_is_not() -> None:
    assert "an installed server on /dev/vdc3" in refused(INSTALLED)
    choice = choose(machine(INSTALLED, UNFINISHED), room=ROOM)
    assert choice.disks == (UNFINISHED,)
    assert "an unfinished installation" in choice.reason


def test_a_foreign_partition_beside_ours_makes_the_disk_somebodys() -> None:
    mixed = dataclasses.replace(UNFINISHED, names=(*UNFINISHED.names, "photos"))
    assert "holds data" in refused(mixed)


def test_too_small_is_said_with_both_sizes() -> None:
    said = refused(SMALL)
    assert "/dev/vdf (2.0 GB) is too small: 4.0 GB are needed" in said
    assert "→ put in a disk of at least 4.0 GB" in said


def test_erasing_never_touches_what_is_in_use_read_only_or_can_be_pulled_out() -> None:
    assert "is in use: /dev/vde is mounted at /srv" in refused(MOUNTED, erase=True)
    assert "in use" in refused(MOUNTED, erase=True, wanted=["/dev/vde"])
    broken = dataclasses.replace(BLANK, fault="dd: Input/output error")
    assert "cannot be read: dd: Input/output error" in refused(broken, erase=True)
    assert "is read-only" in refused(dataclasses.replace(BLANK, readonly=True), erase=True)
    assert "can be pulled out" in refused(STICK, erase=True)
    assert choose(machine(STICK), room=ROOM, wanted=["sdx"]).disks == (STICK,)


def test_when_several_could_be_meant_to_be_erased_none_is() -> None:
    other = dataclasses.replace(DATA, path="/dev/vdg", serial="4712")
    said = refused(DATA, other, erase=True)
    assert "several disks hold data" in said
    assert "→ name the disk" in said
    assert choose(machine(DATA, other), room=ROOM, wanted=["4712"], erase=True).disks == (other,)
    assert "holds data" in refused(DATA, other, wanted=["4712"])


def test_blank_disks_are_preferred_to_erased_ones() -> None:
    assert choose(machine(DATA, BLANK), room=ROOM, erase=True).disks == (BLANK,)


def test_a_named_disk_is_obeyed_or_refused_never_replaced() -> None:
    assert "is too small" in refused(SMALL, BLANK, wanted=["/dev/vdf"])
    assert "there is no disk sdq" in refused(BLANK, wanted=["sdq"])
    assert "2 disks were named" in refused(BLANK, SMALL, wanted=["vda", "vdf"])


def test_the_smallest_that_fits_is_taken_solid_state_first() -> None:
    fast = Disk("/dev/nvme0n1", 500 * GB)
    slow = Disk("/dev/sda", 8 * GB, rotational=True)
    assert choose(machine(slow, fast), room=ROOM).disks == (fast,)
    assert choose(machine(fast, BLANK), room=ROOM).disks == (BLANK,)


def test_a_mirror_takes_two() -> None:
    twin = dataclasses.replace(BLANK, path="/dev/vdh")
    assert choose(machine(twin, BLANK, DATA), room=ROOM, disks=2).disks == (BLANK, twin)
    said = refused(BLANK, DATA, disks=2)
    assert "no 2 disks" in said
    assert "/dev/vdd (8.0 GB, serial 4711) holds data" in said
    mixed = choose(machine(BLANK, DATA), room=ROOM, disks=2, erase=True)
    assert mixed.disks == (BLANK, DATA)
    assert mixed.erases == ("/dev/vdd: ext4 'data'",)


def test_a_disk_named_twice_is_no_mirror() -> None:
    assert "named twice" in refused(DATA, disks=2, wanted=["vdd", "4711"], erase=True)


def test_a_machine_without_disks_says_so() -> None:
    assert "this machine has no disk" in refused()


@given(
    st.lists(
        st.builds(
            Disk,
            path=st.sampled_from([f"/dev/sd{c}" for c in "abcdef"]),
            size=st.sampled_from([0, GB, 8 * GB, 16 * GB]),
            removable=st.booleans(),
            readonly=st.booleans(),
            fault=st.sampled_from(["", "dd: Input/output error"]),
            holds=st.sampled_from([(), ("ext4",)]),
            busy=st.sampled_from([(), ("mounted",)]),
            names=st.sampled_from([(), ("ets-bios", "ets-esp", "ets-root"), ("ets-server",)]),
        ),
        max_size=6,
        unique_by=lambda disk: disk.path,
    ),
    st.integers(1, 2),
    st.booleans(),
    st.lists(st.sampled_from([f"sd{c}" for c in "abcdef"]), max_size=2, unique=True),
)
def test_nothing_of_anybodys_is_lost_without_consent(
    disks: list[Disk], count: int, erase: bool, wanted: list[str]
) -> None:
    """The invariant of ``choose``, over all machines."""
    try:
        choice = choose(machine(*disks), room=ROOM, disks=count, wanted=wanted, erase=erase)
    except CloneError:
        return
    assert len(choice.disks) == len({d.path for d in choice.disks}) == count
    for disk in choice.disks:
        assert not disk.busy
        assert not disk.readonly
        assert not disk.fault
        assert disk.size >= ROOM
        assert not disk.removable or wanted
        assert disk.blank or erase
    kept = [d for d in disks if not d.blank and d not in choice.disks]
    if choice.erases and not wanted:
        # nobody named a disk: no other one could have been meant
        assert not [
            d
            for d in kept
            if d.size >= ROOM and not (d.busy or d.readonly or d.removable or d.fault)
        ]


def test_sizes_are_told_as_on_a_label() -> None:
    assert [size_words(n) for n in (0, 999, 8 * GB, 512 * 10**6, 4_000_787_030_016)] == [
        "0 B", "999 B", "8.0 GB", "512 MB", "4.0 TB",
    ]  # fmt: skip


def _seen(path: Path) -> Disk:
    """A file, looked at as a disk on which lsblk found nothing."""
    return _sampled(LocalHost(), Disk(str(path), path.stat().st_size))


def test_bytes_that_no_tool_recognises_are_data(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(9 << 20)
    assert _seen(disk).blank
    for place in (0, 4 << 20, (9 << 20) - 1):
        with disk.open("wb") as file:
            file.truncate(9 << 20)
            file.seek(place)
            file.write(b"\x01")
        assert _seen(disk).holds == ("bytes of an unknown kind (it is not empty)",)


def test_a_signature_that_lsblk_does_not_show_is_data(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(9 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(disk)], check=True)
    assert _seen(disk).holds == ("a signature of ext4",)


def test_what_cannot_be_read_is_a_fault_and_no_blank_disk(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(bytes(4 << 20))
    assert _seen(short).fault == ""
    disk = _sampled(LocalHost(), Disk(str(tmp_path), 9 << 20))
    assert "Is a directory" in disk.fault
    assert "cannot be read" in refused(disk, erase=True)


@pytest.mark.parametrize("capture", sorted(CAPTURES.glob("*.json")), ids=lambda path: path.stem)
def test_captures_are_read_as_they_should_be(capture: Path) -> None:
    """Each file holds what ``lsblk --json --bytes -O`` printed on some machine, and under
    ``expected`` what is to be found in it."""
    record = json.loads(capture.read_text())
    found = {
        disk.path: {
            "holds": list(disk.holds),
            "busy": list(disk.busy),
            "blank": disk.blank,
            "removable": disk.removable,
        }
        for disk in parse_disks(capture.read_bytes())
    }
    assert found == record["expected"]


def test_network_cards_are_those_of_the_machine() -> None:
    record = json.loads((CAPTURES.parent / "ip" / "server.json").read_text())
    nics = parse_nics(json.dumps(record).encode())
    assert [(n.name, n.mac, n.up, n.addresses) for n in nics] == [
        ("enp0s11", "52:54:00:12:34:56", True, ("10.20.0.11/24",)),
        ("enp0s12", "52:54:00:12:34:57", False, ()),
    ]
