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

_ENDED = (
    "\r\n\r\nIt ended with status {status}. Enter starts it again, s gives a shell"
    " (after {seconds:.0f} s it is started again by itself).\r\n"
)


def devices(active: str) -> tuple[str, ...]:
    """The device files of the consoles that the kernel uses (``ACTIVE``'s content), without a
    doublet. ``tty0`` is whichever virtual terminal is shown: the first one."""
    names = ["tty1" if name == "tty0" else name for name in active.split()]
    return tuple(f"/dev/{name}" for name in dict.fromkeys(names)) or ("/dev/console",)


@contextmanager
def opened(paths: Sequence[str]) -> Iterator[list[int]]:
    """The consoles that can be opened, raw; as they were again at the end."""
    before: dict[int, list[object]] = {}
    for path in paths:
        with contextlib.suppress(OSError, termios.error):
            # A line without a carrier must not hold up the others.
            file = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            before[file] = termios.tcgetattr(file)
            tty.setraw(file, termios.TCSANOW)
    try:
        yield list(before)
    finally:
        for file, modes in before.items():
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(file, termios.TCSANOW, modes)  # type: ignore[arg-type]
            os.close(file)


def play(argv: Sequence[str], consoles: Sequence[int]) -> int:
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
    listening = set(consoles)
    try:
        while True:
            ready, _, _ = select.select([terminal, *listening], [], [])
            if terminal in ready:
                text = _read(terminal)
                if not text:
                    break
                show(text, consoles)
            for console in listening.intersection(ready):
                keys = _read(console)
                if keys:
                    os.write(terminal, keys)
                else:
                    listening.discard(console)
    finally:
        os.close(terminal)
        _, ended = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(ended)


def show(text: bytes, consoles: Sequence[int]) -> None:
    """Write to all consoles; one that takes nothing (a line that is held) misses it."""
    for console in consoles:
        with contextlib.suppress(OSError):
            os.write(console, text)


def key(consoles: Sequence[int], seconds: float) -> bytes:
    """The first key pressed on any console within ``seconds``, else nothing."""
    end = time.monotonic() + seconds
    listening = set(consoles)
    while listening and (left := end - time.monotonic()) > 0:
        ready, _, _ = select.select(list(listening), [], [], left)
        for console in ready:
            pressed = _read(console)
            if pressed:
                return pressed[:1]
            listening.discard(console)
    if not listening:
        time.sleep(max(0.0, end - time.monotonic()))
    return b""


def run(argv: Sequence[str], paths: Sequence[str], again: float = AGAIN) -> int:
    """Run ``argv`` once on the consoles at ``paths``; at the end a person may ask for a shell.
    Returns its status."""
    with opened(paths) as consoles:
        status = play(argv, consoles)
        while True:
            show(_ENDED.format(status=status, seconds=again).encode(), consoles)
            if key(consoles, again) != b"s":
                return status
            play(SHELL, consoles)


def _read(file: int) -> bytes:
    """What is there; nothing when the other side is gone."""
    try:
        return os.read(file, 65536)
    except BlockingIOError:
        return b""
    except OSError:  # EIO: the last process of a terminal has ended, or a line was hung up
        return b""


def main() -> None:
    """Entry point."""
    active = ACTIVE.read_text() if ACTIVE.exists() else ""
    sys.exit(abs(run(sys.argv[1:], devices(active))) & 0xFF)


if __name__ == "__main__":
    main()
