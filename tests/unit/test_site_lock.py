"""site.lock: which image each name stands for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ets.errors import InputError
from ets.site import lock

A, B = "a" * 64, "b" * 64


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = lock.beside(tmp_path / "site.toml")
    assert path.name == "site.lock"
    assert lock.read(path) == {}
    lock.write(path, {"console": A, "another": B})
    assert lock.read(path) == {"another": B, "console": A}
    lock.write(path, {"console": B})
    assert lock.read(path) == {"console": B}
    assert [entry.name for entry in tmp_path.iterdir()] == ["site.lock"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_equal_locks_are_equal_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one.lock", tmp_path / "two.lock"
    lock.write(one, {"a": A, "b": B})
    lock.write(two, {"b": B, "a": A})
    assert one.read_bytes() == two.read_bytes()


def test_a_wrong_digest_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "site.lock"
    lock.write(path, {"console": A})
    with pytest.raises(InputError, match="is not the digest"):
        lock.write(path, {"console": A[:-1]})
    assert lock.read(path) == {"console": A}


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        lock.write(tmp_path / "none" / "site.lock", {})
    with pytest.raises(InputError, match="cannot be read"):
        lock.read(tmp_path)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "site.lock"
    path.mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        lock.write(path, {"console": A})
    assert [entry.name for entry in tmp_path.iterdir()] == ["site.lock"]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", '{"format": 2, "images": {}}', '{"format": 1}',
        '{"format": 1, "images": []}',
        '{"format": 1, "images": {"a": "x"}}', '{"format": 1, "images": {"a": 5}}', "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_lock(text: str, tmp_path: Path) -> None:
    path = tmp_path / "site.lock"
    path.write_text(text)
    with pytest.raises(InputError, match="is not a lock"):
        lock.read(path)


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_lock_or_refused(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lock") / "site.lock"
    path.write_bytes(data)
    with pytest.raises(InputError):
        lock.read(path)
