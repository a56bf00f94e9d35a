"""One program on every console of this machine: what it prints appears on all of them, and keys
are taken from any. So whoever stands before the machine, or sits at its serial line, sees the
installation and can answer it.

``python3 -m ets.clone.consoles PROGRAM …`` is what an installer's unit runs. It ends a while after
the program did, or at a key, and is started again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ACTIVE = Path("/sys/class/tty/console/active")
#: seconds after which a program that failed is started again unless somebody presses a key
AGAIN = 30.0
#: lines and columns: what a serial line has when nobody says otherwise
SIZE = (24, 80)
SHELL = ("/bin/bash", "--login")
#: bytes that wait for a slow console; what is older is lost to it
BEHIND = 64 * 1024

_ENDED = (
    "\r\n\r\nIt ended with status {status}. Enter starts it again, s gives a shell"
    " (after {seconds:.0f} s it is started again by itself).\r\n"
)


def devices(active: str) -> tuple[str, ...]:
    """The device files of the consoles that the kernel uses (``ACTIVE``'s content), without a
    doublet. ``tty0`` is whichever virtual terminal is shown: the first one."""
    names = ["tty1" if name == "tty0" else name for name in active.split()]
    return tuple(f"/dev/{name}" for name in dict.fromkeys(names)) or ("/dev/console",)


class Consoles:
    """Open consoles. A slow one gets everything later, one that is held up loses the oldest, and
    none is ever waited for."""

    def __init__(self, files: Sequence[int]) -> None:
        self._pending = {file: bytearray() for file in files}
        self._listening = set(files)

    def show(self, text: bytes) -> None:
        """Write to all of them."""
        for file, pending in self._pending.items():
            pending.extend(text)
            del pending[:-BEHIND]
            self._write(file)

    def wait(self, terminal: int | None, seconds: float | None) -> tuple[bool, bytes]:
        """Wait until ``terminal`` can be read or a key was pressed; which of both, and the keys.
        Neither after ``seconds``."""
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            behind = [file for file, pending in self._pending.items() if pending]
            readable = [*self._listening, *([] if terminal is None else [terminal])]
            ready, writable, _ = select.select(readable, behind, [], left)
            for file in writable:
                self._write(file)
            keys = b"".join(self._keys(file) for file in self._listening.intersection(ready))
            if keys or terminal in ready or left == 0.0:
                return terminal in ready, keys

    def flush(self, seconds: float) -> None:
        """Give slow ones so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            behind = [file for file, pending in self._pending.items() if pending]
            if not behind:
                return
            _, writable, _ = select.select([], behind, [], left)
            for file in writable:
                self._write(file)

    def _write(self, file: int) -> None:
        pending = self._pending[file]
        try:
            del pending[: os.write(file, pending)]
        except BlockingIOError:
            return
        except OSError:  # hung up
            pending.clear()

    def _keys(self, file: int) -> bytes:
        keys = _read(file)
        if not keys:
            self._listening.discard(file)
        return keys


@contextmanager
def opened(paths: Sequence[str]) -> Iterator[Consoles]:
    """The consoles that can be opened, raw; as they were again at the end."""
    before: dict[int, list[object]] = {}
    for path in paths:
        with contextlib.suppress(OSError, termios.error):
            # A line without a carrier must not hold up the others.
            file = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            try:
                modes = termios.tcgetattr(file)
                tty.setraw(file, termios.TCSANOW)
                before[file] = modes
            except termios.error:
                os.close(file)
    consoles = Consoles(list(before))
    try:
        yield consoles
    finally:
        consoles.flush(1.0)
        for file, modes in before.items():
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(file, termios.TCSANOW, modes)  # type: ignore[arg-type]
            os.close(file)


def play(argv: Sequence[str], consoles: Consoles) -> int:
    """Run ``argv`` in a terminal of its own that all ``consoles`` show; returns its status
    (negative: the signal that ended it)."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execvp(argv[0], list(argv))  # noqa: S606
        except OSError as error:
            os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(127)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
    try:
        while True:
            printed, keys = consoles.wait(terminal, None)
            if keys:
                os.write(terminal, keys)
            if printed:
                text = _read(terminal)
                if not text:
                    break
                consoles.show(text)
    finally:
        os.close(terminal)
        _, ended = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(ended)


def run(argv: Sequence[str], paths: Sequence[str], again: float = AGAIN) -> int:
    """Run ``argv`` once on the consoles at ``paths``; after a failure a person may ask for a
    shell. Returns its status, at most ``again`` seconds after its end."""
    with opened(paths) as consoles:
        status = play(argv, consoles)
        if status == 0:
            # It has said itself what comes next, such as a restart.
            consoles.flush(again)
            time.sleep(again)
            return status
        while True:
            consoles.show(_ENDED.format(status=status, seconds=again).encode())
            _, keys = consoles.wait(None, again)
            if keys[:1] != b"s":
                return status
            play(SHELL, consoles)


def _read(file: int) -> bytes:
    """What is there; nothing when the other side is gone."""
    try:
        return os.read(file, 65536)
    except OSError:  # EIO: the last process of a terminal has ended, or a line was hung up
        return b""


def main() -> None:
    """Entry point."""
    active = ACTIVE.read_text() if ACTIVE.exists() else ""
    sys.exit(abs(run(sys.argv[1:], devices(active))) & 0xFF)


if __name__ == "__main__":
    main()
