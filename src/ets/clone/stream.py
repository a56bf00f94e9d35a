"""One connection, many parts: frames between the two ends of a copy, and bytes that pass through
without ever being in Python's hands (splice(2)).

A frame is a letter, a length (four bytes, big endian) and that many bytes. Every part ends with a
frame of its own, so a connection that breaks is never taken for the end of one.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import json
import os
import select
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ets.errors import CloneError

_HEAD = struct.Struct(">cI")
#: longest frame that is read into memory
_LONGEST = 1 << 24
PIPE = 1 << 20

DATA = b"D"
#: paths to remove; directories that lose their attributes; flags and paths; digests and paths
REMOVE, RESET, FLAGS, HAVE = b"L", b"X", b"F", b"H"
#: JSON: an order, news, the end of a part
ORDER, NEWS, END = b"O", b"J", b"E"
#: nothing happens, but somebody is there
ALIVE = b"P"


def widen(descriptor: int) -> None:
    """A pipe that holds more, so that both ends work in longer strokes."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE)


def waiting(descriptor: int) -> int:
    """How many bytes can be read at once."""
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


def move(source: int, target: int, length: int) -> None:
    """Exactly ``length`` bytes from one descriptor to the other. Raises EOFError, OSError."""
    while length:
        try:
            moved = os.splice(source, target, length)
        except OSError as error:
            if error.errno != errno.EINVAL:  # neither end is a pipe
                raise
            piece = os.read(source, min(length, PIPE))
            write_all(target, piece)
            moved = len(piece)
        if not moved:
            raise EOFError
        length -= moved


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class Sender:
    """The writing end. Frames of several threads do not mix. Raises OSError when nobody reads."""

    def __init__(self, descriptor: int) -> None:
        self._out = descriptor
        self._lock = threading.Lock()
        self.sent = 0
        widen(descriptor)

    def send(self, kind: bytes, data: bytes = b"") -> None:
        """One frame; more of the same kind when it is long."""
        for at in range(0, len(data) or 1, PIPE):
            piece = data[at : at + PIPE]
            with self._lock:
                write_all(self._out, _HEAD.pack(kind, len(piece)) + piece)
                self.sent += _HEAD.size + len(piece)

    def tell(self, kind: bytes, **what: Any) -> None:
        """A frame of JSON."""
        self.send(kind, json.dumps(what).encode())

    def paths(self, kind: bytes, paths: tuple[bytes, ...]) -> None:
        """Paths, in frames that hold whole ones."""
        for at in range(0, len(paths), 4096):
            self.send(kind, b"".join(path + b"\0" for path in paths[at : at + 4096]))

    def pump(self, source: int) -> int:
        """Everything that comes from the pipe ``source``, as data frames; how many bytes."""
        total = 0
        while True:
            select.select([source], [], [])
            ready = waiting(source)
            if not ready:
                return total
            with self._lock:
                write_all(self._out, _HEAD.pack(DATA, ready))
                move(source, self._out, ready)
                self.sent += _HEAD.size + ready
            total += ready

    @contextlib.contextmanager
    def alive(self, every: float = 5.0) -> Iterator[None]:
        """Say that somebody is there while the work inside goes on."""
        over = threading.Event()

        def tell() -> None:
            while not over.wait(every):
                with contextlib.suppress(OSError):
                    self.send(ALIVE)

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()


class Receiver:
    """The reading end. ``stall``: seconds of silence after which the other end counts as gone.

    Every method raises CloneError when it is gone.
    """

    def __init__(self, descriptor: int, *, stall: float = 60.0, who: str = "the primary") -> None:
        self._in = descriptor
        self._stall = stall
        self._who = who
        self.got = 0
        widen(descriptor)

    def head(self) -> tuple[bytes, int]:
        """The next frame's kind and length; its bytes are still to be taken."""
        kind, length = _HEAD.unpack(self.take(_HEAD.size))
        return kind, length

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        if length > _LONGEST:
            raise CloneError(f"{self._who} sends something that is no copy")
        data = b""
        while len(data) < length:
            self._wait()
            piece = os.read(self._in, length - len(data))
            if not piece:
                raise self.gone()
            data += piece
        self.got += length
        return data

    def json(self, length: int) -> dict[str, Any]:
        """The next ``length`` bytes as JSON."""
        try:
            read = json.loads(self.take(length))
        except ValueError as error:
            raise CloneError(f"{self._who} sends something that is no copy") from error
        return dict(read)

    def pass_to(self, target: int, length: int) -> None:
        """``length`` bytes go to ``target`` as they come. Raises OSError when that is closed."""
        while length:
            self._wait()
            part = min(length, waiting(self._in) or 1)
            try:
                move(self._in, target, part)
            except EOFError:
                raise self.gone() from None
            self.got += part
            length -= part

    def gone(self) -> CloneError:
        """The error that says so."""
        return CloneError(
            f"the connection to {self._who} broke in the middle of the copy",
            hint="nothing is lost: start it again, it continues where it was",
        )

    def _wait(self) -> None:
        ready, _, _ = select.select([self._in], [], [], self._stall)
        if not ready:
            raise CloneError(
                f"{self._who} has sent nothing for {self._stall:g} s",
                hint="is it still running? Start the copy again, it continues where it was",
            )


class Filter:
    """A program between two pipes, and a thread that counts what comes out of it."""

    def __init__(self, argv: list[str], target: int, counted: Callable[[int], None]) -> None:
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        pipes = self._process.stdin, self._process.stdout
        if pipes[0] is None or pipes[1] is None:
            raise CloneError(f"{argv[0]} has no pipes")
        self._stdin, self._stdout = pipes[0], pipes[1]
        widen(self._stdin.fileno())
        widen(self._stdout.fileno())
        self._thread = threading.Thread(target=self._pump, args=(target, counted), daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Where to write to."""
        return self._stdin.fileno()

    def _pump(self, target: int, counted: Callable[[int], None]) -> None:
        source = self._stdout.fileno()
        with contextlib.suppress(OSError, EOFError):
            while True:
                select.select([source], [], [])
                ready = waiting(source)
                if not ready:
                    break
                move(source, target, ready)
                counted(ready)
        self._stdout.close()

    def close(self, *, kill: bool = False) -> int:
        """End it, once everything has passed or at once; its exit status."""
        if kill:
            self._process.kill()
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._thread.join()
        return self._process.wait()
