"""A write load for a server that is being copied: ``python3 -m ets.lab.load``, run on it.

``write DIRECTORY`` writes numbered lines, each of which is on the disk before the next one, and as
many rows into a database in each of sqlite's two ways, for ever. ``look DIRECTORY`` prints as JSON
what a copy of that looks like: whole lines and none missing, and sound databases.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

MODES = ("wal", "delete")
_PAUSE = 0.02


def write(directory: Path, times: int | None = None) -> None:
    """Write ``times`` times, or for ever."""
    directory.mkdir(parents=True, exist_ok=True)
    log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    databases = [_database(directory, mode) for mode in MODES]
    number = 0
    while times is None or number < times:
        number += 1
        os.write(log, f"{number} {'x' * 200}\n".encode())
        os.fsync(log)
        for database in databases:
            database.execute("begin")
            database.execute("insert into entries values (?, ?)", (number, number))
            database.execute("update entries set again = number where number < ?", (number % 50,))
            database.execute("commit")
        time.sleep(_PAUSE)


def look(directory: Path) -> dict[str, Any]:
    """``lines`` and ``rows`` there are, whether the lines are ``whole``, and of each database what
    sqlite says of it (``ok``)."""
    text = (directory / "log").read_bytes()
    numbers = [int(line.split()[0]) for line in text.splitlines()]
    whole = text.endswith(b"\n") and numbers == list(range(1, len(numbers) + 1))
    found: dict[str, Any] = {"lines": len(numbers), "whole": whole, "rows": []}
    for mode in MODES:
        database = _database(directory, mode)
        (found[mode],) = database.execute("pragma integrity_check").fetchone()
        found["rows"] += database.execute("select count(*) from entries").fetchone()
    return found


def _database(directory: Path, mode: str) -> sqlite3.Connection:
    database = sqlite3.connect(directory / f"{mode}.db", isolation_level=None, timeout=30)
    database.execute("pragma journal_mode=" + mode)
    database.execute("create table if not exists entries (number integer, again integer)")
    return database


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        sys.stdout.write(json.dumps(look(Path(sys.argv[2]))))
