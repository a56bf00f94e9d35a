"""corrupt-block: the server's copies of the images have flipped bytes."""

from __future__ import annotations

import json
from typing import Any

from ets import paths
from ets.errors import LabError
from ets.lab.server import LabServer

ABOUT = "one byte in every 8th block (every=...) of this server's images is flipped"

_PROGRAM = "ets.lab.flip"
_EXPORTS = f"{paths.IMAGES}/exports"


def inject(server: LabServer, *, every: int = 8) -> dict[str, Any]:
    """Flipped where they lie, by a program on the server."""
    memory: dict[str, Any] = json.loads(server.program(_PROGRAM, "flip", str(every), _EXPORTS))
    if not memory["bytes"]:
        raise LabError(f"{server.name} has no images", hint="was the lab brought up with images?")
    return memory


def heal(server: LabServer, memory: dict[str, Any]) -> None:
    """Put back what was there, where it is still wrong: the server may have mended itself."""
    if memory:
        server.program(_PROGRAM, "restore", _EXPORTS, stdin=json.dumps(memory).encode())
