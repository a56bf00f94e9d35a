"""A list of what must be equal on all servers, with a digest of each file's content, and the
difference of two such lists in words.

As text it is one JSON array a line: path, kind, mode, owner, group, the content's digest (of a
link its target, of a device its numbers), and that of the extended attributes. Paths that are no
UTF-8 are written with surrogate escapes. Times are no part of it: what counts is what a server
does.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import blake3

from ets import identity
from ets.errors import HostError

#: what makes a server do what it does; homes and databases are the users', and change all the time
ROOTS = (
    "/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/opt", "/sbin", "/usr",
    "/var/lib/dpkg", "/var/lib/ucf", "/var/spool/cron",
)  # fmt: skip
FORMAT = "ets manifest 1"
#: bytes of a digest: nobody chooses contents here, so half of what signatures need is plenty
_DIGEST = 16
_PIECE = 1 << 20
_AT_ONCE = 2
#: file systems that a server's own disks have; overlay is a container's
_OWN = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "reiserfs", "bcachefs", "overlay"}
)
#: differences that are told one by one
SHOWN = 40

_KINDS: Mapping[int, str] = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link", stat.S_IFIFO: "pipe",
    stat.S_IFCHR: "device", stat.S_IFBLK: "device", stat.S_IFSOCK: "socket",
}  # fmt: skip

# What daemons note in their settings files while they run, and what no two servers need to share.
_CUPS = re.compile(rb"(?m)^(?:# (?:Printer|Class) configuration file|# Written by|StateTime|State|"
                   rb"StateMessage|Reason|ConfigTime|Time|PageCount)\b.*\n?")  # fmt: skip
_READ_AS: Mapping[str, Callable[[bytes], bytes]] = {
    "/etc/cups/printers.conf": lambda content: _CUPS.sub(b"", content),
    "/etc/cups/classes.conf": lambda content: _CUPS.sub(b"", content),
}


@dataclass(frozen=True, slots=True)
class Item:
    """What lies at a path: owner and group by number, ``content`` a digest (hex), a link's target
    or a device's numbers, empty for a directory; ``more`` a digest of its extended attributes
    (ACLs, capabilities), empty when it has none."""

    kind: str
    mode: int
    owner: int
    group: int
    content: str = ""
    more: str = ""


Manifest = Mapping[str, Item]


def take(
    root: Path | str = "/", roots: Sequence[str] = ROOTS, *, exclude: Collection[str] = ()
) -> Manifest:
    """The manifest of a server, or of the tree at ``root``. ``exclude`` are the site's own
    excludes (``Site.clone.exclude``). Network mounts and the like are not entered.

    A file that vanishes while it is read is left out. Raises HostError.
    """
    top = Path(root)
    found = list(_walk(top, roots, tuple(exclude)))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        items = pool.map(lambda entry: item(top, *entry), found, chunksize=1)
        return {path: made for (path, _), made in zip(found, items, strict=True) if made}


def dump(manifest: Manifest) -> Iterator[str]:
    """As lines of text."""
    yield json.dumps([FORMAT, len(manifest)])
    for path, item in sorted(manifest.items()):
        row = [path, item.kind, item.mode, item.owner, item.group, item.content, item.more]
        yield json.dumps(row, separators=(",", ":"))


def load(lines: Iterable[str]) -> Manifest:
    """From lines of text. Raises HostError for what is none, or not a whole one."""
    rows = iter(lines)
    try:
        name, count = json.loads(next(rows))
        found = {path: Item(*rest) for path, *rest in map(json.loads, rows)}
        whole = name == FORMAT and len(found) == count
    except (ValueError, TypeError, StopIteration, RecursionError):
        whole = False
    if not whole:
        raise HostError(
            "what the other server sent is no list of its files, or not a whole one",
            hint="are both servers of the same version of ETS?",
        )
    return found


def differing(mine: Manifest, theirs: Manifest) -> tuple[str, ...]:
    """The paths that are not equal, sorted."""
    return tuple(sorted(p for p in {*mine, *theirs} if mine.get(p) != theirs.get(p)))


def compare(mine: Manifest, theirs: Manifest, *, peer: str = "the other") -> tuple[str, ...]:
    """What differs, in words, one for each path; a directory that one of them lacks is said once,
    with everything in it. At most ``SHOWN``, then how many more."""
    told: list[str] = []
    whole = ""
    for path in differing(mine, theirs):
        if whole and path.startswith(whole):
            continue
        ours, other = mine.get(path), theirs.get(path)
        told.append(f"{show(path)} {_words(ours, other, peer)}")
        missing = ours is None or other is None
        kind = ours.kind if ours is not None else other.kind if other is not None else ""
        whole = f"{path}/" if missing and kind == "directory" else ""
    more = len(told) - SHOWN
    return (*told[:SHOWN], *([f"and {more} more"] if more > 0 else []))


def show(path: str) -> str:
    """A path for a person, on one line and without what a terminal would obey."""
    shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)


def _words(ours: Item | None, other: Item | None, peer: str) -> str:
    if ours is None:
        return f"is on {peer} only"
    if other is None:
        return f"is not on {peer}"
    if ours.kind != other.kind:
        return f"is a {ours.kind}, on {peer} a {other.kind}"
    said = []
    if ours.content != other.content:
        said.append(
            f"points to {ours.content}, on {peer} to {other.content}"
            if ours.kind == "link"
            else f"has another content than on {peer}"
        )
    if ours.mode != other.mode:
        said.append(f"has mode {ours.mode:04o}, on {peer} {other.mode:04o}")
    if (ours.owner, ours.group) != (other.owner, other.group):
        said.append(
            f"belongs to {ours.owner}:{ours.group}, on {peer} to {other.owner}:{other.group}"
        )
    if ours.more != other.more:
        said.append(f"has other ACLs, capabilities or attributes than on {peer}")
    return "; ".join(said)


def _walk(
    top: Path, roots: Sequence[str], exclude: tuple[str, ...]
) -> Iterator[tuple[str, os.stat_result]]:
    below = tuple(f"{path.rstrip('/')}/" for path in exclude)
    away = elsewhere() if str(top) == "/" else frozenset()
    waiting = list(reversed(roots))
    while waiting:
        path = waiting.pop()
        place = f"{top}{path}" if str(top) != "/" else path
        if path in exclude or path.startswith(below) or path in away:
            continue
        try:
            about = os.lstat(place)
            directory = stat.S_ISDIR(about.st_mode)
            names = sorted(os.listdir(place), reverse=True) if directory else []  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            continue
        if identity.compared(path):
            yield path, about
        waiting += [f"{path}/{name}" for name in names]


def elsewhere() -> frozenset[str]:
    """Where file systems are mounted that are none of this server's own disks (proc(5))."""
    rows = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    parts = ((row.split(" ")[4], row.partition(" - ")[2].split(" ")[0]) for row in rows)
    octal = re.compile(r"\\([0-7]{3})")
    return frozenset(
        octal.sub(lambda met: chr(int(met[1], 8)), point)
        for point, kind in parts
        if kind not in _OWN
    )


