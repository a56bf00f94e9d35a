"""corrupt-block: the server's copies of the images have flipped bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ets import paths
from ets.errors import LabError
from ets.lab.server import LabServer

ABOUT = "one byte in every 8th block (every=...) of this server's images is flipped"

_BLOCK = 4096


def inject(server: LabServer, *, every: int = 8) -> dict[str, Any]:
    """Flips bits in the files' page cache and on disk alike; readers see it at once."""
    exports = _exports(server)
    if not exports:
        raise LabError(f"{server.name} has no images", hint="was the lab brought up with images?")
    memory: dict[str, Any] = {"every": every, "bytes": {}}
    for path in exports:
        memory["bytes"][path.name] = _flip(path, every).hex()
    return memory


def heal(server: LabServer, memory: dict[str, Any]) -> None:
    """Put back what was there, where it is still wrong: the server may have mended itself."""
    for path in _exports(server):
        if path.name in memory.get("bytes", {}):
            _restore(path, memory["every"], bytes.fromhex(memory["bytes"][path.name]))


def _exports(server: LabServer) -> list[Path]:
    directory = server.files / (paths.IMAGES / "exports").as_posix().lstrip("/")
    return sorted(path for path in directory.glob("*") if path.is_file())


def _flip(path: Path, every: int) -> bytes:
    """Flip the middle byte of every ``every``-th block; returns the bytes as they were."""
    before = bytearray()
    with path.open("r+b", buffering=0) as file:
        for offset in _offsets(path, every):
            byte = os.pread(file.fileno(), 1, offset)
            before += byte
            os.pwrite(file.fileno(), bytes([byte[0] ^ 0xFF]), offset)
    return bytes(before)


def _restore(path: Path, every: int, before: bytes) -> None:
    with path.open("r+b", buffering=0) as file:
        for offset, byte in zip(_offsets(path, every), before, strict=False):
            if os.pread(file.fileno(), 1, offset) == bytes([byte ^ 0xFF]):
                os.pwrite(file.fileno(), bytes([byte]), offset)


def _offsets(path: Path, every: int) -> range:
    return range(_BLOCK // 2, path.stat().st_size, _BLOCK * every)
