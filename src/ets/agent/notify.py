"""systemd's notification protocol, as much of it as an agent needs (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket


class Notifier:
    """Whoever started us, where that was systemd. Read once, and taken out of the environment, so
    that no program that we run speaks in our name."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        told = os.environ.pop("WATCHDOG_USEC", "")
        for_us = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        #: seconds between two signs of life, half of what was asked for; None: nobody asked
        self.every = int(told) / 2e6 if told.isdigit() and for_us and int(told) > 0 else None

    def __call__(self, *lines: str) -> None:
        """Tell it; a lost message is no error."""
        if not self._address.startswith(("/", "@")):
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(address)
            sock.sendall("\n".join(lines).encode())
