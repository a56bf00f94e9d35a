"""What the drills of disks and boot loaders need: a guest with tools and Debian's kernel that
installs on blank disks, and machines that start from these disks alone."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from ets.errors import HostError
from ets.host.deadline import Deadline
from ets.host.run import run
from ets.lab.kvm import accelerator
from ets.lab.qemu import OVMF
from ets.lab.tree import checkout, server_layers

Firmware = Literal["bios", "uefi"]

#: what an installer has, and what the servers of these drills have: the same tree
PACKAGES = (
    "linux-image-cloud-amd64", "initramfs-tools", "udev", "kmod", "zstd", "fdisk", "e2fsprogs",
    "dosfstools", "btrfs-progs", "lvm2", "mdadm", "grub-pc-bin", "grub-efi-amd64-bin",
    "grub2-common",
)  # fmt: skip
MIB = 1 << 20

_INIT = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
export PYTHONPATH=/opt/ets/lib:/opt/ets/src PYTHONDONTWRITEBYTECODE=1
/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add
udevadm settle
python3 /opt/ets/disk_guest.py
sync
echo o >/proc/sysrq-trigger
sleep 60
"""

_PROBE_UNIT = """[Unit]
Description=Tells the drill what this server started from
After=local-fs.target

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/disk-probe

[Install]
WantedBy=multi-user.target
"""

_PROBE = r"""#!/bin/sh
flat() { tr '\n"' ' _'; }
mounted() { findmnt --json --output TARGET,SOURCE,FSTYPE,OPTIONS "$1" || echo null; }
# the card of the port may be found later than everything else
until [ -c /dev/virtio-ports/ets.event ]; do sleep 1; done
# boot does not wait for it: see its options
systemctl start boot-efi.mount
# as every new kernel's package does on a server that has GRUB's packages
update-grub 2>/run/update-grub
firmware=bios
[ ! -d /sys/firmware/efi ] || firmware=uefi
{
    printf '{"firmware": "%s", ' "$firmware"
    printf '"cmdline": "%s", ' "$(flat </proc/cmdline)"
    printf '"failed": "%s", ' "$(systemctl list-units --failed --plain --no-legend | flat)"
    printf '"mdstat": "%s", ' "$(cat /proc/mdstat 2>/dev/null | flat)"
    printf '"root": %s, "efi": %s}\n' "$(mounted / | tr '\n' ' ')" \
        "$(ls /boot/efi >/dev/null; mounted /boot/efi | tr '\n' ' ')"
} >/dev/virtio-ports/ets.event
systemctl poweroff
"""


def guest_image(directory: Path) -> tuple[Path, Path, Path]:
    """The guest's root as an ext4 image in ``directory``, its kernel and its initramfs."""
    python, tree = server_layers(PACKAGES)
    image, extra = directory / "guest.img", directory / "extra"
    ours = extra / "opt/ets"
    shutil.copytree(checkout() / "src", ours / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(__file__).with_name("disk_guest.py"), ours)
    (ours / "init").write_text(_INIT)
    (ours / "init").chmod(0o755)
    units = extra / "etc/systemd/system/multi-user.target.wants"
    units.mkdir(parents=True)
    (units.parent / "disk-probe.service").write_text(_PROBE_UNIT)
    probe = extra / "usr/local/sbin/disk-probe"
    probe.parent.mkdir(parents=True)
    probe.write_text(_PROBE)
    probe.chmod(0o755)
    (units / "disk-probe.service").symlink_to("../disk-probe.service")
    merged = directory / "merged"
    merged.mkdir()
    script = (
        f"mount -t overlay -o lowerdir={extra}:{python}:{tree} overlay {merged} && "
        f"mkfs.ext4 -q -F -L guest -O ^has_journal -d {merged} {image} 3000M"
    )
    run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        deadline=180,
    )
    kernel = max((tree / "boot").glob("vmlinuz-*"))
    return image, kernel, tree / "boot" / kernel.name.replace("vmlinuz", "initrd.img")


