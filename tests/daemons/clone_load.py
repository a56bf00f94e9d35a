"""Runs on a primary as a unit of its own: writes all the time, and says how each write relates to
the others, so that a copy can be judged. Takes the directory and a name.

``ledger``: a number goes into the first file, then into the second: at one moment they differ by
one at most. ``wal`` and ``rollback``: sqlite; every transaction moves an amount between two rows.
``log``: lines, each with its number, each waited for. ``beat``: a number, of a unit that is never
stopped.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import sys
import time
from pathlib import Path


def ledger(place: Path) -> None:
    first, second = place / "ledger.a", place / "ledger.b"
    for number in itertools.count(1):
        for path in (first, second):
            with path.open("r+b" if path.exists() else "w+b") as file:
                file.write(b"%020d" % number)


def transfers(place: Path, mode: str) -> None:
    database = sqlite3.connect(place / f"{mode}.db")
    database.execute(f"PRAGMA journal_mode={'WAL' if mode == 'wal' else 'DELETE'}")
    database.execute("CREATE TABLE IF NOT EXISTS account(name TEXT PRIMARY KEY, amount INTEGER)")
    database.execute("CREATE TABLE IF NOT EXISTS done(number INTEGER, note BLOB)")
    database.execute("INSERT OR IGNORE INTO account VALUES ('a', 1000000), ('b', 0)")
    database.commit()
    for number in itertools.count():
        database.execute("UPDATE account SET amount = amount - 1 WHERE name = 'a'")
        database.execute("UPDATE account SET amount = amount + 1 WHERE name = 'b'")
        database.execute("INSERT INTO done VALUES (?, randomblob(3000))", (number,))
        database.execute("DELETE FROM done WHERE number < ?", (number - 200,))
        database.commit()


def log(place: Path) -> None:
    with (place / "log").open("ab", buffering=0) as file:
        for number in itertools.count():
            file.write(b"%d\n" % number)
            os.fsync(file.fileno())


def beat(place: Path) -> None:
    for number in itertools.count():
        (place / "beat").write_text(f"{number}")
        time.sleep(0.01)


def main(place: Path, what: str) -> None:
    if what in ("wal", "rollback"):
        transfers(place, what)
    {"ledger": ledger, "log": log, "beat": beat}[what](place)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
