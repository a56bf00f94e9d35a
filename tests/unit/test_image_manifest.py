"""A manifest has one spelling, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ets.errors import ImageError
from ets.image.manifest import Entry, Manifest, is_digest, parse

HASH = "ab" * 32
MANIFEST = Manifest(
    name="console",
    roothash=HASH,
    blocks=10,
    size=45056,
    kernel="6.1.0-1-cloud-amd64",
    seal=False,
    files={
        "root.img": Entry(HASH, 45056),
        "vmlinuz": Entry(HASH, 5),
        "initrd.img": Entry(HASH, 6),
    },
    recipe="cd" * 32,
)


def test_it_survives_being_written_and_read() -> None:
    assert parse(MANIFEST.encode()) == MANIFEST


def test_its_digest_is_that_of_its_bytes() -> None:
    assert MANIFEST.digest == hashlib.sha256(MANIFEST.encode()).hexdigest()
    assert is_digest(MANIFEST.digest)


def test_its_bytes_are_the_agreed_ones() -> None:
    encoded = MANIFEST.encode()
    assert encoded.endswith(b"}\n")
    assert b": " not in encoded
    raw = json.loads(encoded)
    assert list(raw) == sorted(raw)
    assert raw["format"] == 1


def test_the_order_of_files_does_not_matter() -> None:
    turned = replace(MANIFEST, files=dict(reversed(list(MANIFEST.files.items()))))
    assert turned.digest == MANIFEST.digest


def test_another_spelling_is_refused() -> None:
    spaced = json.dumps(json.loads(MANIFEST.encode()), sort_keys=True).encode() + b"\n"
    with pytest.raises(ImageError, match="spelling"):
        parse(spaced)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 2),
        ("roothash", "AB" * 32),
        ("roothash", HASH + "\n"),
        ("blocks", -1),
        ("blocks", True),
        ("blocks", 12),
        ("size", 5),
        ("name", "a\nb"),
        ("seal", 0),
        ("files", {}),
        ("files", {"../../etc/passwd": {"sha256": HASH, "size": 1}}),
        ("files", []),
    ],
)
def test_a_wrong_value_is_refused(key: str, value: object) -> None:
    raw = json.loads(MANIFEST.encode())
    raw[key] = value
    with pytest.raises(ImageError):
        parse(json.dumps(raw, sort_keys=True, separators=(",", ":")).encode() + b"\n")


def test_one_without_end_is_refused() -> None:
    with pytest.raises(ImageError, match="bytes"):
        parse(b"[" * 100_000)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_garbage_is_refused_and_nothing_else_happens(content: bytes) -> None:
    with pytest.raises(ImageError):
        parse(content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.sampled_from(sorted(json.loads(MANIFEST.encode()))), json_values)
def test_any_value_in_any_place_is_refused_or_read_back(key: str, value: object) -> None:
    raw = json.loads(MANIFEST.encode())
    raw[key] = value
    content = json.dumps(raw, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    try:
        read = parse(content)
    except ImageError:
        return
    assert read.encode() == content
