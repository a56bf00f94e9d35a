"""A person at a station's serial line."""

from __future__ import annotations

import os
import select
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ets.errors import LabError

#: Ctrl-], as telnet has it
LEAVE = b"\x1d"


def attach(path: Path) -> None:
    """Connect this terminal to the serial line at ``path`` until Ctrl-] or the end of input.

    Raises LabError when the station is off or somebody else is at its line.
    """
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(5)
        try:
            line.connect(str(path))
        except OSError as error:
            raise LabError(
                f"station {path.parent.name} has no serial line: {error.strerror}",
                hint="is it on? (ets lab status)",
            ) from error
        line.settimeout(None)
        with _raw(sys.stdin.fileno()):
            _pump(line, sys.stdin.fileno(), sys.stdout.fileno())


def _pump(line: socket.socket, keys: int, screen: int) -> None:
    while True:
        ready, _, _ = select.select([line.fileno(), keys], [], [])
        if line.fileno() in ready:
            data = line.recv(4096)
            if not data:
                return
            os.write(screen, data)
        if keys in ready:
            data = os.read(keys, 1024)
            if not data or LEAVE in data:
                return
            line.sendall(data)


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Pass every key on, also Ctrl-C; nothing to do when it is no terminal."""
    if not os.isatty(terminal):
        yield
        return
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
