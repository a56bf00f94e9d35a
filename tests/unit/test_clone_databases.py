"""Databases are known by what they begin with, and looked at before anybody relies on them."""

from __future__ import annotations

import mmap
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from ets.clone import databases


def make(path: Path, mode: str = "DELETE") -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA journal_mode={mode}")
        database.execute("CREATE TABLE t(x)")
        database.executemany("INSERT INTO t VALUES (?)", [("x" * 500,) for _ in range(100)])
        database.commit()


def test_kinds(tmp_path: Path) -> None:
    make(tmp_path / "no-name")
    (tmp_path / "a.tdb").write_bytes(b"TDB file\n" + bytes(100))
    (tmp_path / "empty.db").touch()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("no-name")
    names = [b"no-name", b"a.tdb", b"empty.db", b"fifo", b"link", b"gone"]
    assert databases.suspects(tmp_path, names) == {b"no-name": "sqlite", b"a.tdb": "tdb"}


def test_a_torn_database_is_noticed(tmp_path: Path) -> None:
    make(tmp_path / "db")
    assert databases.sound(tmp_path / "db", "sqlite") is True
    with (tmp_path / "db").open("r+b") as file:
        file.truncate(tmp_path.joinpath("db").stat().st_size // 2)
    assert databases.sound(tmp_path / "db", "sqlite") is False


def test_what_is_in_the_log_counts(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "db")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE t(x)")
    database.commit()
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("db", "db-wal"):
        (copy / name).write_bytes((tmp_path / name).read_bytes())
    database.close()
    assert databases.sound(copy / "db", "sqlite") is True
    with closing(sqlite3.connect(copy / "db")) as again:
        assert again.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_sidecars_go_along() -> None:
    sent = frozenset({b"a/db", b"a/db-wal", b"a/other", b"b-journal"})
    assert databases.with_sidecars([b"a/db"], sent) == [b"a/db", b"a/db-wal"]


def test_files_that_are_written_through_memory(tmp_path: Path) -> None:
    for name in ("shared", "read"):
        (tmp_path / name).write_bytes(bytes(4096))
    with (
        (tmp_path / "shared").open("r+b") as one,
        (tmp_path / "read").open("rb") as other,
        mmap.mmap(one.fileno(), 0),
        mmap.mmap(other.fileno(), 0, prot=mmap.PROT_READ),
    ):
        found = set(databases.mapped())
    assert os.fsencode(tmp_path / "shared") in found
    assert os.fsencode(tmp_path / "read") not in found
