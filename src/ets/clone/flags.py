"""Flags of files (chattr(1)): no tool that copies takes them along."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

# linux/fs.h, for 64 bits; the kernel reads and writes an int all the same
_GET, _SET = 0x80086601, 0x40086602
_IMMUTABLE, _APPEND = 0x10, 0x20
#: sync, immutable, append only, no dump, no atime, no tail merging, directory sync, top directory
COPIED = 0x8 | _IMMUTABLE | _APPEND | 0x40 | 0x80 | 0x8000 | 0x10000 | 0x20000
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOATIME


def read(root: Path, paths: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Those of ``paths`` (regular files and directories below ``root``) that have flags."""
    base = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in paths:
            with contextlib.suppress(OSError):
                flags = _get(base, path) & COPIED
                if flags:
                    yield path, flags
    finally:
        os.close(base)


def apply(root: Path, wanted: Mapping[bytes, int]) -> tuple[bytes, ...]:
    """Set them, what is in a directory before the directory. Returns where that failed."""
    failed = []
    base = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in sorted(wanted, reverse=True):
            try:
                _set(base, path, wanted[path], ~0)
            except OSError:
                failed.append(path)
    finally:
        os.close(base)
    return tuple(failed)


def clear(root: Path, paths: Iterable[bytes]) -> None:
    """Take away what would keep ``paths`` from being changed."""
    base = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in paths:
            with contextlib.suppress(OSError):
                if _get(base, path) & (_IMMUTABLE | _APPEND):
                    _set(base, path, 0, _IMMUTABLE | _APPEND)
    finally:
        os.close(base)


def _get(base: int, path: bytes) -> int:
    descriptor = os.open(path or b".", _OPEN, dir_fd=base)
    try:
        flags = array.array("l", [0])
        fcntl.ioctl(descriptor, _GET, flags)
        return flags[0]
    finally:
        os.close(descriptor)


def _set(base: int, path: bytes, wanted: int, mask: int) -> None:
    descriptor = os.open(path or b".", _OPEN, dir_fd=base)
    try:
        flags = array.array("l", [0])
        fcntl.ioctl(descriptor, _GET, flags)
        flags[0] = flags[0] & ~(COPIED & mask) | wanted
        fcntl.ioctl(descriptor, _SET, flags)
    finally:
        os.close(descriptor)
