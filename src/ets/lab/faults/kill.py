"""kill: kill -9 of everything on the server. Its kernel lives on and resets connections."""

from __future__ import annotations

from typing import Any

from ets.lab.server import LabServer

ABOUT = "SIGKILL for every process; the kernel goes on and answers with resets"


def inject(server: LabServer, *, in_flight: float = 0.0) -> dict[str, Any]:
    """``in_flight``: seconds that everything is stopped before, so that requests are certainly
    being waited for when the server dies."""
    server.kill(in_flight)
    return {}


def heal(server: LabServer, memory: dict[str, Any]) -> None:
    """Boot it again, with the disk that it had."""
    server.boot_again()
