"""What is remembered of files, so that an audit reads only those that have changed.

Invariant: a digest is remembered only with a size, mtime, ctime and inode that the file cannot have
again with another content. So (git's "racy" rule) it is not remembered when the file was changed
less than ``YOUNG`` before it was looked at, for a second change may then carry the same times; and
never for databases, because pages that a program has mapped are written without a new time (mmap(2)
tells when st_ctime is updated: only for the first write to a clean page). A cache holds for one
boot, since after a power cut a file may have an older content under its newer times, and for
``LONGEST``, so that a disk that went bad in silence is found too.

What stays unseen until then, or until ``--paranoid``: writes through a mapping to a page that is
dirty already, writes to the disk past the file system, and a root who turns the clock back to the
nanosecond. The file is no more than a help: damaged, of another version or by other rules it counts
as none, so nothing waits for it to be on the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import blake3

#: nanoseconds: coarser than the time stamps of any file system with owners (ext3's are seconds)
YOUNG = 2_000_000_000
LONGEST = 7 * 24 * 3600
FORMAT = "ets audit cache 1"

#: names of files that programs map and write: trivial databases, LMDB, SQLite, Berkeley, InnoDB
DATABASES = (
    ".tdb", ".ldb", ".ntdb", ".mdb", ".db", ".db3", ".sqlite", ".sqlite3", ".db-wal", ".db-shm",
    ".sqlite-wal", ".sqlite-shm", ".bdb", ".dbm", ".gdbm", ".pag", ".ibd", ".ldf", ".mdf", ".dat",
)  # fmt: skip

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Kept:
    """A directory as it was: ``seen``, a digest of its names with what lstat said of them, empty
    when something in it must be read again in any case; ``rows`` as they travel (see ``tree``);
    ``keys``, JSON, for each row its key, empty when it must be read again."""

    seen: str
    rows: bytes
    keys: bytes


def key(about: os.stat_result) -> str:
    """What a remembered digest goes with."""
    return f"{about.st_ino} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"


def lasting(name: str, about: os.stat_result, looked: int) -> bool:
    """May what was read be remembered? ``looked``: the clock (ns) before lstat was asked."""
    young = max(about.st_mtime_ns, about.st_ctime_ns) > looked - YOUNG
    return not young and not (stat.S_ISREG(about.st_mode) and name.endswith(DATABASES))


@dataclass(frozen=True, slots=True)
class Cache:
    """All directories by path. ``born`` is the time (s) since which files were read for it."""

    born: float
    kept: Mapping[str, Kept]


def load(path: Path, rules: str, now: float) -> Cache:
    """The cache in the file ``path``; an empty one when there is none that may be used."""
    nothing = Cache(now, {})
    try:
        content = path.read_bytes()
        digest, _, rest = content.partition(b"\n")
        if blake3.blake3(rest).hexdigest().encode() != digest:
            return nothing
        head, _, _ = rest.partition(b"\n")
        known = json.loads(head)
        mine = [known["format"], known["rules"], known["boot"]] == [FORMAT, rules, _boot()]
        if not mine or not 0 <= now - known["born"] < LONGEST:
            return nothing
        at, kept = len(head) + 1, {}
        for name, (seen, rows, keys) in known["directories"].items():
            kept[name] = Kept(seen, rest[at : at + rows], rest[at + rows : at + rows + keys])
            at += rows + keys
    except (OSError, ValueError, KeyError, TypeError):
        return nothing
    return Cache(known["born"], kept)


def store(path: Path, rules: str, cache: Cache) -> None:
    """Write the cache, for root alone. What cannot be written is not remembered, no more."""
    directories = {
        name: (one.seen, len(one.rows), len(one.keys)) for name, one in cache.kept.items()
    }
    about = {"format": FORMAT, "rules": rules, "boot": _boot(), "born": cache.born}
    head = json.dumps({**about, "directories": directories}).encode() + b"\n"
    pieces = [head, *(piece for one in cache.kept.values() for piece in (one.rows, one.keys))]
    digest = blake3.blake3()
    for piece in pieces:
        digest.update(piece)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o600), "wb") as file:  # noqa: PTH123
            file.write(digest.hexdigest().encode() + b"\n")
            file.writelines(pieces)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
