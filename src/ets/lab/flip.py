"""Flips bytes of files and puts them back: ``python3 -m ets.lab.flip``, run on a lab's server.

``flip EVERY DIRECTORY`` flips the middle byte of every so many blocks of each file there and prints
what they were, as JSON; ``restore DIRECTORY`` takes that on standard input. Bytes are changed in
the page cache and on disk alike; readers see it at once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

_BLOCK = 4096


def flip(path: Path, every: int) -> bytes:
    """Flip the middle byte of every ``every``-th block; returns the bytes as they were."""
    before = bytearray()
    with path.open("r+b", buffering=0) as file:
        for offset in _offsets(path, every):
            byte = os.pread(file.fileno(), 1, offset)
            before += byte
            os.pwrite(file.fileno(), bytes([byte[0] ^ 0xFF]), offset)
    return bytes(before)


def restore(path: Path, every: int, before: bytes) -> None:
    """Put back what was there, where it is still wrong: the server may have mended itself."""
    with path.open("r+b", buffering=0) as file:
        for offset, byte in zip(_offsets(path, every), before, strict=False):
            if os.pread(file.fileno(), 1, offset) == bytes([byte ^ 0xFF]):
                os.pwrite(file.fileno(), bytes([byte]), offset)


def _offsets(path: Path, every: int) -> range:
    return range(_BLOCK // 2, path.stat().st_size, _BLOCK * every)


def main(what: str, *arguments: str) -> None:
    """Entry point."""
    files = sorted(path for path in Path(arguments[-1]).glob("*") if path.is_file())
    if what == "flip":
        every = int(arguments[0])
        flipped = {path.name: flip(path, every).hex() for path in files}
        sys.stdout.write(json.dumps({"every": every, "bytes": flipped}))
        return
    memory = json.load(sys.stdin)
    for path in files:
        if path.name in memory.get("bytes", {}):
            restore(path, memory["every"], bytes.fromhex(memory["bytes"][path.name]))


if __name__ == "__main__":
    main(*sys.argv[1:])
