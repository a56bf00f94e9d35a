"""power-off: the plug is pulled. Nothing more comes from the server, not even a reset."""

from __future__ import annotations

from typing import Any

from ets.lab.server import LabServer

ABOUT = "links gone first, then every process: no packet says good-bye"


def inject(server: LabServer) -> dict[str, Any]:
    """What its dying kernel would send stays inside."""
    server.power_off()
    return {}


def heal(server: LabServer, memory: dict[str, Any]) -> None:
    """Boot it again, with the disk that it had."""
    if not server.running:
        server.power_off()
    server.boot_again()
