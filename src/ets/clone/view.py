"""What of a running server is copied: its root file system and the other local disk file systems
mounted on it, as a private read-only view in which no other mount hides anything.

The view lives in a mount namespace of this process alone, so it goes with it, and there is nothing
to clean up, however it ends.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ets import identity, paths
from ets.errors import CloneError
from ets.host.run import run

#: file systems that keep what a server is on a disk of its own
DISKS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "reiserfs", "bcachefs"})
#: on disks too, but of other systems, or of the firmware
FOREIGN = frozenset({"vfat", "exfat", "ntfs", "ntfs3", "iso9660", "udf", "hfsplus"})

#: what lies there is made anew at every start, and nobody misses it
PASSING = ("/dev/", "/proc/", "/run/", "/sys/")

#: where copies are prepared on the primary; never copied itself
SPOOL = Path(paths.STATE) / "clone"
SNAPSHOT = ".ets-clone-snapshot"

_CLONE_NEWNS = 0x00020000


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of mountinfo (proc(5)): ``inside`` is the directory of the file system that is
    mounted, ``point`` where, ``device`` the numbers, ``source`` the device's path."""

    point: str
    inside: str
    type: str
    device: str
    source: str


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """The mounts that can be seen, of several at one place the last."""
    found: dict[str, Mount] = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        _, _, device, inside, point = (_unescaped(word) for word in before.split(" ")[:5])
        kind, source = (_unescaped(word) for word in after.split(" ")[:2])
        found.pop(point, None)
        found[point] = Mount(point, inside, kind, device, source)
    return tuple(found.values())


def _unescaped(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word)


def select(
    mounts: Iterable[Mount], root: str, passing: Callable[[Mount], bool]
) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """The mounts below ``root`` that are part of the server, in the order of mounting (without the
    root itself), and words about local ones that are not.

    A file system that is seen twice is taken once. ``passing`` says whether a device comes and
    goes (a USB stick, a loop device).
    """
    chosen: dict[str, Mount] = {}
    words = []
    top = root.rstrip("/")
    seen: list[Mount] = [mount for mount in mounts if mount.point == (top or "/")]
    for mount in sorted(mounts, key=lambda mount: (mount.point, mount.inside)):
        if not mount.point.startswith(top + "/") or mount.point == (top or "/"):
            continue
        at = mount.point[len(top) :]
        if at.startswith(PASSING):
            continue
        if mount.type in FOREIGN and at != "/boot/efi":
            words.append(f"{at} is not copied: it is a {mount.type} file system")
        if mount.type not in DISKS or any(_shows(other, mount) for other in seen):
            continue
        if passing(mount):
            words.append(f"{at} is not copied: {mount.source} can be taken away")
        elif _hangs(at, mounts, top, chosen):
            words.append(f"{at} is not copied: it is mounted below a file system that is not")
        else:
            chosen[at] = mount
            seen.append(mount)
    return tuple(chosen.values()), tuple(words)


def _shows(other: Mount, mount: Mount) -> bool:
    """Is what ``mount`` shows part of what ``other`` shows?"""
    inside = other.inside.rstrip("/") + "/"
    return other.device == mount.device and (mount.inside + "/").startswith(inside)


def _hangs(at: str, mounts: Iterable[Mount], top: str, chosen: Iterable[str]) -> bool:
    """Is the directory that ``at`` is mounted on part of something that is not copied?"""
    above = [m.point[len(top) :] for m in mounts if m.point.startswith(top + "/")]
    above = [point for point in above if at.startswith(point.rstrip("/") + "/") and point != "/"]
    return any(point not in set(chosen) for point in above)


def comes_and_goes(mount: Mount) -> bool:
    """Is this a removable disk, or a file that plays one?"""
    place = Path("/sys/dev/block") / mount.device
    if (place / "loop").exists() or (place / "../loop").exists():
        return True
    for flag in (place / "removable", place / "../removable"):
        if flag.exists():
            return flag.read_text().strip() == "1"
    return False


class Excludes:
    """What is not copied: the table of identities, ETS' own workplace, and what the site says.

    A site's pattern names a path and everything below it; in it ``*`` and ``?`` stand for
    characters of one name, ``**`` for any.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        for pattern in patterns:
            if not pattern.startswith("/") or ".." in pattern.split("/"):
                raise CloneError(
                    f"{pattern!r} cannot be left out: it is no absolute path",
                    hint='in the site file: [clone] exclude = ["/srv/scratch"]',
                )
        plain = [pattern.rstrip("/") for pattern in patterns]
        self.prune = tuple(
            os.fsencode(path)
            for path in (str(SPOOL), f"/{SNAPSHOT}", *plain)
            if path and not re.search(r"[*?]", path)
        )
        globs = "|".join(_translated(pattern) for pattern in plain if re.search(r"[*?]", pattern))
        self._globs = re.compile(f"(?:{globs})(?:/.*)?", re.DOTALL) if globs else None

    def keep(self, path: bytes, directory: bool) -> bool:
        """A ``listing.Keep``."""
        if _named(path) and identity.left_out(path, directory=directory):
            return False
        return self._globs is None or not self._globs.fullmatch(os.fsdecode(path))


def _beginnings() -> tuple[frozenset[bytes], tuple[bytes, ...]]:
    """Of the table's patterns: the top directories they begin with, and the first name in those
    that begin with any."""
    patterns = [os.fsencode(pattern) for row in identity.ROWS for pattern in row.paths]
    tops = {pattern.split(b"/")[1] for pattern in patterns} - {b"**"}
    names = {pattern.split(b"/")[2] for pattern in patterns if pattern.startswith(b"/**/")}
    if any(re.search(rb"[*?[]", word) for word in tops | names):
        return frozenset(), (b"/",)  # any path may be meant
    return frozenset(tops), tuple(names)


_TOPS, _NAMES = _beginnings()


def _named(path: bytes) -> bool:
    """Can a row of the table name ``path`` at all? Most files lie below /usr, where none does, and
    asking the table costs more than reading the file's attributes."""
    return path[1:].partition(b"/")[0] in _TOPS or any(name in path for name in _NAMES)


def _translated(pattern: str) -> str:
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    met = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(met.get(part) or re.escape(part) for part in parts)


@dataclass(frozen=True, slots=True)
class View:
    """A server's files at ``root``: for reading only, and seen by this process and its children
    alone. ``mounts`` are the file systems beside the root's own; ``notes`` are for people."""

    root: Path
    source: str
    top: Mount | None
    mounts: tuple[Mount, ...]
    notes: tuple[str, ...]


def enter(source: str = "/", at: Path = Path(paths.RUN) / "clone") -> View:
    """Leave this process's mount namespace for one with the view of ``source`` in it at ``at``.

    Needs root. Raises CloneError.
    """
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_text())
    chosen, notes = select(mounts, source, comes_and_goes)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise CloneError(
            f"cannot make a view of {source}: {os.strerror(ctypes.get_errno())}",
            hint="run it as root",
        )
    at.mkdir(parents=True, exist_ok=True)
    run(["mount", "--make-rprivate", "/"])
    top = source.rstrip("/")
    bind(source, at)
    for mount in chosen:
        bind(mount.point, at / mount.point[len(top) :].lstrip("/"))
    here = next((mount for mount in mounts if mount.point == (top or "/")), None)
    return View(at, source, here, chosen, notes)


def bind(source: str | os.PathLike[str], target: Path) -> None:
    """Show one file system, without what is mounted on it, for reading only."""
    run(["mount", "--bind", str(source), str(target)])
    run(["mount", "-o", "remount,bind,ro", str(target)])
