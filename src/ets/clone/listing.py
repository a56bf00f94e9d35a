"""What lies in a tree, as find(1) saw it, and how two such listings differ.

Paths are bytes, relative to the tree (the tree itself is the empty path): names may hold newlines
and need not be UTF-8. Sockets are left out, as they mean nothing without their process.

Invariant: a file that was written, replaced, moved or given other attributes between two listings
of one tree differs in the second (its ctime or inode does), unless a program changed it through
``mmap`` in a page that was dirty already: so ``settle`` before the first listing. A file that
changed in the very moment of the first listing (``racy``) counts as changed, for the clock of a
file system is coarse.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ets.errors import CloneError
from ets.host.run import run

#: what find prints of one entry; the last two say where it lies, not what it is
_FORMAT = r"%y %i %m %U %G %n %s %T@ %C@ %D %b\t%P\0"
_DEADLINE = 3600.0
#: seconds before a listing in which a change may have the same time as one just after it
_COARSE = 0.1

Keep = Callable[[bytes, bool], bool]


def everything(path: bytes, directory: bool) -> bool:
    """A ``Keep`` that leaves nothing out."""
    del path, directory
    return True


@dataclass(frozen=True, slots=True)
class Entry:
    """``kind`` is find's letter (f, d, l, p, b, c), times are nanoseconds, ``blocks`` 512 bytes."""

    kind: str
    inode: int
    mode: int
    uid: int
    gid: int
    links: int
    size: int
    mtime: int
    ctime: int
    device: int
    blocks: int


def parse(value: bytes) -> Entry:
    """An entry from a listing's value."""
    kind, inode, mode, uid, gid, links, size, mtime, ctime, device, blocks = value.split(b" ")
    numbers = int(uid), int(gid), int(links), int(size), _ns(mtime), _ns(ctime)
    return Entry(kind.decode(), int(inode), int(mode, 8), *numbers, int(device), int(blocks))


def _ns(stamp: bytes) -> int:
    seconds, _, fraction = stamp.partition(b".")
    return int(seconds) * 10**9 + int(fraction[:9].ljust(9, b"0") or 0)


@dataclass(frozen=True, slots=True)
class Listing:
    """``entries``: path → what find said (``parse`` reads it), directories before what is in them.
    ``racy``: paths that changed while the listing was made."""

    entries: Mapping[bytes, bytes]
    racy: frozenset[bytes] = frozenset()
    complaints: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes that the tree takes on a disk, each file once."""
        seen = {}
        for value in self.entries.values():
            inode, device, blocks = _field(value, 1), *value.rsplit(b" ", 2)[1:]
            seen[inode, device] = int(blocks) * 512
        return sum(seen.values())

    @property
    def content(self) -> int:
        """Bytes of regular files' content, each file once, holes not counted."""
        seen = {}
        for value in self.entries.values():
            if value.startswith(b"f"):
                seen[_field(value, 1), value.rsplit(b" ", 2)[1]] = content(value)
        return sum(seen.values())

    def linked(self) -> Iterator[list[bytes]]:
        """The paths of each file that has more than one here, sorted."""
        groups: dict[tuple[bytes, bytes], list[bytes]] = {}
        for path, value in self.entries.items():
            kind, inode, *_, links = value.split(b" ", 6)[:6]
            if kind != b"d" and links != b"1":
                groups.setdefault((inode, value.rsplit(b" ", 2)[1]), []).append(path)
        return (sorted(paths) for paths in groups.values() if len(paths) > 1)


def _field(value: bytes, index: int) -> bytes:
    return value.split(b" ", index + 1)[index]


def content(value: bytes) -> int:
    """Bytes of content of a listing's entry, holes not counted; 0 unless it is a regular file."""
    if not value.startswith(b"f"):
        return 0
    return min(int(_field(value, 6)), int(value.rsplit(b" ", 1)[1]) * 512)


