"""The hash tree behind an image's data: dm-verity's format version 1, sha256, blocks of 4096
bytes, no salt, no superblock (as ``veritysetup format --no-superblock --salt -`` writes it).

Source: the Linux kernel's Documentation/admin-guide/device-mapper/verity.rst and cryptsetup's
lib/verity/verity_hash.c. Every hash block holds the sha256 of 128 blocks of the level below,
filled up with zeros; the levels lie one behind the other, the top one first. The root hash is the
sha256 of the top block, or of the only data block where there is no level at all.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ets.errors import ImageError
from ets.image.manifest import BLOCK

_PER_BLOCK = BLOCK // 32
_CHUNK = 256 * BLOCK

Watch = Callable[[float], None]


def unwatched(part: float) -> None:
    """A ``Watch`` that looks away."""


def levels(blocks: int) -> list[int]:
    """How many hash blocks each level has, the one above the data first."""
    counts = []
    while blocks > 1:
        blocks = -(-blocks // _PER_BLOCK)
        counts.append(blocks)
    return counts


def total_blocks(blocks: int) -> int:
    """Data and tree together, in blocks, for ``blocks`` of data."""
    return blocks + sum(levels(blocks))


def append_tree(path: Path, watch: Watch = unwatched) -> tuple[int, str]:
    """Fill ``path`` up with zeros to whole blocks and append its hash tree.

    Returns the number of data blocks and the root hash (hex). Raises ImageError for an empty
    file, OSError as the file system does.
    """
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        if size == 0:
            raise ImageError(f"{path} is empty: there is nothing to make an image of")
        file.write(bytes(-size % BLOCK))
        blocks = -(-size // BLOCK)
        file.seek(0)
        tree, root = _tree(file, blocks, watch)
        file.seek(blocks * BLOCK)
        for level in reversed(tree):
            file.write(level)
        file.truncate()
    return blocks, root


def bad_blocks(
    path: Path, blocks: int, roothash: str, *, rate: float = 0, watch: Watch = unwatched
) -> list[int]:
    """The numbers of the 4096-byte blocks of ``path`` that are not what ``roothash`` says.

    Checks the tree from its root down and then the data; a bad block of the tree is reported by
    its own number (``blocks`` and up), and what hangs below it counts as unproven, so it is
    reported too. A file that is too short or too long has at least one bad block. ``rate`` is the
    most bytes to read per second, 0 for no limit.
    """
    total = total_blocks(blocks)
    size = path.stat().st_size
    if size != total * BLOCK:
        return [min(size // BLOCK, total)]
    pace = _Pace(rate)
    bad: list[int] = []
    with path.open("rb", buffering=0) as file:
        expected = bytes.fromhex(roothash)
        start = blocks
        for count in reversed(levels(blocks)):
            file.seek(start * BLOCK)
            expected = _check(file, start, count, expected, bad, pace)
            start += count
        file.seek(0)
        for first in range(0, blocks, 256):
            many = min(256, blocks - first)
            _check(file, first, many, expected[first * 32 : (first + many) * 32], bad, pace)
            watch((first + many) / blocks)
    return sorted(bad)


class _Pace:
    """Sleeps so that no more than ``rate`` bytes a second pass."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._begin = time.monotonic()
        self._passed = 0

    def passed(self, count: int) -> None:
        """``count`` bytes were read."""
        self._passed += count
        if self._rate > 0:
            ahead = self._begin + self._passed / self._rate - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)


def _check(
    file: BinaryIO, number: int, count: int, expected: bytes, bad: list[int], pace: _Pace
) -> bytes:
    """Check ``count`` blocks from here on against ``expected``, their hashes one after another.

    Adds the numbers of bad ones (the first is ``number``) to ``bad``; returns the blocks, the bad
    ones as zeros, which no hash below matches.
    """
    content = bytearray()
    while len(content) < count * BLOCK:
        part = file.read(min(_CHUNK, count * BLOCK - len(content)))
        if not part:
            break
        content += part
        pace.passed(len(part))
    content += bytes(count * BLOCK - len(content))
    sha256 = hashlib.sha256
    view = memoryview(content).toreadonly()
    wrong = [
        index
        for index in range(count)
        if sha256(view[index * BLOCK : (index + 1) * BLOCK]).digest()
        != expected[index * 32 : index * 32 + 32]
    ]
    view.release()
    for index in wrong:
        bad.append(number + index)
        content[index * BLOCK : (index + 1) * BLOCK] = bytes(BLOCK)
    return bytes(content)


def _tree(file: BinaryIO, blocks: int, watch: Watch) -> tuple[list[bytes], str]:
    """All levels, the one above the data first, and the root hash."""
    sha256 = hashlib.sha256
    hashes = bytearray()
    for first in range(0, blocks, 256):
        part = memoryview(file.read(min(256, blocks - first) * BLOCK))
        for at in range(0, len(part), BLOCK):
            hashes += sha256(part[at : at + BLOCK]).digest()
        watch(min(1.0, (first + 256) / blocks))
    tree = []
    for _ in levels(blocks):
        level = bytes(hashes) + bytes(-len(hashes) % BLOCK)
        tree.append(level)
        hashes = bytearray()
        for at in range(0, len(level), BLOCK):
            hashes += sha256(level[at : at + BLOCK]).digest()
    return tree, bytes(hashes).hex()
