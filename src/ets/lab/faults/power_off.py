"""power-off: the plug is pulled. Nothing more comes from the server, not even a reset."""

from __future__ import annotations

from typing import Any

from ets.lab.server import LabServer

ABOUT = "links gone first, then every process: no packet says good-bye"


def inject(server: LabServer) -> dict[str, Any]:
    """Links first, so that what the dying kernel would send stays inside."""
    server.topology.set_cable(server.server, server.topology.roles(server.server), plugged=False)
    server.container.kill()
    # Its kernel's memory of connections goes with it.
    server.topology.unplug_server(server.server)
    return {}


def heal(server: LabServer, memory: dict[str, Any]) -> None:
    """Boot it again, with the disk that it had."""
    if not server.container.running:
        server.topology.unplug_server(server.server)
    server.boot_again()
