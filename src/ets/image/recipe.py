"""From an image in the site file to everything a build needs, read once and named by a digest.

The digest covers what the site file says, the content of every file and script it names, and the
station's own parts (helper, hooks, units). Two builds of one recipe may still differ where the
Debian archive has moved on; the manifest's package list tells.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ets.errors import ImageError, InputError
from ets.image import library
from ets.site.model import Image, Site

#: raised when the builder makes something else of the same recipe
VERSION = 3

_BOTH = (
    "busybox",
    "dmsetup",
    "initramfs-tools",
    "iproute2",
    "kmod",
    "systemd-sysv",
    "udev",
    "zstd",
)

#: what an image of that role needs, whatever its recipe says: a station LTSP; an installer ETS
#: itself, and what partitions, copies and makes bootable
ALWAYS: Mapping[str, tuple[str, ...]] = {
    "station": (*_BOTH, "ltsp"),
    "installer": (
        *_BOTH, "acl", "attr", "btrfs-progs", "dosfstools", "e2fsprogs", "fdisk", "grub-common",
        "grub-efi-amd64-bin", "grub-pc-bin", "grub2-common", "iputils-arping", "iputils-ping",
        "kbd", "lvm2", "mdadm", "openssh-client", "procps", "python3", "rsync",
    ),
}  # fmt: skip

#: the station's parts that an image of the other role has no use for
_OTHERS: Mapping[str, tuple[str, ...]] = {
    "station": ("installer",),
    "installer": ("ltsp", "units"),
}


@dataclass(frozen=True, slots=True)
class Input:
    """A file that goes into an image at ``target``."""

    target: str
    content: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """An image's recipe with everything it refers to.

    ``scripts`` are pairs of name and content; ``ltsp_conf`` the content or None; ``parts`` the
    station's own parts (``station/`` of the source tree), whose targets are paths there. All are
    read once: what is built is what the digest was made of, whoever edits meanwhile. Only ETS
    itself (an installer's) is read when it is put there: ``library`` is its fingerprint.
    """

    image: Image
    files: tuple[Input, ...]
    scripts: tuple[tuple[str, bytes], ...]
    ltsp_conf: bytes | None
    parts: tuple[Input, ...]
    library: str = ""

    @property
    def packages(self) -> tuple[str, ...]:
        """All Debian packages of the image, sorted."""
        always = ALWAYS[self.image.role]
        return tuple(sorted({*always, self.image.kernel, *self.image.packages}))

    @property
    def lean(self) -> bool:
        """True when the initrd needs no drivers but those of virtual machines."""
        return "cloud" in self.image.kernel

    @property
    def digest(self) -> str:
        """sha256 (hex) of all of it."""
        image = self.image
        said = {
            "version": VERSION,
            "name": image.name,
            "source": image.source,
            "suite": image.suite,
            "packages": self.packages,
            "seal": image.seal,
            "compression": image.compression,
            "kernel": image.kernel,
            "files": [(f.target, f.mode, _sha256(f.content)) for f in self.files],
            "scripts": [(name, _sha256(content)) for name, content in self.scripts],
            "ltsp_conf": None if self.ltsp_conf is None else _sha256(self.ltsp_conf),
            "parts": [(part.target, part.mode, _sha256(part.content)) for part in self.parts],
        }
        if image.role != "station":
            said |= {"role": image.role, "library": self.library}
        return _sha256(json.dumps(said, sort_keys=True).encode())


def load(site: Site, name: str, base: Path, parts: Path | None = None) -> Recipe:
    """The recipe of the image ``name``; its paths are relative to ``base`` (the site file's
    folder). Raises InputError for an unknown name and for a file that cannot be read.
    """
    image = site.images.get(name)
    if image is None:
        known = ", ".join(sorted(site.images)) or "none"
        raise InputError(f"the site file has no image {name!r}", hint=f"it has: {known}")
    if image.role == "installer" and image.source == "server":
        raise InputError(
            f"the installer {name} cannot be made of the server's own tree",
            hint="leave source out: an installer is a small Debian of its own",
        )
    return Recipe(
        image=image,
        files=tuple(
            Input(file.target, _read(base, file.source, name), file.mode) for file in image.files
        ),
        scripts=tuple((script, _read(base, script, name)) for script in image.scripts),
        ltsp_conf=None if image.ltsp_conf is None else _read(base, image.ltsp_conf, name),
        parts=station_files(parts or station_parts(), image.role),
        library=library.fingerprint() if image.role == "installer" else "",
    )


def station_parts() -> Path:
    """The folder with the station's own parts: in the source tree, or where ETS is installed.

    ``ETS_STATION`` names another one. Raises ImageError when there is none.
    """
    here = Path(__file__).resolve()
    places = [here.parents[3] / "station", Path("/usr/share/ets/station")]
    if own := os.environ.get("ETS_STATION"):
        places.insert(0, Path(own))
    for place in places:
        if (place / "initramfs").is_dir():
            return place
    raise ImageError(
        f"the station's parts are in none of {', '.join(map(str, places))}",
        hint="build images from a checkout of ETS, or set ETS_STATION to its folder 'station'",
    )


def station_files(folder: Path, role: str = "station") -> tuple[Input, ...]:
    """Every source file below ``folder``, by path, but what was built there, its tests, and what
    is only for images of another role."""
    others = ("build", "tests", *_OTHERS[role])
    return tuple(
        Input(
            str(path.relative_to(folder)),
            path.read_bytes(),
            0o755 if os.access(path, os.X_OK) else 0o644,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in others
    )


def _read(base: Path, source: str, name: str) -> bytes:
    path = base / source
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"the image {name} needs {source}, and {path} cannot be read: {error.strerror}",
            hint="paths in a recipe are relative to the site file",
        ) from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
