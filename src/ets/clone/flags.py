"""Flags of files (chattr(1)): no tool that copies takes them along."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import sys
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
    flags = bytearray(8)
    try:
        for path in paths:
            try:
                descriptor = os.open(path or b".", _OPEN, dir_fd=base)
            except OSError:
                continue
            try:
                fcntl.ioctl(descriptor, _GET, flags)
            except OSError:
                continue
            finally:
                os.close(descriptor)
            found = int.from_bytes(flags[:4], sys.byteorder) & COPIED
            if found:
                yield path, found
    finally:
        os.close(base)


def apply(root: Path, wanted: Mapping[bytes, int]) -> tuple[bytes, ...]:
    """Set them, what is in a directory before the directory. Returns where that failed."""
    failed = []
    for path in sorted(wanted, reverse=True):
        try:
            _set(root, path, wanted[path], COPIED)
        except OSError:
            failed.append(path)
    return tuple(failed)


def clear(root: Path, paths: Iterable[bytes]) -> None:
    """Take away what would keep ``paths`` from being changed."""
    for path, found in list(read(root, paths)):
        if found & (_IMMUTABLE | _APPEND):
            with contextlib.suppress(OSError):
                _set(root, path, 0, _IMMUTABLE | _APPEND)


def _set(root: Path, path: bytes, wanted: int, mask: int) -> None:
    """Give the flags in ``mask`` the values that they have in ``wanted``."""
    descriptor = os.open(os.fsencode(root) + b"/" + path, _OPEN)
    try:
        flags = array.array("l", [0])
        fcntl.ioctl(descriptor, _GET, flags)
        flags[0] = flags[0] & ~mask | wanted
        fcntl.ioctl(descriptor, _SET, flags)
    finally:
        os.close(descriptor)
