"""hang: every process stands still, as after SIGSTOP. A container's kernel still acknowledges
packets; a machine's stands still with them."""

from __future__ import annotations

from typing import Any

from ets.lab.server import LabServer

ABOUT = "every process stopped; connections stay open and silent"


def inject(server: LabServer) -> dict[str, Any]:
    """All at once."""
    server.freeze()
    return {}


def heal(server: LabServer, memory: dict[str, Any]) -> None:
    """Let everything go on where it stood."""
    server.thaw()
