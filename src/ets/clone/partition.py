"""Makes a blank machine's disks into the tree that a server is copied into, and finds it again.

Invariant: at every moment a disk is as it was, or says in its partition table that an
installation of ours is under way (``disks.UNFINISHED``), or holds a whole server. The table is
written in one go and before everything else; its root partition is renamed after everything else
(``close(..., finished=True)``). So whoever loses power in between finds the disk unfinished the
next time: ``find`` goes on with it when its file system is whole, and else ``make`` starts again,
for which nobody has to allow anything. A server that was made to its end and never let into
service (``paths.JOINING`` still lies in it) becomes unfinished again.

Whatever is done here happens to the disks of the ``Choice``, and to no other device.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ets import paths
from ets.clone import layout as layouts
from ets.clone.disks import FINISHED, UNFINISHED, Choice, Filesystem, Machine
from ets.clone.layout import Layout, Parts
from ets.errors import CloneError, DeadlinePassed, HostError
from ets.host.deadline import Deadline, wait_for
from ets.host.transport import Host

#: where the new server's tree is mounted in the installer
ROOT = Path("/mnt/ets-target")

#: seconds for one command that writes to a disk; a large one on slow hardware takes its time
PATIENCE = 600.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Target:
    """The disks of a new server, made and mounted: its root at ``root``. ``esps`` are the EFI
    system partitions, one per disk, none of them mounted; ``filesystems`` is for its fstab;
    ``group`` the LVM volume group, empty without LVM."""

    root: Path
    layout: Layout
    disks: tuple[str, ...]
    esps: tuple[str, ...]
    filesystems: tuple[Filesystem, ...]
    device: str
    group: str = ""


def silent(_: str) -> None:
    """For those who want no progress."""


def make(
    host: Host, choice: Choice, layout: Layout, *, root: Path = ROOT, tell: Tell = silent
) -> Target:
    """Partition the disks of ``choice``, make the file systems and mount the new root at
    ``root``. What the disks held is gone. ``tell`` hears each step in words.

    Raises CloneError when the choice does not fit the layout, HostError when a command fails.
    """
    if len(choice.disks) != layout.disks:
        raise CloneError(f"this layout takes {layout.disks} disks, not {len(choice.disks)}")
    on = [layouts.parts(disk.path) for disk in choice.disks]
    table = layouts.table(layout, [disk.size for disk in choice.disks])
    for disk in choice.disks:
        tell(f"partitioning {disk.path}")
        _release(host, disk.path)
        # Ours is overwritten in place, second copy first: wiped, it would be nobody's in between.
        wipe = "never" if disk.unfinished else "always"
        host.run(
            ["sfdisk", "--quiet", "--wipe", wipe, "--wipe-partitions", "always", disk.path],
            stdin=table.encode(),
            deadline=PATIENCE,
        )
    _settle(host, on)
    group = f"ets_{secrets.token_hex(4)}" if layout.kind == "lvm" else ""
    smallest = min(disk.size for disk in choice.disks)
    tell(f"making the {layout.kind} file system{' on a mirror' if layout.mirror else ''}")
    for argv in layouts.steps(layout, on, group, smallest):
        host.run(argv, deadline=PATIENCE)
    device = layouts.device(layout, on, group)
    if layout.kind == "btrfs":
        _make_subvolume(host, device, root)
    target = _ready(host, layout, on, device, group, root)
    host.run(["sync"], deadline=PATIENCE)
    return target


def find(
    host: Host, machine: Machine, layout: Layout, *, root: Path = ROOT, tell: Tell = silent
) -> Target | None:
    """The target of an installation with the same layout that was interrupted, mounted again at
    ``root``; None when there is none, or not one whose file system is whole.

    A server that has been in service is not found: it holds data.
    """
    ours = [d for d in machine.disks if (d.unfinished or d.installed) and not d.busy]
    ours = ours if len(ours) == layout.disks else [d for d in ours if d.unfinished]
    if len(ours) != layout.disks:
        return None
    disks = [disk.path for disk in ours]
    on = [layouts.parts(disk) for disk in disks]
    try:
        for disk in disks:
            _release(host, disk)
        _settle(host, on)
        group = _assemble(host, layout, on)
        device = layouts.device(layout, on, group)
        if any(disk.installed for disk in ours):
            if not _never_served(host, layout, device, root):
                return None
            for disk in disks:
                _rename(host, disk, UNFINISHED)
        if not _whole(host, layout, device):
            return None
        tell(f"going on with the unfinished installation on {' and '.join(disks)}")
        return _ready(host, layout, on, device, group, root)
    except HostError:
        _unmount(host, root)
        return None


def close(host: Host, target: Target, *, finished: bool = False) -> None:
    """Unmount everything and write it out. With ``finished`` the disks say from then on that
    they hold a whole server, and no installer touches them unless told.

    Raises HostError when something below the root is in use for longer than a quarter of a
    minute.
    """
    host.run(["sync"], deadline=PATIENCE)
    wait_for(f"{target.root} to be unmounted", lambda: _unmount(host, target.root), Deadline(15))
    for disk in target.disks:
        _release(host, disk)
    for disk in target.disks if finished else ():
        _rename(host, disk, FINISHED)


def _rename(host: Host, disk: str, name: str) -> None:
    """Give the root partition another name, which says how far the installation is."""
    # its neighbours may be in use by an array or a volume of the same disk
    relabel = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--part-label"]
    host.run([*relabel, disk, "3", name], deadline=PATIENCE)
    host.run(["sync", disk], deadline=PATIENCE)
    again = ["udevadm", "trigger", "--action=change", "--settle", layouts.parts(disk).root]
    host.run(again, check=False)


def _never_served(host: Host, layout: Layout, device: str, root: Path) -> bool:
    """True when the server there was made and never let into service. Writes nothing."""
    kind = "btrfs" if layout.kind == "btrfs" else "ext4"
    calm = f"ro,{layouts.mount_options(layout)}" if kind == "btrfs" else "ro,noload"
    host.make_directory(str(root))
    host.run(["mount", "-t", kind, "-o", calm, device, str(root)], deadline=PATIENCE)
    try:
        return bool(host.look([f"{root}{paths.JOINING}"]))
    finally:
        host.run(["umount", str(root)], deadline=PATIENCE)


def uuid(host: Host, device: str) -> str:
    """The UUID of the file system on ``device``, read from the device itself."""
    return host.run(["blkid", "--probe", "-s", "UUID", "-o", "value", device]).text.strip()


def _ready(
    host: Host, layout: Layout, on: list[Parts], device: str, group: str, root: Path
) -> Target:
    """The EFI system partitions made anew (they are filled last, and never needed before), the
    root mounted."""
    for part in on:
        host.run(layouts.make_esp(part.esp), deadline=PATIENCE)
    _mount(host, layout, device, root)
    return Target(
        root=root,
        layout=layout,
        disks=tuple(part.disk for part in on),
        esps=tuple(part.esp for part in on),
        filesystems=layouts.filesystems(layout, uuid(host, device), uuid(host, on[0].esp)),
        device=device,
        group=group,
    )


def _mount(host: Host, layout: Layout, device: str, root: Path) -> None:
    kind = "btrfs" if layout.kind == "btrfs" else "ext4"
    host.make_directory(str(root))
    options = layouts.mount_options(layout)
    host.run(["mount", "-t", kind, "-o", options, device, str(root)], deadline=PATIENCE)


def _unmount(host: Host, root: Path) -> bool:
    """True when nothing is mounted at ``root`` any more."""
    if host.run(["mountpoint", "-q", str(root)], check=False).status != 0:
        return True
    host.run(["umount", "--recursive", str(root)], check=False, deadline=PATIENCE)
    return host.run(["mountpoint", "-q", str(root)], check=False).status != 0


def _make_subvolume(host: Host, device: str, root: Path) -> None:
    host.make_directory(str(root))
    host.run(["mount", "-t", "btrfs", device, str(root)], deadline=PATIENCE)
    host.run(["btrfs", "subvolume", "create", str(root / layouts.SUBVOLUME)])
    host.run(["umount", str(root)], deadline=PATIENCE)


def _assemble(host: Host, layout: Layout, on: list[Parts]) -> str:
    """Bring up the array and the volume group that should be there; returns the group's name."""
    if layout.mirror:
        members = [part.root for part in on]
        host.run(["mdadm", "--assemble", layouts.ARRAY, *members], deadline=PATIENCE)
        # ends badly when a disk has fallen out: then it is better made anew than half a mirror
        host.run(["mdadm", "--detail", "--test", layouts.ARRAY])
    if layout.kind != "lvm":
        return ""
    lies_on = layouts.base(layout, on)
    group = host.run(["pvs", "--noheadings", "-o", "vg_name", lies_on]).text.strip()
    host.run(["vgchange", "--activate", "y", group], deadline=PATIENCE)
    return group


