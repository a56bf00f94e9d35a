"""What a peer sends is not believed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unit.image_store import make_image

from ets.errors import ImageError
from ets.image.copy import FolderSource, SshSource, fetch, fetch_any
from ets.image.store import MANIFEST, Store


@pytest.fixture
def peer(tmp_path: Path) -> Store:
    return Store(tmp_path / "peer")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "images")


Change = Callable[[str, bytes], Iterator[bytes]]


class ChangedSource(FolderSource):
    """A peer that changes what it sends."""

    def __init__(self, root: Path, change: Change) -> None:
        super().__init__(root)
        self._change = change

    @contextmanager
    def open(self, digest: str, file: str) -> Iterator[Iterator[bytes]]:
        with super().open(digest, file) as pieces:
            yield self._change(file, b"".join(pieces))


def flip(name: str) -> Change:
    def change(file: str, content: bytes) -> Iterator[bytes]:
        if file == name:
            content = content[:50] + bytes([content[50 % len(content)] ^ 1]) + content[51:]
        yield content

    return change


def cut(name: str) -> Change:
    def change(file: str, content: bytes) -> Iterator[bytes]:
        yield content[:-1] if file == name else content

    return change


def endless(name: str) -> Change:
    def change(file: str, content: bytes) -> Iterator[bytes]:
        yield content
        while file == name:
            yield bytes(1000)

    return change


def full_disk(name: str) -> Change:
    def change(file: str, content: bytes) -> Iterator[bytes]:
        if file == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield content

    return change


def test_a_copy_is_the_same_image(store: Store, peer: Store) -> None:
    digest = make_image(peer)
    assert fetch(store, digest, FolderSource(peer.root)) == peer.manifest(digest)
    assert store.digests() == [digest]
    assert store.verify(digest) == []
    assert store.exported(digest)
    fetch(store, digest, FolderSource(Path("/nowhere")))


@pytest.mark.parametrize("change", [flip, cut, endless, full_disk])
@pytest.mark.parametrize("name", [MANIFEST, "root.img", "vmlinuz", "initrd.img"])
def test_what_is_not_the_image_is_refused_and_leaves_nothing(
    store: Store, peer: Store, change: Callable[[str], Change], name: str
) -> None:
    kept = make_image(store, b"kept")
    digest = make_image(peer)
    with pytest.raises(ImageError) as caught:
        fetch(store, digest, ChangedSource(peer.root, change(name)))
    assert str(peer.root) in str(caught.value) or "disk is full" in str(caught.value)
    assert store.digests() == [kept]
    assert list(store.arriving.iterdir()) == []
    assert [path.name for path in store.exports.iterdir()] == [store.manifest(kept).roothash]


def test_another_image_than_asked_for_is_refused(store: Store, peer: Store) -> None:
    digest, other = make_image(peer, b"one"), make_image(peer, b"two")

    class Swapped(FolderSource):
        @contextmanager
        def open(self, digest: str, file: str) -> Iterator[Iterator[bytes]]:
            with super().open(other, file) as pieces:
                yield pieces

    with pytest.raises(ImageError, match="instead"):
        fetch(store, digest, Swapped(peer.root))
    assert store.digests() == []


def test_the_next_peer_is_asked_and_the_bad_one_named(store: Store, peer: Store) -> None:
    digest = make_image(peer)
    bad = ChangedSource(peer.root, flip("root.img"))
    _, failures = fetch_any(
        store, digest, [FolderSource(Path("/nowhere")), bad, FolderSource(peer.root)]
    )
    assert "/nowhere" in str(failures[0])
    assert "bad blocks" in str(failures[1])
    assert store.verify(digest) == []


def test_no_peer_at_all_is_said(store: Store) -> None:
    with pytest.raises(ImageError, match="no server to ask"):
        fetch_any(store, "0" * 64, [])


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ssh that logs in here, whatever host it is given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(
        '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\n'
        'test "$2" = peer || { echo "no route to $2" >&2; exit 255; }\nexec sh -c "$3"\n'
    )
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.usefixtures("ssh")
def test_an_image_comes_over_ssh(store: Store, peer: Store) -> None:
    digest = make_image(peer)
    fetch(store, digest, SshSource("peer", peer.root))
    assert store.verify(digest) == []


@pytest.mark.usefixtures("ssh")
def test_what_ssh_says_is_passed_on(store: Store, peer: Store) -> None:
    with pytest.raises(ImageError, match="no route to nowhere"):
        fetch(store, "0" * 64, SshSource("nowhere", peer.root))
    with pytest.raises(ImageError, match="No such file"):
        fetch(store, "0" * 64, SshSource("peer", peer.root))
    assert list(store.arriving.iterdir()) == []