def item(top: Path, path: str, about: os.stat_result) -> Item | None:
    """What lies at ``path`` of the tree at ``top``, of which lstat said ``about``; None when it has
    vanished. Raises HostError (caused by the OSError) when it cannot be read."""
    place = f"{top}{path}" if str(top) != "/" else path
    kind = _KINDS.get(stat.S_IFMT(about.st_mode), "thing")
    mode = 0o777 if kind == "link" else stat.S_IMODE(about.st_mode)
    content = ""
    try:
        if kind == "file":
            content = _digest(place, path)
        elif kind == "link":
            content = os.readlink(place)  # noqa: PTH115 - as it is, not tidied
        elif kind == "device":
            content = f"{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}"
        more = _attributes(place)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"cannot read {show(place)}: {error.strerror}") from error
    return Item(kind, mode, about.st_uid, about.st_gid, content, more)


def _attributes(place: str) -> str:
    names = os.listxattr(place, follow_symlinks=False)
    if not names:
        return ""
    found = [(name, os.getxattr(place, name, follow_symlinks=False).hex()) for name in names]
    return blake3.blake3(json.dumps(sorted(found)).encode()).digest(length=_DIGEST).hex()


def _digest(place: str, path: str) -> str:
    digest = blake3.blake3()
    # it may have become a link or a pipe meanwhile: neither is followed or waited for
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if (read_as := _READ_AS.get(path)) is not None:
            pieces = b"".join(iter(lambda: os.read(descriptor, _PIECE), b""))
            digest.update(read_as(pieces))
        while piece := os.read(descriptor, _PIECE):
            digest.update(piece)
    finally:
        os.close(descriptor)
    return digest.digest(length=_DIGEST).hex()
