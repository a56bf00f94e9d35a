"""The hash tree: every byte counts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ets.errors import ImageError
from ets.image import verity

BLOCK = 4096


def image(path: Path, blocks: int) -> tuple[int, str]:
    path.write_bytes(b"".join(number.to_bytes(4, "big") * 1024 for number in range(blocks)))
    return verity.append_tree(path)


@pytest.mark.parametrize(
    ("blocks", "tree"),
    [(1, []), (2, [1]), (128, [1]), (129, [2, 1]), (16384, [128, 1]), (16385, [129, 2, 1])],
)
def test_levels(blocks: int, tree: list[int]) -> None:
    assert verity.levels(blocks) == tree


def test_a_tree_of_one_level_is_what_the_kernel_expects(tmp_path: Path) -> None:
    path = tmp_path / "image"
    blocks, root = image(path, 3)
    content = path.read_bytes()
    data = [content[at : at + BLOCK] for at in range(0, 3 * BLOCK, BLOCK)]
    top = b"".join(hashlib.sha256(block).digest() for block in data).ljust(BLOCK, b"\0")
    assert blocks == 3
    assert content[3 * BLOCK :] == top
    assert root == hashlib.sha256(top).hexdigest()


def test_the_top_level_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "image"
    blocks, root = image(path, 200)
    content = path.read_bytes()
    assert len(content) == (200 + 3) * BLOCK
    top = content[blocks * BLOCK : (blocks + 1) * BLOCK]
    assert hashlib.sha256(top).hexdigest() == root
    below = content[(blocks + 1) * BLOCK : (blocks + 2) * BLOCK]
    assert top[:32] == hashlib.sha256(below).digest()


def test_an_odd_size_is_filled_up_with_zeros(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"x" * 5000)
    blocks, root = verity.append_tree(path)
    assert blocks == 2
    assert path.read_bytes()[5000:8192] == bytes(3192)
    assert verity.bad_blocks(path, blocks, root) == []


def test_nothing_has_no_tree(tmp_path: Path) -> None:
    (tmp_path / "image").touch()
    with pytest.raises(ImageError, match="empty"):
        verity.append_tree(tmp_path / "image")


@pytest.mark.parametrize("blocks", [1, 2, 128, 129, 300])
def test_a_sound_image_has_no_bad_block(tmp_path: Path, blocks: int) -> None:
    _, root = image(tmp_path / "image", blocks)
    assert verity.bad_blocks(tmp_path / "image", blocks, root) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(where=st.integers(0, 203 * BLOCK - 1), bit=st.integers(0, 7))
def test_every_flipped_bit_is_found(tmp_path: Path, where: int, bit: int) -> None:
    path = tmp_path / "image"
    _, root = image(path, 200)
    content = bytearray(path.read_bytes())
    content[where] ^= 1 << bit
    path.write_bytes(content)
    assert where // BLOCK in verity.bad_blocks(path, 200, root)


def test_a_bad_data_block_is_the_only_one_named(tmp_path: Path) -> None:
    path = tmp_path / "image"
    _, root = image(path, 200)
    content = bytearray(path.read_bytes())
    content[77 * BLOCK + 5] ^= 1
    path.write_bytes(content)
    assert verity.bad_blocks(path, 200, root) == [77]


@pytest.mark.parametrize("size", [0, 1, 100 * BLOCK, 203 * BLOCK - 1, 203 * BLOCK + 1])
def test_a_wrong_length_is_found(tmp_path: Path, size: int) -> None:
    path = tmp_path / "image"
    _, root = image(path, 200)
    with path.open("r+b") as file:
        file.truncate(size)
    assert verity.bad_blocks(path, 200, root)


def test_another_root_hash_matches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "image"
    image(path, 3)
    assert verity.bad_blocks(path, 3, "0" * 64) == [0, 1, 2, 3]
