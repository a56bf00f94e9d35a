"""One station and two block servers in a network namespace of their own, without firmware, boot
scripts or a lab: the shortest way to see a station's image boot.

Everything runs below one process that dies with the test, and takes namespace and machine along.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ets.host.deadline import Deadline, wait_for
from ets.image.manifest import Manifest
from ets.image.store import Store

MAC = "52:54:00:77:00:01"
ADDRESS = "10.77.1.5"
SERVERS = ("10.77.0.11", "10.77.0.12")
_SETUP = """
ip link set lo up
ip tuntap add tap0 mode tap
for address in {servers}; do ip addr add $address/22 dev tap0; done
ip link set tap0 up
echo up
exec sleep infinity
"""


class Rig:
    """Enter it to have the network; then start servers and the station."""

    def __init__(self, store: Store, digest: str, directory: Path) -> None:
        self.store = store
        self.digest = digest
        self.manifest: Manifest = store.manifest(digest)
        self.directory = directory
        self.console = directory / "console"
        self.events = directory / "events"
        self.reads = directory / "reads"
        self.log = directory / "log"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Rig:
        holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--pid", "--fork",
             "--kill-child", "--mount-proc", "sh", "-ec", _SETUP.format(servers=" ".join(SERVERS))],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        self._processes.append(holder)
        if holder.stdout is None or holder.stdout.readline() != b"up\n":
            raise RuntimeError("the drill's network namespace did not come up")
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text()
        self._space = int(children.split()[0])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """Run a program in the namespace until the end of the drill."""
        enter = ["nsenter", f"--net=/proc/{self._space}/ns/net"]
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *enter, *argv], stdin=subprocess.DEVNULL
        )
        self._processes.append(process)
        return process

    def serve(self, address: str) -> subprocess.Popen[bytes]:
        """Export the store's images at ``address``; kill what is returned to lose that server."""
        return self.start(
            ["nbdkit", "--foreground", "--readonly", "--ipaddr", address, "--port", "10809",
             "file", f"dir={self.store.exports}"]
        )  # fmt: skip

    def services(self, lease: int) -> subprocess.Popen[bytes]:
        """DHCP and the sink for reports, which write to ``log``."""
        script = Path(__file__).with_name("station_services.py")
        return self.start(
            [
                sys.executable,
                str(script),
                str(self.log),
                str(lease),
                ADDRESS,
                *SERVERS[:1],
                *SERVERS,
            ]
        )

    def boot(
        self, command_line: str, *, mac: str = MAC, card: str = "virtio-net-pci", memory: int = 512
    ) -> subprocess.Popen[bytes]:
        """Switch the station on. ``card`` is QEMU's name of its network card, ``memory`` in MiB."""
        return self.start(
            ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=128",
             "-cpu", "qemu64", "-smp", "1", "-m", str(memory),
             "-display", "none", "-monitor", "none",
             "-kernel", str(self.store.path(self.digest, "vmlinuz")),
             "-initrd", str(self.store.path(self.digest, "initrd.img")),
             "-append", f"{command_line} console=ttyS0,115200",
             "-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no",
             "-device", f"{card},netdev=n0,mac={mac},romfile=",
             "-device", "virtio-serial",
             "-chardev", f"file,id=events,path={self.events}",
             "-device", "virtserialport,chardev=events,name=ets.event",
             "-chardev", f"file,id=reads,path={self.reads}",
             "-device", "virtserialport,chardev=reads,name=ets.probe",
             "-serial", f"file:{self.console}", "-no-reboot"]
        )  # fmt: skip

    @property
    def command_line(self) -> str:
        """What the boot script of a server would say."""
        return (
            f"ets.servers={','.join(SERVERS)} ets.root={self.manifest.roothash} "
            f"ets.blocks={self.manifest.blocks} ets.digest={self.digest} {self.address_words}"
        )

    @property
    def address_words(self) -> str:
        """``ip=`` and ``BOOTIF=``, with the firmware's name of the card, which Linux renames."""
        words = f"{ADDRESS}::{SERVERS[0]}:255.255.252.0:ws01:eth0:off"
        return f"ip={words} BOOTIF=01-{MAC.replace(':', '-')}"

    def await_login(self, seconds: float = 240) -> dict[str, Any]:
        """The station's own word that it offers a login."""
        wait_for(
            "the station's login", lambda: self._lines(self.events), Deadline(seconds), every=0.5
        )
        return self._lines(self.events)[0]

    def await_console(self, text: str, seconds: float = 120) -> None:
        """Wait until ``text`` stands on the station's console."""
        wait_for(f"{text!r} on the console", lambda: text in self.said(), Deadline(seconds))

    def said(self) -> str:
        """All of the console."""
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def records(self, what: str) -> list[dict[str, Any]]:
        """The records of that kind in the services' log."""
        return [record for record in self._lines(self.log) if record["what"] == what]

    def read_blocks(self) -> list[dict[str, Any]]:
        """What the station's probe has read so far."""
        return self._lines(self.reads)

    def await_reads(self, more: int, seconds: float = 60) -> list[dict[str, Any]]:
        """Wait for ``more`` reads beyond those of now; returns the new ones."""
        before = len(self.read_blocks())
        wait_for(
            f"{more} more reads",
            lambda: len(self.read_blocks()) >= before + more,
            Deadline(seconds),
        )
        return self.read_blocks()[before:]

    def wrong_reads(self) -> list[dict[str, Any]]:
        """Reads that failed or gave something else than the image holds."""
        wrong = []
        with self.store.path(self.digest, "root.img").open("rb") as image:
            for read in self.read_blocks():
                image.seek(read["block"] * 4096)
                expected = hashlib.sha256(image.read(4096)).hexdigest()
                if read["err"] != 0 or read["sum"] != expected:
                    wrong.append(read)
        return wrong

    @staticmethod
    def _lines(path: Path) -> list[dict[str, Any]]:
        if not path.exists():
            return []
        complete = path.read_text(errors="replace").rpartition("\n")[0]
        return [json.loads(line) for line in complete.splitlines() if line.strip()]
