"""The Debian tree below an image: made once for a list of packages and kept in the cache.

``<cache>/image-trees/<key>/tree`` is the tree, ``packages.txt`` beside it what is installed, and
``epoch`` the newest time stamp of any packaged file, which a build uses as SOURCE_DATE_EPOCH: it
follows from the packages alone, so it is the same wherever they are unpacked.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ets.errors import CommandFailed, ImageError
from ets.image.progress import Event, Events
from ets.image.recipe import Recipe
from ets.image.workbench import ENVIRONMENT, Workbench, workbench

MIRROR = os.environ.get("ETS_MIRROR", "http://deb.debian.org/debian")
SECURITY = os.environ.get("ETS_MIRROR_SECURITY", "http://deb.debian.org/debian-security")

#: raised when the tree below is made in another way
_VERSION = 1

# The initrd is made once, at the end of a build, with the station's own parts in it: what the
# packages' scripts would make is thrown away, and takes half a minute.
_NO_INITRD = (
    'chroot "$1" dpkg-divert --quiet --local --rename --divert /usr/sbin/update-initramfs.debian '
    '--add /usr/sbin/update-initramfs && ln -s /bin/true "$1/usr/sbin/update-initramfs"'
)
_INITRD_AGAIN = (
    'rm "$1/usr/sbin/update-initramfs" && chroot "$1" dpkg-divert --quiet --local --rename '
    "--remove /usr/sbin/update-initramfs"
)
_PACKAGES = 'chroot "$1" dpkg-query --show >"$1.packages"'


@dataclass(frozen=True, slots=True)
class BaseTree:
    """A finished tree: read-only by agreement. ``packages`` is one "name<tab>version" a line."""

    tree: Path
    packages: str
    epoch: int


def base_tree(recipe: Recipe, cache: Path, events: Events) -> BaseTree:
    """The tree of ``recipe``'s packages, made if the cache has none.

    Raises ImageError when Debian cannot be installed, with the end of what apt said.
    """
    what = f"image {recipe.image.name}"
    home = cache / "image-trees"
    place = home / tree_key(recipe)
    if not (place / "epoch").exists():
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home / f".{place.name}.lock"):
            if not (place / "epoch").exists():
                shutil.rmtree(place, ignore_errors=True)
                with workbench(home, f"part-{place.name}") as bench:
                    _debootstrap(recipe, bench, what, events)
                    bench.directory.rename(place)
    events(Event(what, "Debian tree", 1.0))
    return BaseTree(
        place / "tree",
        (place / "packages.txt").read_text(),
        int((place / "epoch").read_text()),
    )


def tree_key(recipe: Recipe) -> str:
    """16 hex digits over suite, packages and mirror."""
    text = "\n".join([str(_VERSION), recipe.image.suite, MIRROR, SECURITY, *recipe.packages])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _debootstrap(recipe: Recipe, bench: Workbench, what: str, events: Events) -> None:
    suite = recipe.image.suite
    tree = bench.directory / "tree"
    # Firmware for real network cards is in its own section since Debian 12.
    sections = "main" if recipe.lean else "main non-free-firmware"
    argv = [
        "mmdebstrap", "--verbose", "--mode=root", "--format=directory", "--variant=apt",
        "--aptopt=Apt::Install-Recommends false", "--aptopt=Acquire::Languages none",
        "--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/info/*",
        f"--include={','.join(recipe.packages)}",
        f"--essential-hook={_NO_INITRD}",
        f"--customize-hook={_INITRD_AGAIN}",
        f"--customize-hook={_PACKAGES}",
        suite, str(tree),
        f"deb {MIRROR} {suite} {sections}",
        f"deb {MIRROR} {suite}-updates {sections}",
        f"deb {SECURITY} {suite}-security {sections}",
    ]  # fmt: skip
    if recipe.lean:
        argv.insert(-4, "--dpkgopt=path-exclude=/usr/share/locale/*")
    progress = _DpkgProgress(what, events)
    events(Event(what, "installing Debian", 0.0))
    environment = {**ENVIRONMENT, "SOURCE_DATE_EPOCH": "0"}
    try:
        bench.follow(argv, progress.feed, environment)
    except CommandFailed as error:
        raise ImageError(
            f"the Debian tree of {what} could not be made: {error.output[-2000:]}",
            hint=f"are the packages' names right, and is {MIRROR} reachable "
            "(ETS_MIRROR names another mirror)?",
        ) from error
    (bench.directory / "tree.packages").rename(bench.directory / "packages.txt")
    (bench.directory / "epoch").write_text(str(newest_packaged(tree)))


def newest_packaged(tree: Path) -> int:
    """The newest modification time (seconds since 1970) of the files that packages brought.

    Only files with a checksum in dpkg's database count: the others are made while installing.
    """
    newest = 0
    for sums in sorted((tree / "var/lib/dpkg/info").glob("*.md5sums")):
        for line in sums.read_text(errors="surrogateescape").splitlines():
            try:
                status = (tree / line[34:]).lstat()
            except OSError:
                continue
            newest = max(newest, int(status.st_mtime))
    return newest


class _DpkgProgress:
    """Turns mmdebstrap's and apt's words into progress."""

    _STEP = re.compile(r"^(Get:\d+|Unpacking|Setting up) .*?([a-z0-9][a-z0-9+.-]+)")
    _TOTAL = re.compile(r"(\d+) newly installed")

    def __init__(self, what: str, events: Events) -> None:
        self._what = what
        self._events = events
        self._total = 0
        self._steps = 0

    def feed(self, line: str) -> None:
        """Take one line of output."""
        if match := self._TOTAL.search(line):
            self._total += int(match[1])
        elif match := self._STEP.match(line):
            self._steps += 1
            doing = {"Unpacking": "unpacking", "Setting up": "setting up"}.get(match[1])
            share = min(0.99, self._steps / (3 * max(self._total, 120)))
            text = f"{doing} {match[2]}" if doing else "downloading packages"
            self._events(Event(self._what, text, share))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; it goes with the process, so a killed builder blocks nobody."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
