"""``site.lock``, beside the site file: which image each name stands for, by digest.

Written by an image build and read wherever an image is needed; the one thing that flows back
from a server to the site's files. Lines are sorted, so it diffs well under version control.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ets.errors import InputError

_DIGEST = re.compile(r"[0-9a-f]{64}")
#: bytes; far above what a site's images need
_LIMIT = 2**20


def beside(site_file: Path) -> Path:
    """The lock of a site file: ``site.toml`` → ``site.lock``, in the same directory."""
    return site_file.with_suffix(".lock")


def read(path: Path) -> dict[str, str]:
    """Image name → digest (64 hex digits). Empty when there is no lock yet.

    Raises InputError when the file is not a lock.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return _parse(data)
    except (ValueError, RecursionError):
        hint = "remove it and publish the images again"
        raise InputError(f"{path} is not a lock of ETS", hint=hint) from None


def _parse(data: bytes) -> dict[str, str]:
    """The images in a lock. Raises ValueError."""
    value: Any = json.loads(data) if len(data) <= _LIMIT else None
    if not isinstance(value, dict) or value.get("format") != 1:
        raise ValueError("format")
    images: Any = value.get("images")
    digests = images.values() if isinstance(images, dict) else [None]
    if not all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in digests):
        raise ValueError("digest")
    return dict(sorted(images.items()))


def write(path: Path, images: Mapping[str, str]) -> None:
    """Replace the lock at ``path`` by one of these images, atomically and durably.

    Raises InputError when a digest is none, or the directory cannot be written.
    """
    for name, digest in images.items():
        if not _DIGEST.fullmatch(digest):
            raise InputError(f"{digest} is not the digest of image {name}")
    content = json.dumps({"format": 1, "images": dict(images)}, indent=2, sort_keys=True) + "\n"
    try:
        _replace(path, content.encode())
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None


def _replace(path: Path, data: bytes) -> None:
    """Write beside ``path``, then rename over it. Raises OSError, leaving nothing behind."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
