"""How disks are laid out: the table every disk gets, the commands, and what fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ets.clone.layout import (
    ESP,
    MIB,
    MIRROR_TAIL,
    START,
    Layout,
    device,
    filesystems,
    parts,
    steps,
    table,
)

GB = 10**9
LAYOUTS = [Layout(kind, mirror) for kind in ("plain", "lvm", "btrfs") for mirror in (False, True)]


def test_partitions_are_named_as_linux_names_them() -> None:
    assert parts("/dev/sda").root == "/dev/sda3"
    assert parts("/dev/nvme0n1").esp == "/dev/nvme0n1p2"
    assert parts("/dev/mmcblk0").bios == "/dev/mmcblk0p1"
    assert parts("/dev/disk/by-id/virtio-a").root == "/dev/disk/by-id/virtio-a3"


def test_a_plain_disk_starts_from_both_firmwares_and_gives_the_root_the_rest() -> None:
    assert table(Layout(), [8 * GB]) == (
        "label: gpt\n"
        "start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649, "
        'name="ets-bios"\n'
        "start=2MiB, size=300MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, "
        'name="ets-esp"\n'
        "start=302MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, "
        'name="ets-root"\n'
    )


@given(
    sizes=st.lists(st.integers(2 * GB, 20_000 * GB), min_size=2, max_size=2),
    kind=st.sampled_from(["plain", "lvm", "btrfs"]),
)
def test_both_halves_of_a_mirror_are_alike_and_fit_on_the_smaller_disk(
    sizes: list[int], kind: str
) -> None:
    text = table(Layout(kind, mirror=True), sizes)  # type: ignore[arg-type]
    size = int(text.split("size=")[-1].split("MiB")[0])
    end = (START + 1 + ESP + size) * MIB
    assert end + MIRROR_TAIL * MIB <= min(sizes)
    assert min(sizes) - end < (MIRROR_TAIL + 2) * MIB
    assert "A19D880F-05FC-4D3B-A006-743F0F84911E" in text


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_ends_in_a_file_system_on_its_own_device(layout: Layout) -> None:
    on = [parts(f"/dev/vd{letter}") for letter in "ab"[: layout.disks]]
    commands = steps(layout, on, "ets_1", 8 * GB)
    assert commands[-1][0] == ("mkfs.btrfs" if layout.kind == "btrfs" else "mkfs.ext4")
    assert commands[-1][-1] == device(layout, on, "ets_1")
    assert (commands[0][:2] == ["mdadm", "--create"]) == layout.mirror
    assert any(c[0] == "lvcreate" for c in commands) == (layout.kind == "lvm")
    touched = {word for c in commands for word in c if word.startswith("/dev/vd")}
    assert touched == {p.root for p in on}


def test_many_small_files_get_enough_inodes() -> None:
    def ratio(files: int) -> int:
        command = steps(Layout(files=files), [parts("/dev/sda")], "", 8 * GB)[-1]
        return int(command[command.index("-i") + 1])

    assert ratio(60_000) == 16384
    assert ratio(400_000) == 8192
    assert all(8 * GB / ratio(files) >= files for files in (10, 10**5, 10**6, 3 * 10**6))


@pytest.mark.parametrize("layout", LAYOUTS)
@given(needed=st.integers(0, 10**13))
def test_what_is_needed_fits_with_air(layout: Layout, needed: int) -> None:
    room = layout.room(needed)
    share = 0.9 if layout.kind == "lvm" else 1.0
    # ext4's inode tables and journal, or btrfs' metadata, take less than a twelfth
    for_files = (room - (START + 1 + ESP + MIRROR_TAIL * layout.mirror) * MIB) * share * 11 / 12
    assert for_files >= needed
    assert room >= Layout().room(needed)


def test_a_server_starts_without_the_disk_whose_efi_partition_it_mounts() -> None:
    root, efi = filesystems(Layout("btrfs", mirror=True), "1234", "AB-CD")
    assert (root.mount, root.uuid, root.type, root.options) == ("/", "1234", "btrfs", "subvol=@")
    assert (efi.mount, efi.uuid, efi.type) == ("/boot/efi", "AB-CD", "vfat")
    assert "nofail" in efi.options.split(",")


def test_layouts_name_the_packages_they_need() -> None:
    assert Layout().packages == ()
    assert Layout("lvm").packages == ("lvm2",)
    assert Layout("btrfs", mirror=True).packages == ("btrfs-progs", "mdadm")