def _whole(host: Host, layout: Layout, device: str) -> bool:
    """True when the root file system was made to its end, repaired if it only lost power."""
    kind = "btrfs" if layout.kind == "btrfs" else "ext4"
    probe = ["blkid", "--probe", "-s", "TYPE", "-o", "value", device]
    if host.run(probe, check=False).text.strip() != kind:
        return False
    if kind == "btrfs":
        # its subvolume, made after it, shows that: without, mounting fails
        return True
    check = host.run(["e2fsck", "-f", "-p", device], check=False, deadline=6 * PATIENCE)
    return check.status in (0, 1)


def _settle(host: Host, on: list[Parts]) -> None:
    """Wait until the kernel shows the partitions and udev has looked at them."""
    nodes = [node for part in on for node in (part.bios, part.esp, part.root)]
    host.run(["udevadm", "settle", "--timeout=30"], check=False)
    try:
        wait_for(
            f"the partitions {', '.join(nodes)}",
            lambda: len(host.look(nodes)) == len(nodes),
            Deadline(30),
        )
    except DeadlinePassed as error:
        raise HostError(
            f"the kernel does not show the new partitions: {error.message}",
            hint="is something else using the disk? lsblk shows it",
        ) from error


def _release(host: Host, disk: str) -> None:
    """Take down what the kernel made of a disk's content by itself: volumes, arrays. Uppermost
    first; what cannot be taken down is in use, and the next command on the disk says so."""
    host.run(["udevadm", "settle", "--timeout=30"], check=False)
    listing = json.loads(host.run(["lsblk", "--json", "-o", "NAME,PATH,TYPE", disk]).stdout)
    for device in _uppermost_first(listing["blockdevices"][0]):
        kind, path = str(device["type"]), str(device["path"])
        if kind.startswith(("raid", "linear", "md")):
            host.run(["mdadm", "--stop", path], check=False)
        elif kind in ("lvm", "crypt", "dm", "mpath"):
            host.run(["dmsetup", "remove", "--retry", str(device["name"])], check=False)


def _uppermost_first(device: dict[str, Any]) -> list[dict[str, Any]]:
    above = [found for child in device.get("children", ()) for found in _uppermost_first(child)]
    return [*above, device]
