"""How a server's disks are laid out: pure, from a kind of layout to partitions and commands.

Every disk gets the same GPT, so that it starts from BIOS and from UEFI: a BIOS boot partition
that holds GRUB's core, an EFI system partition that holds GRUB's other core, and the root. With a
mirror the roots of two disks make one md array; on the root (or the array) lies ext4, LVM with
ext4, or btrfs. ``/boot`` is a part of the root: GRUB reads all of these.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ets.clone.disks import UNFINISHED, Filesystem

Kind = Literal["plain", "lvm", "btrfs"]

MIB = 1 << 20
#: MiB: where the first partition begins, and how long the two small ones are. FAT32 needs 65525
#: clusters, which on disks with sectors of 4096 bytes is 256 MiB.
START, BIOS, ESP = 1, 1, 300
#: MiB that stay free at a disk's end: GPT's second copy; on a mirror so much that a disk of the
#: same label, which may be a little smaller, can replace a broken one
TAIL, MIRROR_TAIL = 1, 64

#: GPT partition types (UEFI 2.10 §5.3.3; GRUB manual, "BIOS installation"; UAPI discoverable
#: partitions)
BIOS_TYPE = "21686148-6449-6E6F-744E-656564454649"
ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LINUX_TYPE = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
RAID_TYPE = "A19D880F-05FC-4D3B-A006-743F0F84911E"
LVM_TYPE = "E6D6D379-F507-44C2-A23C-238F2A3DF928"

ARRAY = "/dev/md/ets-root"
SUBVOLUME = "@"

#: the Debian package that the copied server must have for the layout to start and be looked after
_PACKAGES = {"lvm": "lvm2", "btrfs": "btrfs-progs"}


@dataclass(frozen=True, slots=True)
class Layout:
    """What is made on a server's disk, or on two as a mirror. ``files`` is about how many files
    are to come, for the number of inodes."""

    kind: Kind = "plain"
    mirror: bool = False
    files: int = 0

    @property
    def disks(self) -> int:
        """How many disks it takes."""
        return 2 if self.mirror else 1

    @property
    def packages(self) -> tuple[str, ...]:
        """The Debian packages that a server on such disks needs, and so the one that is copied."""
        wanted = [_PACKAGES[self.kind]] if self.kind in _PACKAGES else []
        return (*wanted, *(["mdadm"] if self.mirror else []))

    def room(self, needed: int) -> int:
        """How large each disk must be, in bytes, for ``needed`` bytes of files: with the small
        partitions, what file systems keep for themselves, and some air to start and update in."""
        kept = {"plain": 0.90, "lvm": 0.90 * 0.90, "btrfs": 0.88}[self.kind]
        air = max(256 * MIB, needed // 20)
        tail = MIRROR_TAIL if self.mirror else TAIL
        return int((needed + air) / kept) + (START + BIOS + ESP + tail + 8) * MIB


@dataclass(frozen=True, slots=True)
class Parts:
    """The partitions of one disk."""

    disk: str
    bios: str
    esp: str
    root: str


def parts(disk: str) -> Parts:
    """The device names that Linux gives the partitions of ``disk``."""
    stem = f"{disk}p" if re.search(r"\d$", disk) else disk
    return Parts(disk, f"{stem}1", f"{stem}2", f"{stem}3")


def table(layout: Layout, sizes: Sequence[int]) -> str:
    """The input for sfdisk(8), the same for every disk; ``sizes`` are the disks' bytes."""
    root = "" if not layout.mirror else f"size={_mirror_size(sizes)}MiB, "
    kind = RAID_TYPE if layout.mirror else LVM_TYPE if layout.kind == "lvm" else LINUX_TYPE
    return (
        "label: gpt\n"
        f'start={START}MiB, size={BIOS}MiB, type={BIOS_TYPE}, name="ets-bios"\n'
        f'start={START + BIOS}MiB, size={ESP}MiB, type={ESP_TYPE}, name="ets-esp"\n'
        f'start={START + BIOS + ESP}MiB, {root}type={kind}, name="{UNFINISHED}"\n'
    )


def _mirror_size(sizes: Sequence[int]) -> int:
    return min(sizes) // MIB - START - BIOS - ESP - MIRROR_TAIL


def base(layout: Layout, on: Sequence[Parts]) -> str:
    """The device on which the file system or LVM lies."""
    return ARRAY if layout.mirror else on[0].root


def device(layout: Layout, on: Sequence[Parts], group: str) -> str:
    """The device that holds the root file system; ``group`` is the LVM volume group's name."""
    return f"/dev/{group}/root" if layout.kind == "lvm" else base(layout, on)


def make_esp(partition: str) -> list[str]:
    """The command that makes an EFI system partition's file system."""
    return ["mkfs.vfat", "-F", "32", "-n", "EFI", partition]


def steps(layout: Layout, on: Sequence[Parts], group: str, size: int) -> list[list[str]]:
    """The commands that follow partitioning, up to a made root file system; ``size`` is the
    smallest disk's, in bytes."""
    commands = []
    if layout.mirror:
        # Nothing is read that was not written, to both disks, so the array is redundant from its
        # first byte; without --assume-clean it would be only after hours of copying emptiness.
        commands.append(
            ["mdadm", "--create", ARRAY, "--run", "--level=1", "--metadata=1.2",
             "--bitmap=internal", "--assume-clean", "--homehost=any", "--name=ets-root",
             f"--raid-devices={len(on)}", *(p.root for p in on)]
        )  # fmt: skip
    target = base(layout, on)
    if layout.kind == "lvm":
        commands += [
            ["pvcreate", "--yes", "-ff", target],
            ["vgcreate", "--yes", group, target],
            # A tenth stays free for snapshots.
            ["lvcreate", "--yes", "--wipesignatures", "y", "--name", "root",
             "--extents", "90%VG", group],
        ]  # fmt: skip
    return [*commands, _make_root(layout, device(layout, on, group), size)]


def _make_root(layout: Layout, where: str, size: int) -> list[str]:
    if layout.kind == "btrfs":
        return ["mkfs.btrfs", "--force", "--label", "root", where]
    # The GRUB of Debian 12 cannot read metadata_csum_seed; fewer bytes per inode than usual only
    # where the files are so small that the usual number would not do.
    ratio = next((r for r in (16384, 8192, 4096) if size / r > 2 * layout.files), 2048)
    return ["mkfs.ext4", "-q", "-F", "-L", "root", "-i", str(ratio),
            "-O", "^metadata_csum_seed,^orphan_file", where]  # fmt: skip


def mount_options(layout: Layout) -> str:
    """How the root is mounted, by the installer, the kernel and fstab."""
    return f"subvol={SUBVOLUME}" if layout.kind == "btrfs" else "errors=remount-ro"


def filesystems(layout: Layout, root: str, esp: str) -> tuple[Filesystem, ...]:
    """For fstab, from the two UUIDs. A server must start without the disk whose EFI system
    partition it has mounted, hence ``nofail``."""
    kind = "btrfs" if layout.kind == "btrfs" else "ext4"
    efi = "umask=0077,nofail,x-systemd.device-timeout=30s"
    return (
        Filesystem("/", root, kind, mount_options(layout)),
        Filesystem("/boot/efi", esp, "vfat", efi),
    )