def settle(root: Path) -> None:
    """Let what programs changed in memory reach the disk, so that every later change of a mapped
    file sets its time."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        run(["sync", "--file-system", f"/proc/{os.getpid()}/fd/{descriptor}"], deadline=_DEADLINE)
    finally:
        os.close(descriptor)


def scan(
    root: Path,
    keep: Keep = everything,
    prune: Sequence[bytes] = (),
    tell: Callable[[Sequence[bytes]], None] | None = None,
) -> Listing:
    """List the tree ``root``. ``keep(path, directory)`` is asked about each absolute path in it;
    below ``prune`` (absolute in it, literal) nothing is even looked at. ``tell`` hears of paths
    while they are found.

    Raises CloneError when it cannot be read; what vanished meanwhile is no complaint.
    """
    cut: list[bytes] = []
    for path in prune:
        cut += [b"-path", _literal(os.fsencode(root) + path), b"-prune", b"-o"]
    argv = ["find", str(root), *(os.fsdecode(word) for word in cut), "-printf", _FORMAT]
    began = time.time() - _COARSE
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=said, env={**os.environ, "LC_ALL": "C"}
        ) as find:
            entries: dict[bytes, bytes] = {}
            for found in _records(find, keep):
                entries.update(found)
                if tell is not None:
                    tell(tuple(found))
        said.seek(0)
        words = said.read().decode(errors="replace").splitlines()
    if not entries:
        raise CloneError(f"{root} cannot be read: {' '.join(words)}")
    limit = b"%d" % int(began)
    return Listing(
        entries,
        frozenset(path for path, value in entries.items() if _recent(value, limit, began)),
        tuple(line for line in words if not line.endswith("No such file or directory")),
    )


def _records(find: subprocess.Popen[bytes], keep: Keep) -> Iterator[dict[bytes, bytes]]:
    """Path and value of what find prints, as it comes."""
    if find.stdout is None:
        raise CloneError("find has no output")
    rest = b""
    while piece := os.read(find.stdout.fileno(), 1 << 20):
        *records, rest = (rest + piece).split(b"\0")
        split = (record.partition(b"\t") for record in records)
        yield {
            path: value
            for value, _, path in split
            if value[:1] != b"s" and (not path or keep(b"/" + path, value[:1] == b"d"))
        }


def _recent(value: bytes, second: bytes, began: float) -> bool:
    """Did it change after ``began``? The second is compared first, as text: most are long ago."""
    stamp = value.rsplit(b" ", 3)[1]
    return stamp[: len(second)] >= second and _ns(stamp) >= began * 10**9


def _literal(path: bytes) -> bytes:
    """``path`` as a pattern of find that means just that."""
    return b"".join(b"\\" + bytes([c]) if c in b"*?[]\\" else bytes([c]) for c in path)


def parent(path: bytes) -> bytes:
    """The directory that ``path`` lies in."""
    return path.rpartition(b"/")[0]


@dataclass(frozen=True, slots=True)
class Delta:
    """What brings an older copy up to date. ``remove`` (deepest first) goes, then ``reset``
    (directories) lose attributes that only they may have, then ``send`` is written over it."""

    remove: tuple[bytes, ...] = ()
    reset: tuple[bytes, ...] = ()
    send: tuple[bytes, ...] = ()
    files: int = field(default=0, compare=False)


def compare(old: Listing, new: Listing, also: Iterable[bytes] = ()) -> Delta:
    """From ``old`` to ``new``, two listings of one tree. ``also`` is sent in any case."""
    changed = {path for path in also if path in new.entries}
    for path, value in new.entries.items():
        before = old.entries.get(path)
        if before is None or before.rsplit(b" ", 2)[0] != value.rsplit(b" ", 2)[0]:
            changed.add(path)
    changed |= {path for path in old.racy if path in new.entries}
    return delta(new, changed, {path: value[:1] for path, value in old.entries.items()})


def delta(new: Listing, changed: set[bytes], kinds: Mapping[bytes, bytes]) -> Delta:
    """Sending ``changed`` of ``new`` to where entries of these ``kinds`` lie."""
    for paths in new.linked():
        if not changed.isdisjoint(paths):
            changed.update(paths)
    gone = {path for path in kinds if path not in new.entries}
    turned = {path for path in changed if kinds.get(path, b"") not in (b"", new.entries[path][:1])}
    # writing into a directory sets its time, which has to be set back; the root has the marker
    parents = {b"", *(parent(path) for path in changed | gone)}
    send = sorted(changed | {path for path in parents if path in new.entries})
    folders = (path for path in send if kinds.get(path) == b"d" == new.entries[path][:1])
    remove = sorted(gone | turned, key=lambda path: (path.count(b"/"), path), reverse=True)
    return Delta(tuple(remove), tuple(folders), tuple(send), len(changed) + len(gone))


def portable(listing: Listing, root: Path) -> dict[bytes, bytes]:
    """Path → nine bytes: the kind, and a digest of everything that must be equal in a copy of it on
    another file system (but the content, for which size and time stand)."""
    first = {path: paths[0] for paths in listing.linked() for path in paths}
    found = {}
    base = os.fsencode(root)
    for path, value in listing.entries.items():
        kind, _, mode, uid, gid, _, size, mtime, _ = value.split(b" ", 9)[:9]
        parts = [mode, uid, gid, b"" if kind in b"dbc" else size, mtime, first.get(path, b"")]
        try:
            parts += _attributes(base + b"/" + path if path else base, kind)
        except FileNotFoundError:
            parts = [b"gone"]
        found[path] = kind + hashlib.blake2b(b"\0".join(parts), digest_size=8).digest()
    return found


def _attributes(path: bytes, kind: bytes) -> Iterator[bytes]:
    """Extended attributes (ACLs and capabilities are some), a link's target, a device's numbers."""
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        yield os.fsencode(name)
        yield os.getxattr(path, name, follow_symlinks=False)
    if kind == b"l":
        yield os.readlink(path)  # noqa: PTH115 - bytes
    elif kind in b"bc":
        yield b"%d" % os.lstat(path).st_rdev


def differing(mine: Mapping[bytes, bytes], theirs: Mapping[bytes, bytes]) -> set[bytes]:
    """The paths of ``mine`` that ``theirs`` lacks or has otherwise."""
    return {path for path, digest in mine.items() if theirs.get(path) != digest}


def pack(digests: Mapping[bytes, bytes]) -> bytes:
    """``portable``'s answer for the wire."""
    return b"".join(digest + path + b"\0" for path, digest in digests.items())


def unpack(packed: bytes) -> dict[bytes, bytes]:
    """What ``pack`` made. Digests may hold zero bytes, paths not."""
    found, at = {}, 0
    while at < len(packed):
        end = packed.index(b"\0", at + 9)
        found[packed[at + 9 : end]] = packed[at : at + 9]
        at = end + 1
    return found
