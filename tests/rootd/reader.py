"""A station without a kernel: the helper on one end of a socket pair (``--fd``), and on the other
a reader that speaks NBD like the kernel and compares every byte with the image."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
import subprocess
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from _rootrig import Image, Rig, now
from ets.host.deadline import Deadline, wait_for

REQUEST, REPLY = 0x25609513, 0x67446698
READ, DISCONNECT, FLUSH = 0, 2, 3
TORN_DOWN = "signal 9"


@dataclass(slots=True)
class Pending:
    """A request on its way."""

    offset: int
    length: int
    sent: float
    done: Future[float]


@dataclass(frozen=True, slots=True)
class Done:
    """A finished read: when it was asked for, and how long it took. Seconds."""

    sent: float
    took: float


class Station:
    """The helper under test. ``wrong`` and ``errors`` count what must never happen."""

    def __init__(
        self,
        programs: Path,
        image: Image,
        servers: str,
        *,
        rig: Rig | None = None,
        options: tuple[str, ...] = (),
        folder: Path,
    ) -> None:
        self.image = image
        self.data = image.path.read_bytes()
        self.span = len(self.data) if "--with-tree" in options else image.size
        self.done: list[Done] = []
        self.wrong: list[tuple[int, int]] = []
        self.errors: list[int] = []
        self._stats = folder / "rootd.json"
        self._log = folder / "rootd.log"
        self._pending: dict[int, Pending] = {}
        self._lock = threading.Lock()
        self._loading = threading.Event()
        self._loaders: list[threading.Thread] = []
        self._next = 0
        ours, theirs = socket.socketpair()
        self._socket = ours
        argv = [str(programs / "rootd"), "--fd", str(theirs.fileno()), "--root", image.roothash,
                "--blocks", str(image.blocks), "--servers", servers,
                "--stats", str(self._stats), *options]  # fmt: skip
        alone = ["setpriv", "--pdeathsig", "KILL", *argv]
        with theirs, self._log.open("wb") as log:
            self.process = subprocess.Popen(
                rig.wire.entering(argv) if rig else alone,
                pass_fds=[theirs.fileno()],
                stderr=log,
                env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
            )
        threading.Thread(target=self._receive, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unload()
        # only our half: a read that is still under way must find somebody to answer to
        self._socket.shutdown(socket.SHUT_WR)
        try:
            status = self.process.wait(10)
        finally:
            for pid in self.data_processes():
                os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()
            self._socket.close()
        if kind is None:
            assert status == 0, self.log
            assert "Sanitizer" not in self.log
            assert "runtime error" not in self.log
            assert not self.wrong
            assert not self.errors

    @property
    def log(self) -> str:
        """What the helper has logged."""
        return self._log.read_text(errors="replace")

    def stats(self) -> dict[str, Any]:
        """The helper's own counts; waits until they are younger than this call."""
        before = self._stats.stat().st_mtime_ns
        wait_for("stats", lambda: self._stats.stat().st_mtime_ns != before, Deadline(10))
        found: dict[str, Any] = json.loads(self._stats.read_text())
        return found

    def state(self, index: int) -> str:
        """The state of one server."""
        return str(self.stats()["servers"][index]["state"])

    def wait_state(self, index: int, state: str, seconds: float = 15) -> None:
        """Waits for a server's state."""
        wait_for(f"server {index} {state}", lambda: self.state(index) == state, Deadline(seconds))

    def data_processes(self) -> list[int]:
        """The helper's children: the data process."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return [int(pid) for pid in children.read_text().split()]
        except OSError:
            return []

    def send(self, kind: int, offset: int, length: int) -> Future[float]:
        """Asks; the future's result is how long it took."""
        with self._lock:
            self._next += 1
            handle = self._next
            done: Future[float] = Future()
            self._pending[handle] = Pending(offset, length, now(), done)
            self._socket.sendall(struct.pack(">IHHQQI", REQUEST, 0, kind, handle, offset, length))
        return done

    def read(self, offset: int, length: int, timeout: float = 30) -> float:
        """Reads and compares; returns the seconds it took."""
        return self.send(READ, offset, length).result(timeout)

    def read_some(self, count: int, seed: int = 0) -> list[float]:
        """Random reads one after the other."""
        choice = random.Random(seed)
        return [self.read(*self._somewhere(choice)) for _ in range(count)]

    def load(self, readers: int = 4, seed: int = 0) -> None:
        """Keeps that many random reads under way until ``unload``."""
        self._loading.set()
        for number in range(readers):
            thread = threading.Thread(
                target=self._load, args=(random.Random(f"{seed}/{number}"),), daemon=True
            )
            thread.start()
            self._loaders.append(thread)

    def unload(self) -> None:
        """Stops the load; the reads under way are waited for no longer."""
        self._loading.clear()
        for thread in self._loaders:
            thread.join(1)
        self._loaders.clear()

    def longest(self, since: float) -> float:
        """The longest read that was under way since then, finished or not."""
        with self._lock:
            waiting = [now() - pending.sent for pending in self._pending.values()]
            done = [read.took for read in self.done if read.sent + read.took >= since]
        return max(waiting + done, default=0)

    def _somewhere(self, choice: random.Random) -> tuple[int, int]:
        length = choice.choice([512, 4096, 4096, 16384, 65536, 131072, 131072, 1 << 20])
        length = min(length, self.span)
        return choice.randrange(0, (self.span - length) // 512 + 1) * 512, length

    def _load(self, choice: random.Random) -> None:
        while self._loading.is_set():
            done = self.send(READ, *self._somewhere(choice))
            while self._loading.is_set():
                try:
                    done.result(0.5)
                    break
                except TimeoutError:
                    continue

    def _receive(self) -> None:
        try:
            with self._socket.makefile("rb", buffering=1 << 20) as stream:
                while header := stream.read(16):
                    self._take(header, stream.read)
        except OSError:
            return

    def _take(self, header: bytes, more: Any) -> None:
        magic, error, handle = struct.unpack(">IIQ", header)
        with self._lock:
            pending = self._pending.pop(handle, None) if magic == REPLY else None
        if pending is None:
            self.errors.append(-1)
            raise OSError
        if error:
            self.errors.append(error)
        elif more(pending.length) != self.data[pending.offset : pending.offset + pending.length]:
            self.wrong.append((pending.offset, pending.length))
        took = now() - pending.sent
        with self._lock:
            self.done.append(Done(pending.sent, took))
        pending.done.set_result(took)
