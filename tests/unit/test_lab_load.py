"""The write load's own look at a copy finds what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ets.lab import load


@pytest.fixture
def written(tmp_path: Path) -> Path:
    load.write(tmp_path / "load", times=20)
    return tmp_path / "load"


def test_a_right_copy(written: Path) -> None:
    found = load.look(written)
    assert found == {"lines": 20, "whole": True, "rows": [20, 20], "wal": "ok", "delete": "ok"}


def test_a_torn_or_missing_line(written: Path) -> None:
    log = written / "log"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines)[:-3])
    assert not load.look(written)["whole"]
    log.write_bytes(b"".join(lines[:4] + lines[5:]))
    assert not load.look(written)["whole"]


def test_a_database_that_is_not_sound(written: Path) -> None:
    path = written / "delete.db"
    content = bytearray(path.read_bytes())
    content[4096 + 8 : 4096 + 40] = b"\xff" * 32
    path.write_bytes(content)
    try:
        said = load.look(written)["delete"]
    except Exception as error:
        said = str(error)
    assert said != "ok"