def blank_disk(path: Path, size: int) -> Path:
    """A disk of ``size`` bytes with nothing on it."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


class Machine:
    """A QEMU machine without a network. Leave its context to switch it off."""

    def __init__(self, directory: Path, disks: Sequence[Path], more: Sequence[str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.events, self.console = directory / "events", directory / "console"
        self.events.unlink(missing_ok=True)
        argv = [
            "setpriv", "--pdeathsig", "KILL",
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-machine", "q35,graphics=off",
            "-accel", accelerator(), "-cpu", "qemu64", "-smp", "1", "-m", "1024",
            "-display", "none", "-vga", "none", "-no-reboot", "-serial", f"file:{self.console}",
            "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
            "-chardev", f"file,id=event,path={self.events}",
            "-device", "virtserialport,chardev=event,name=ets.event",
        ]  # fmt: skip
        for number, disk in enumerate(disks):
            name = f"d{number}"
            argv += ["-drive", f"file={disk},format=raw,if=none,id={name},cache=unsafe"]
            argv += ["-device", f"virtio-blk-pci,drive={name},serial=drill-{disk.stem}"]
        self.process = subprocess.Popen([*argv, *more], stdin=subprocess.DEVNULL)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Pull the plug."""
        self.process.kill()
        self.process.wait()

    def said(self) -> list[dict[str, Any]]:
        """The events so far."""
        if not self.events.exists():
            return []
        whole = self.events.read_text(errors="replace").rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.strip()]

    def wait_off(self, seconds: float) -> list[dict[str, Any]]:
        """Wait until the machine has switched itself off; returns what it said."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise HostError(f"still on after {seconds:g} s; its console: {self.tail()}") from error
        return self.said()

    def wait_until(self, seconds: float, seen: Callable[[], bool]) -> None:
        """Wait until ``seen`` or until the machine is off."""
        deadline = Deadline(seconds)
        while not (seen() or deadline.passed or self.process.poll() is not None):
            time.sleep(0.05)

    def tail(self) -> str:
        """The end of its console."""
        with contextlib.suppress(OSError):
            return self.console.read_bytes()[-4000:].decode(errors="replace")
        return "(nothing)"


class Rig:
    """The installing guest and the disks, in ``directory``."""

    def __init__(self, directory: Path, image: tuple[Path, Path, Path]) -> None:
        self.directory = directory
        self._image, self._kernel, self._initrd = image
        self._count = 0

    def disk(self, name: str, mib: int = 2600) -> Path:
        """A blank disk."""
        return blank_disk(self.directory / f"{name}.raw", mib * MIB)

    @contextlib.contextmanager
    def installer(self, disks: Sequence[Path], **wishes: object) -> Iterator[Machine]:
        """The guest, doing what ``wishes`` (see disk_guest.py) say with ``disks``."""
        # the guest's own disk is never written: snapshot=on keeps changes in a file of QEMU's own
        line = f"root=LABEL=guest rw init=/opt/ets/init console=ttyS0 panic=-1 {_words(wishes)}"
        more = ["-kernel", str(self._kernel), "-initrd", str(self._initrd), "-append", line,
                "-drive", f"file={self._image},format=raw,if=none,id=guest,snapshot=on",
                "-device", "virtio-blk-pci,drive=guest,serial=guest"]  # fmt: skip
        with Machine(self._next("installer"), disks, more) as machine:
            yield machine

    def install(self, disks: Sequence[Path], seconds: float = 500, **wishes: object) -> Any:
        """Run the guest to its end; returns its last event."""
        with self.installer(disks, **wishes) as machine:
            said = machine.wait_off(seconds)
            if not said:
                raise HostError(f"the guest said nothing; its console: {machine.tail()}")
            return said[-1]

    def making(self, disks: Sequence[Path], **wishes: object) -> float:
        """Seconds from the choice of disks until they are made and mounted."""
        with self.installer(disks, **wishes) as machine:
            when = {event["event"]: float(event["t"]) for event in machine.wait_off(300)}
        return when["made"] - when["chosen"]

    @contextlib.contextmanager
    def kept(self, disks: Sequence[Path]) -> Iterator[None]:
        """What happens to the disks meanwhile is undone afterwards."""
        copies = [disk.with_suffix(".kept") for disk in disks]
        for disk, copy in zip(disks, copies, strict=True):
            run(["cp", "--sparse=always", str(disk), str(copy)], deadline=300)
        try:
            yield
        finally:
            for disk, copy in zip(disks, copies, strict=True):
                copy.replace(disk)

    def boot(self, disks: Sequence[Path], firmware: Firmware, seconds: float = 400) -> Any:
        """Start from the disks; returns what the server says of itself before it goes off."""
        more: list[str] = []
        place = self._next(f"boot-{firmware}")
        if firmware == "uefi":
            place.mkdir()
            # no variables: only the removable path can be found
            variables = shutil.copy(OVMF / "OVMF_VARS_4M.fd", place / "vars.fd")
            code = OVMF / "OVMF_CODE_4M.fd"
            more += ["-drive", f"if=pflash,format=raw,readonly=on,file={code}"]
            more += ["-drive", f"if=pflash,format=raw,file={variables}"]
        with Machine(place, disks, more) as machine:
            said = machine.wait_off(seconds)
            if not said:
                raise HostError(f"the server said nothing; its console: {machine.tail()}")
            return said[-1]

    def _next(self, what: str) -> Path:
        self._count += 1
        return self.directory / f"{self._count:02}-{what}"


def _words(wishes: dict[str, object]) -> str:
    return " ".join(f"drill.{key}={value}" for key, value in wishes.items())


def moments(count: int, end: float, seed: int) -> list[float]:
    """``count`` random moments in seconds, the same for the same seed."""
    dice = random.Random(seed)
    return sorted(dice.uniform(0, end) for _ in range(count))
