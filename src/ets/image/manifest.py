"""The manifest of an image: what it consists of, in a form that has exactly one spelling.

An image's name in the world, its *digest*, is the sha256 of the manifest's bytes; the manifest
holds the sha256 of every file and the root of the hash tree. So whoever knows the digest can
check everything else, wherever it was copied from.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ets.errors import ImageError

FORMAT = 1
ROOT, KERNEL, INITRD, PACKAGES = "root.img", "vmlinuz", "initrd.img", "packages.txt"
#: files that every image has; more may follow (``packages.txt``)
REQUIRED = (ROOT, KERNEL, INITRD)
BLOCK = 4096

_HEX = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: no manifest is longer; a peer that sends more is not listened to
LONGEST = 64 * 1024


def is_digest(text: str) -> bool:
    """True for 64 lower case hex digits: an image's digest, or a root hash."""
    return _HEX.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an image. ``size`` is in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an image consists of.

    ``blocks`` is the number of 4096-byte data blocks of ``root.img``, behind which its hash tree
    begins; ``size`` the bytes of that whole file; ``kernel`` the kernel's release (``uname -r``);
    ``recipe`` the digest of what it was built from.
    """

    name: str
    roothash: str
    blocks: int
    size: int
    kernel: str
    seal: bool
    files: Mapping[str, Entry]
    recipe: str

    def encode(self) -> bytes:
        """The one spelling: sorted keys, compact, a newline at the end."""
        files = {name: {"sha256": e.sha256, "size": e.size} for name, e in self.files.items()}
        content = {
            "format": FORMAT,
            "name": self.name,
            "roothash": self.roothash,
            "blocks": self.blocks,
            "size": self.size,
            "kernel": self.kernel,
            "seal": self.seal,
            "files": files,
            "recipe": self.recipe,
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    @property
    def digest(self) -> str:
        """The image's digest."""
        return hashlib.sha256(self.encode()).hexdigest()


def parse(content: bytes) -> Manifest:
    """The manifest in ``content``; it may come from a peer, so nothing is believed.

    Raises ImageError naming what is wrong, also for a valid manifest in another spelling.
    """
    if len(content) > LONGEST:
        raise ImageError(f"a manifest of {len(content)} bytes is no manifest")
    try:
        raw = json.loads(content)
        manifest = _from_json(raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ImageError(
            f"this is no manifest of an image: {error!r}",
            hint="verify the store with 'ets image verify', or fetch the image again",
        ) from error
    if manifest.encode() != content:
        raise ImageError("the manifest is not in its canonical spelling")
    return manifest


def _from_json(raw: Mapping[str, Any]) -> Manifest:
    if raw["format"] != FORMAT:
        raise ValueError(f"format {raw['format']!r}, known is {FORMAT}")
    files = {}
    for name, entry in raw["files"].items():
        if not _FILE.fullmatch(name):
            raise ValueError(f"file name {name!r}")
        files[name] = Entry(_hash(entry["sha256"]), _number(entry["size"]))
    if missing := set(REQUIRED) - set(files):
        raise ValueError(f"no {', '.join(sorted(missing))}")
    manifest = Manifest(
        name=_text(raw["name"]),
        roothash=_hash(raw["roothash"]),
        blocks=_number(raw["blocks"]),
        size=_number(raw["size"]),
        kernel=_text(raw["kernel"]),
        seal=_flag(raw["seal"]),
        files=files,
        recipe=_hash(raw["recipe"]),
    )
    if manifest.size != files[ROOT].size or manifest.blocks * BLOCK > manifest.size:
        raise ValueError("sizes that contradict each other")
    return manifest


def _hash(value: object) -> str:
    if not isinstance(value, str) or not is_digest(value):
        raise ValueError(f"{value!r} is no sha256")
    return value


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**50:
        raise ValueError(f"{value!r} is no size")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > 200:
        raise ValueError(f"{value!r} is no name")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")  # noqa: TRY004
    return value
