"""The store holds whole, verified images or nothing; publishing is one pointer."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.image_store import damage, make_image

from ets.errors import ImageError
from ets.image import publish
from ets.image.publish import Publication, judge
from ets.image.scrub import quarantine, scrub
from ets.image.store import MANIFEST, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "images")


def test_an_image_is_kept_under_its_digest_and_served_under_its_root_hash(store: Store) -> None:
    digest = make_image(store)
    manifest = store.manifest(digest)
    assert store.digests() == [digest]
    assert manifest.digest == digest
    assert (store.exports / manifest.roothash).samefile(store.path(digest, "root.img"))
    assert store.path(digest, "root.img").stat().st_mode & 0o777 == 0o444
    assert store.verify(digest) == []
    assert list(store.arriving.iterdir()) == []


def test_admitting_it_twice_changes_nothing(store: Store) -> None:
    digest = make_image(store)
    inode = store.path(digest, "root.img").stat().st_ino
    assert make_image(store) == digest
    assert store.path(digest, "root.img").stat().st_ino == inode


def test_a_file_that_is_not_what_the_manifest_says_is_refused(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    digest = make_image(other)
    for name in ("root.img", "vmlinuz", "initrd.img", MANIFEST):
        with store.incoming("test") as folder:
            for path in (other.store / digest).iterdir():
                (folder / path.name).write_bytes(path.read_bytes())
            damage(folder / name, 2)
            with pytest.raises(ImageError):
                store.admit(folder, digest)
    assert store.digests() == []
    assert list(store.exports.iterdir()) == []


def test_a_file_too_many_is_refused(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    digest = make_image(other)
    with store.incoming("test") as folder:
        for path in (other.store / digest).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "more").touch()
        with pytest.raises(ImageError, match="more"):
            store.admit(folder, digest)


def test_what_a_crash_left_behind_is_removed_by_the_next_one(store: Store) -> None:
    store.prepare()
    left = store.arriving / "build-left"
    left.mkdir()
    (left / "root.img").write_bytes(b"half")
    with store.incoming("one") as mine:
        assert not left.exists()
        with store.incoming("two"):
            assert mine.exists(), "a folder that somebody fills was taken for a leftover"


def test_a_failed_build_leaves_nothing(store: Store) -> None:
    def fail() -> None:
        with store.incoming("x") as folder:
            (folder / "root.img").write_bytes(b"half")
            raise ImageError("no")

    with pytest.raises(ImageError, match="no"):
        fail()
    assert list(store.arriving.iterdir()) == []


def test_an_unknown_digest_is_named(store: Store) -> None:
    make_image(store)
    with pytest.raises(ImageError, match="0000"):
        store.find("0000")
    with pytest.raises(ImageError, match="begin"):
        store.find("")


def test_damage_is_found_and_put_aside(store: Store) -> None:
    good, bad = make_image(store, b"good"), make_image(store, b"bad")
    publish.publish(store, "console", bad)
    damage(store.path(bad, "root.img"), 5000)
    found = scrub(store, rate=0)
    assert [item.digest for item in found] == [bad]
    assert "1 bad blocks, the first is 1" in found[0].wrong[0]
    roothash = store.manifest(bad).roothash
    quarantine(store, bad)
    assert store.digests() == [good]
    assert not (store.exports / roothash).exists()
    assert publish.publication(store, "console") is not None, "so that it is fetched again"
    assert scrub(store, rate=0) == []


def test_damage_of_the_manifest_or_kernel_is_found_too(store: Store) -> None:
    one, two = make_image(store, b"one"), make_image(store, b"two")
    damage(store.path(one, MANIFEST), 5)
    damage(store.path(two, "vmlinuz"), 0)
    assert {item.digest for item in scrub(store, rate=0)} == {one, two}
    quarantine(store, one)
    assert store.digests() == [two]


def test_a_missing_file_is_damage(store: Store) -> None:
    digest = make_image(store)
    store.path(digest, "initrd.img").unlink()
    assert "initrd.img cannot be read" in store.verify(digest)[0]


def test_scrubbing_keeps_to_its_rate(store: Store) -> None:
    make_image(store)
    began = time.monotonic()
    assert scrub(store, rate=100_000) == []
    assert time.monotonic() - began > 0.15


def test_publishing_is_one_file(store: Store) -> None:
    one, two = make_image(store, b"one"), make_image(store, b"two")
    assert publish.publish(store, "console", one) == Publication("console", one, 1)
    assert publish.publish(store, "console", two) == Publication("console", two, 2, (one,))
    assert publish.publish(store, "console", two).generation == 2
    file = json.loads((store.published / "console.json").read_bytes())
    assert file == {"name": "console", "digest": two, "generation": 2, "previous": [one]}


def test_rolling_back_twice_comes_back(store: Store) -> None:
    one, two = make_image(store, b"one"), make_image(store, b"two")
    publish.publish(store, "console", one)
    with pytest.raises(ImageError, match="earlier"):
        publish.rollback(store, "console")
    publish.publish(store, "console", two)
    assert publish.rollback(store, "console").digest == one
    assert publish.rollback(store, "console") == Publication("console", two, 4, (one,))


def test_an_incomplete_image_is_not_published(store: Store) -> None:
    one, two = make_image(store, b"one"), make_image(store, b"two")
    publish.publish(store, "console", one)
    store.path(two, "vmlinuz").unlink()
    with pytest.raises(ImageError, match="not complete"):
        publish.publish(store, "console", two)
    assert publish.publication(store, "console") == Publication("console", one, 1)


def test_a_peers_newer_publication_is_adopted_and_an_equal_other_one_is_an_alarm(
    store: Store,
) -> None:
    one, two = make_image(store, b"one"), make_image(store, b"two")
    publish.publish(store, "console", one)
    newer = Publication("console", two, 5, (one,))
    assert publish.adopt(store, newer) == newer
    assert publish.adopt(store, Publication("console", one, 4)) == newer
    with pytest.raises(ImageError, match="two images"):
        publish.adopt(store, Publication("console", one, 5))
    with pytest.raises(ImageError):
        publish.adopt(store, Publication("console", "0" * 64, 6))
    assert publish.publication(store, "console") == newer


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff", b'{"name":"c","digest":"x"}', b"[" * 9999]
)
def test_a_broken_publication_is_named(store: Store, content: bytes) -> None:
    store.prepare()
    (store.published / "console.json").write_bytes(content)
    with pytest.raises(ImageError, match=r"console\.json"):
        publish.published(store)


def test_prune_removes_only_what_nobody_needs(store: Store) -> None:
    digests = [make_image(store, b"%d" % number) for number in range(5)]
    for digest in digests[:4]:
        publish.publish(store, "console", digest)
    verdicts = publish.prune(store, in_use={digests[0]}, keep=1)
    assert {v.digest for v in verdicts if not v.keep} == {digests[1], digests[4]}
    assert set(store.digests()) == {digests[0], digests[2], digests[3]}
    served = {store.manifest(digest).roothash for digest in store.digests()}
    assert {path.name for path in store.exports.iterdir()} == served


digests_ = st.integers(0, 9).map(lambda number: f"{number:064x}")
publications_ = st.builds(
    Publication,
    st.sampled_from("abc"),
    digests_,
    st.integers(1, 9),
    st.lists(digests_, max_size=4).map(tuple),
)


@given(
    st.sets(digests_),
    st.lists(publications_, max_size=4),
    st.sets(digests_),
    st.integers(-1, 4),
)
def test_no_verdict_ever_removes_what_is_published_in_use_or_kept(
    digests: set[str], publications: list[Publication], in_use: set[str], keep: int
) -> None:
    for verdict in judge(digests, publications, in_use, keep=keep):
        needed = (
            verdict.digest in in_use
            or any(verdict.digest == p.digest for p in publications)
            or any(verdict.digest in p.previous[: max(0, keep)] for p in publications)
        )
        assert verdict.keep == needed
        assert verdict.reason
