"""A station with a kernel of its own for the root helper: QEMU with Debian's cloud kernel and a
tiny initramfs that starts the helper (or its peer) and the probe, about ten seconds to its first
read under TCG.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from _rootrig import HERE, STATION, Image, Rig, build, cache, now
from ets.host.deadline import Deadline, wait_for
from ets.host.run import run

MODULES = (
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
    "failover", "net_failover", "virtio_net", "virtio_console", "nbd",
)  # fmt: skip

INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for m in {modules}; do /bin/busybox insmod /lib/$m.ko; done
/bin/busybox ip link set lo up
/bin/busybox ip link set eth0 up
/bin/busybox ip address add 10.99.0.100/24 dev eth0
/bin/busybox mkdir -p /run/ets
{helper}
echo "helper: $?" > /dev/ttyS0
( while :; do /bin/busybox sleep 1; /bin/busybox cat /run/ets/rootd.json; echo; done \
> /dev/vport1p2 2>/dev/null ) &
{extra}
exec /bin/ets-probe --device /dev/nbd0 --rate {rate} --threads {threads} --seed {seed} \
--out /dev/vport1p1
"""


@dataclass(frozen=True, slots=True)
class Read:
    """One read of the probe. ``at`` is when its line arrived, on this machine's monotonic clock."""

    at: float
    block: int
    us: int
    sum: str
    err: int


def fetch_guest_kernel() -> Path:
    """Debian's cloud kernel with its modules and a static busybox, unpacked; kept in the cache."""
    kernel = next(
        line.split()[-1]
        for line in run(["apt-cache", "depends", "linux-image-cloud-amd64"]).text.splitlines()
        if "linux-image-" in line and "Depends" in line
    )
    target = cache() / "guest-kernel" / kernel
    if (target / "complete").exists():
        return target
    work = target.with_suffix(".new")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    run(["apt-get", "download", "-q", kernel, "busybox-static"], cwd=str(work), deadline=300)
    for package in work.glob("*.deb"):
        run(["dpkg", "-x", package.name, "."], cwd=str(work), deadline=120)
        package.unlink()
    (work / "complete").touch()
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)
    return target


def build_peer(folder: Path) -> Path:
    """Compiles the kernel's own multi-socket way, which the helper is measured against."""
    program = folder / "kernel-multi"
    source = HERE.parent / "tests" / "rootd" / "kernel_multi.c"
    parts = [str(STATION / name) for name in ("server.c", "nbd.c", "log.c")]
    run(["gcc", "-O2", "-static", "-I", str(STATION), "-o", str(program), str(source), *parts],
        deadline=120)  # fmt: skip
    return program


class Guest:
    """A running station, as a context. ``reads`` grows while it runs."""

    def __init__(
        self,
        rig: Rig,
        image: Image,
        *,
        helper: str = "rootd",
        options: str = "",
        extra: str = "",
        rate: int = 50,
        threads: int = 8,
        seed: int = 1,
    ) -> None:
        self.reads: list[Read] = []
        self.stats: dict[str, object] = {}
        self._folder = rig.folder / "guest"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        command = (
            f"/bin/{helper} --device 0 --root {image.roothash} --blocks {image.blocks} "
            f"--servers {rig.addresses} {options}"
        )
        if helper == "rootd":
            command += " --stats /run/ets/rootd.json"
        kernel = fetch_guest_kernel()
        init = INIT.format(
            modules=" ".join(MODULES), helper=command, extra=extra, rate=rate, threads=threads,
            seed=seed,
        )  # fmt: skip
        initrd = self._initrd(kernel, {"init": init})
        rig.wire.ip("tuntap add station mode tap")
        rig.wire.ip("link set station master br0 up")
        self._rig = rig
        self._qemu = subprocess.Popen(
            rig.wire.entering(self._qemu_line(next((kernel / "boot").glob("vmlinuz-*")), initrd)),
            stdin=subprocess.DEVNULL,
        )
        self._threads = [
            threading.Thread(target=self._listen, args=(name, take), daemon=True)
            for name, take in (("probe", self._take_read), ("stats", self._take_stats))
        ]
        for thread in self._threads:
            thread.start()

    def _initrd(self, kernel: Path, files: Mapping[str, str]) -> Path:
        root = self._folder / "root"
        for name in ("bin", "lib", "proc", "sys", "dev", "run"):
            (root / name).mkdir(parents=True)
        for name, text in files.items():
            (root / name).write_text(text)
            (root / name).chmod(0o755)
        shutil.copy(kernel / "bin" / "busybox", root / "bin")
        programs = build()
        for program in (programs / "rootd", programs / "ets-probe", build_peer(self._folder)):
            shutil.copy(program, root / "bin")
        for name in MODULES:
            shutil.copy(next((kernel / "lib").rglob(f"{name}.ko")), root / "lib")
        target = self._folder / "initrd"
        run(["sh", "-c", f"find . | cpio -o -H newc -R 0:0 --quiet > {target}"], cwd=str(root))
        return target

    def _qemu_line(self, kernel: Path, initrd: Path) -> list[str]:
        ports = [
            part
            for number, name in enumerate(("probe", "stats"), 1)
            for part in (
                "-chardev", f"socket,id={name},path={self._folder}/{name},server=on,wait=off",
                "-device", f"virtserialport,chardev={name},name=ets.{name},nr={number}",
            )
        ]  # fmt: skip
        return [
            "qemu-system-x86_64", "-machine", "q35", "-cpu", "qemu64", "-smp", "1", "-m", "256",
            "-accel", "tcg,thread=multi,tb-size=128", "-nodefaults", "-display", "none",
            "-no-reboot", "-kernel", str(kernel), "-initrd", str(initrd),
            "-append", "console=ttyS0 panic=-1 loglevel=7 net.ifnames=0",
            "-serial", f"file:{self.console}",
            "-netdev", "tap,id=net,ifname=station,script=no,downscript=no",
            "-device", "virtio-net-pci,netdev=net", "-device", "virtio-serial-pci", *ports,
        ]  # fmt: skip

    @property
    def console(self) -> Path:
        """What the guest prints."""
        return self._folder / "console"

    def _listen(self, name: str, take: object) -> None:
        path = str(self._folder / name)
        port = socket.socket(socket.AF_UNIX)
        deadline = Deadline(20)
        while port.connect_ex(path) and not deadline.passed:
            if self._qemu.poll() is not None:
                return
        with port, port.makefile("rb") as lines:
            for line in lines:
                if line.strip() and callable(take):
                    take(json.loads(line))

    def _take_read(self, line: dict[str, int | str]) -> None:
        self.reads.append(
            Read(now(), int(line["block"]), int(line["us"]), str(line["sum"]), int(line["err"]))
        )

    def _take_stats(self, line: dict[str, object]) -> None:
        self.stats = line

    def wait_reading(self, reads: int = 100, seconds: float = 120) -> None:
        """Waits until the station has read that many more blocks."""
        until = len(self.reads) + reads
        wait_for(
            f"{until} reads; console: {self.console}",
            lambda: len(self.reads) >= until,
            Deadline(seconds),
            every=0.05,
        )

    def longest(self, since: float) -> float:
        """The longest read that ended since then, in seconds."""
        return max((read.us for read in self.reads if read.at >= since), default=0) / 1e6

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._qemu.kill()
        self._qemu.wait()
        for thread in self._threads:
            thread.join(5)
        self._rig.wire.ip("link del station")
