"""A network of real nbdkit servers and a station that reads from them: for the root helper's
tests and measurements.

Everything lives in network namespaces without a name, held by processes that die with this one,
so nothing can be left behind. Servers are 10.99.0.11 and up on one bridge.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ets.host.deadline import Deadline, wait_for
from ets.host.run import run

BLOCK = 4096
PORT = 10809
HERE = Path(__file__).parent
STATION = HERE.parent / "station"


@dataclass(frozen=True, slots=True)
class Image:
    """An image file: ``blocks`` data blocks, then their hash tree."""

    path: Path
    blocks: int
    roothash: str

    @property
    def size(self) -> int:
        """Bytes of data."""
        return self.blocks * BLOCK


def make_image(path: Path, blocks: int, seed: int = 0) -> Image:
    """Random data (the same for one seed) with veritysetup's tree behind it."""
    data = b"".join(
        hashlib.shake_128(f"{seed}/{i}".encode()).digest(min(1 << 20, (blocks << 12) - i))
        for i in range(0, blocks << 12, 1 << 20)
    )
    path.write_bytes(data)
    if blocks == 1:  # veritysetup makes no tree for one block: its digest is the root hash
        return Image(path, blocks, hashlib.sha256(data).hexdigest())
    done = run(
        ["veritysetup", "format", "--no-superblock", "--salt", "-", "--data-blocks", str(blocks),
         "--hash-offset", str(blocks * BLOCK), str(path), str(path)]
    )  # fmt: skip
    line = next(line for line in done.text.splitlines() if line.startswith("Root hash:"))
    return Image(path, blocks, line.split()[-1])


def build(check: bool = False) -> Path:
    """Builds the helper (with the sanitizers for ``check``) and names the folder it is in."""
    make = ["make", "-s", "-C", str(STATION), *(["check"] if check else ["all"])]
    run(["flock", str(STATION / "Makefile"), *make], deadline=300)  # tests run side by side
    return STATION / "build" / ("check" if check else ".")


class Namespace:
    """A network namespace that lasts as long as its holder process."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"]
        )
        own = Path("/proc/self/ns/net").readlink()
        there = Path(f"/proc/{self.pid}/ns/net")
        wait_for("a namespace", lambda: there.readlink() != own, Deadline(10), every=0.01)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        """The holder's process id; ``ip link set … netns PID`` takes it."""
        return self._holder.pid

    def entering(self, argv: Sequence[str]) -> list[str]:
        """The command that runs ``argv`` in here, and dies with this process."""
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/proc/{self.pid}/ns/net",
                *argv]  # fmt: skip

    def run(self, *argv: str, check: bool = True) -> None:
        """Run a command in here to its end."""
        run(self.entering(argv), check=check)

    def ip(self, arguments: str) -> None:
        """Run ``ip`` with these arguments in here."""
        self.run("ip", *arguments.split())

    def close(self) -> None:
        """The namespace goes when its last process is gone."""
        self._holder.kill()
        self._holder.wait()


class Server:
    """One nbdkit in a namespace of its own, with a folder of exports of its own."""

    def __init__(self, wire: Namespace, index: int, exports: Path) -> None:
        self.index = index
        self.address = f"10.99.0.{11 + index}"
        self.exports = exports
        exports.mkdir(parents=True, exist_ok=True)
        self._wire = wire
        self._port = f"s{index}"
        self._process: subprocess.Popen[bytes] | None = None
        self.net = Namespace()
        wire.ip(f"link add {self._port} type veth peer name eth0 netns {self.net.pid}")
        wire.ip(f"link set {self._port} master br0 up")
        self.net.ip(f"address add {self.address}/24 dev eth0")
        self.net.ip("link set eth0 up")

    def give(self, image: Image) -> Path:
        """Puts a copy of the image into the exports, under its root hash."""
        target = self.exports / image.roothash
        target.write_bytes(image.path.read_bytes())
        return target

    def start(self, delay_ms: int = 0) -> None:
        """Starts nbdkit and waits until it listens; each read is delayed by ``delay_ms``."""
        slow = ["--filter=delay"] if delay_ms else []
        self._process = subprocess.Popen(
            self.net.entering(
                ["nbdkit", "-f", "-r", "-p", str(PORT), "-t", "64", *slow, "file",
                 f"dir={self.exports}", *([f"rdelay={delay_ms}ms"] if delay_ms else [])]
            ),
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        listening = Path(f"/proc/{self.net.pid}/net/tcp6")
        wait_for(
            "nbdkit to listen",
            lambda: f":{PORT:04X} " in listening.read_text() and " 0A " in listening.read_text(),
            Deadline(20),
            every=0.02,
        )

    def kill(self) -> None:
        """SIGKILL: its kernel resets the connections."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def unplug(self) -> None:
        """Nothing arrives any more, and nobody says so."""
        self._wire.ip(f"link set {self._port} down")

    def plug(self) -> None:
        """The cable is back."""
        self._wire.ip(f"link set {self._port} up")

    def restart(self, delay_ms: int = 0) -> None:
        """Kill and start."""
        self.kill()
        self.start(delay_ms)

    def close(self) -> None:
        """Ends it for good."""
        self.resume()
        self.kill()
        self.net.close()


class Rig:
    """The wire and its servers, as a context."""

    def __init__(self, folder: Path, servers: int) -> None:
        self.folder = folder
        self.wire = Namespace()
        self.wire.ip("link add br0 type bridge")
        self.wire.ip("address add 10.99.0.1/24 dev br0")
        self.wire.ip("link set br0 up")
        self.servers = [Server(self.wire, i, folder / f"exports{i}") for i in range(servers)]

    @property
    def addresses(self) -> str:
        """The servers as the helper wants them."""
        return ",".join(server.address for server in self.servers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in self.servers:
            server.close()
        self.wire.close()


def cache() -> Path:
    """Where things fetched from Debian are kept."""
    return Path(os.environ.get("ETS_CACHE", "/var/cache/ets"))


def now() -> float:
    """Seconds on the monotonic clock."""
    return time.monotonic()
