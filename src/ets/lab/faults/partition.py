"""partition: the server is cut off from all other servers, on every network; stations and the
server still reach each other."""

from __future__ import annotations

from typing import Any

from ets.lab.server import LabServer

ABOUT = "no packet between this server and the others; stations reach all of them"


def inject(server: LabServer) -> dict[str, Any]:
    """The switches drop what would go between the servers' ports."""
    server.topology.separate(server.server)
    return {}


def heal(server: LabServer, memory: dict[str, Any]) -> None:
    """Let them see each other again."""
    server.topology.join(server.server)
