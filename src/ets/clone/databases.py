"""Databases by their own means: asked to be still before the silence where they can be, and the
copies looked at afterwards, while nobody waits.

sqlite, PostgreSQL, MariaDB's InnoDB: a copy of all files in one state is what a power cut leaves,
from which they recover. tdb without transactions does not, so what fails its own check is copied
again with ``tdbbackup``, which takes the locks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from ets.host.run import run

_SQLITE, _TDB = b"SQLite format 3\0", b"TDB file\n"
_SIDECARS = (b"-wal", b"-journal", b"-shm")
_LOCKING = 10.0


def kind(path: bytes) -> str:
    """``sqlite``, ``tdb``, or nothing: by what the file begins with."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        begin = os.read(descriptor, 16)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    return "sqlite" if begin == _SQLITE else "tdb" if begin.startswith(_TDB) else ""


def mapped() -> Iterator[bytes]:
    """Absolute paths of files that some program writes through its memory (``mmap``): their times
    need not tell."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            for line in maps.read_bytes().splitlines():
                words = line.split(None, 5)
                if len(words) > 5 and words[1][1:4:2] == b"ws" and words[5].startswith(b"/"):
                    yield words[5]


@contextlib.contextmanager
def still() -> Iterator[str]:
    """MariaDB, where it runs, writes nothing inside (``FLUSH TABLES WITH READ LOCK``); words when
    it could not be brought to that."""
    client = shutil.which("mariadb") or shutil.which("mysql")
    if client is None or not Path("/run/mysqld/mysqld.sock").exists():
        yield ""
        return
    with subprocess.Popen(
        [client, "--batch", "--skip-column-names", "--unbuffered"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes")
        try:
            process.stdin.write(
                b"SET lock_wait_timeout=5; FLUSH TABLES WITH READ LOCK; SELECT 'locked';\n"
            )
            process.stdin.flush()
            locked = process.stdout.readline() == b"locked\n"
            yield (
                ""
                if locked
                else "MariaDB did not let itself be locked; it will recover as after a crash"
            )
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOCKING)
            process.kill()


def suspects(root: Path, sent: Iterable[bytes]) -> dict[bytes, str]:
    """The databases among the paths ``sent``, and what they are."""
    base = os.fsencode(root) + b"/"
    found = {path: kind(base + path) for path in sent}
    return {path: what for path, what in found.items() if what}


def with_sidecars(databases: Iterable[bytes], sent: frozenset[bytes]) -> list[bytes]:
    """``databases`` and the files beside them that belong to them."""
    names = [path + ending for path in databases for ending in (b"", *_SIDECARS)]
    return [name for name in names if name in sent]


def sound(path: Path, what: str) -> bool | None:
    """Does this copy pass its own check? None when there is nothing to check it with. It may be
    changed (a journal is played back)."""
    if what == "sqlite":
        try:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                return bool(connection.execute("PRAGMA quick_check").fetchone() == ("ok",))
        except sqlite3.Error:
            return False
    if shutil.which("tdbbackup") is None:
        return None
    return run(["tdbbackup", "-v", str(path)], check=False).status == 0


def backup(live: Path, into: Path) -> bool:
    """A consistent copy of the tdb ``live`` while it is in use, with its owner and mode."""
    made = Path(f"{live}.ets-clone")
    try:
        if run(["tdbbackup", "-s", ".ets-clone", str(live)], check=False).status != 0:
            return False
        about = live.stat()
        shutil.copyfile(made, into)
        os.chown(into, about.st_uid, about.st_gid)
        into.chmod(about.st_mode & 0o7777)
    except OSError:
        return False
    finally:
        made.unlink(missing_ok=True)
    return True
