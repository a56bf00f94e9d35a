"""systemd's notification protocol, as much of it as an agent needs (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(*lines: str) -> None:
    """Tell systemd, where there is one; a lost message is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
        sock.sendall("\n".join(lines).encode())


def watchdog() -> float | None:
    """Seconds between two signs of life: half of what systemd asked for; None when it did not."""
    told = os.environ.get("WATCHDOG_USEC", "")
    for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(told) / 2_000_000 if told.isdigit() and for_us and int(told) > 0 else None
