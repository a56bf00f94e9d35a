"""Listings, and what brings an older copy up to date."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ets.clone.listing import (
    Listing,
    compare,
    content,
    delta,
    pack,
    parse,
    portable,
    scan,
    unpack,
)  # fmt: skip


def entry(
    kind: str = "f", inode: int = 1, links: int = 1, size: int = 5, ctime: float = 1
) -> bytes:
    return f"{kind} {inode} 644 0 0 {links} {size} 1.5 {ctime}.5 64768 8".encode()


def tree(**entries: bytes) -> Listing:
    return Listing(
        {b"": entry("d", 99), **{name.encode(): value for name, value in entries.items()}}
    )


def test_names_of_any_bytes(tmp_path: Path) -> None:
    base = os.fsencode(tmp_path)
    names = {b"new\nline", b"bad\xff", b" a b", b"-x", b"tab\tin", b"back\\slash"}
    for name in names:
        Path(os.fsdecode(base + b"/" + name)).write_bytes(b"x")
    assert scan(tmp_path).entries.keys() == {b"", *names}


def test_an_entry_is_read_to_the_nanosecond(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    os.utime(path, ns=(5, 1_600_000_000_000_000_007))
    found = parse(scan(tmp_path).entries[b"a"])
    about = path.stat()
    assert (found.mtime, found.ctime) == (about.st_mtime_ns, about.st_ctime_ns)
    assert (found.kind, found.inode, found.size) == ("f", about.st_ino, 5)
    assert (found.mode, found.uid, found.gid) == (about.st_mode & 0o7777, 0, 0)


def test_what_is_pruned_is_not_listed_and_a_pattern_means_itself(tmp_path: Path) -> None:
    for name in ("a*", "ab"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
    assert scan(tmp_path, prune=[b"/a*"]).entries.keys() == {b"", b"ab", b"ab/x"}


def test_a_file_that_changed_just_now_is_sent_again(tmp_path: Path) -> None:
    (tmp_path / "fresh").touch()
    first = scan(tmp_path)
    assert b"fresh" in first.racy
    assert b"fresh" in compare(first, first).send


def test_unchanged_trees_need_nothing_but_the_root() -> None:
    same = tree(a=entry(), b=entry("l", 2))
    assert compare(same, same).send == (b"",)
    assert compare(same, same).files == 0


def test_place_on_the_disk_does_not_count() -> None:
    moved = entry().replace(b" 64768 8", b" 9 16")
    assert compare(tree(a=entry()), tree(a=moved)).files == 0


def test_parents_of_what_changed_come_too() -> None:
    old = Listing({b"": entry("d", 9), b"d": entry("d", 8), b"d/f": entry()})
    new = Listing({**old.entries, b"d/f": entry(ctime=2)})
    assert compare(old, new).send == (b"", b"d", b"d/f")


def test_all_names_of_a_file_come_together() -> None:
    old = tree(a=entry(links=2), b=entry(links=2), c=entry(inode=3))
    new = tree(a=entry(links=3), b=entry(links=2), c=entry(inode=3), d=entry(links=2))
    assert set(compare(old, new).send) == {b"", b"a", b"b", b"d"}


def test_what_is_of_another_kind_is_removed_first() -> None:
    old = tree(a=entry("d"), b=entry())
    what = compare(old, tree(a=entry(), b=entry("d")))
    assert set(what.remove) == {b"a", b"b"}
    assert what.reset == (b"",)


def test_deepest_first() -> None:
    old = Listing({b"": entry("d"), b"d": entry("d"), b"d/e": entry("d"), b"d/e/f": entry()})
    assert compare(old, tree()).remove == (b"d/e/f", b"d/e", b"d")


def test_holes_are_no_content() -> None:
    assert content(entry(size=50 << 30)) == 8 * 512
    assert content(entry("d")) == 0


def test_size_counts_each_file_once() -> None:
    linked = tree(a=entry(links=2), b=entry(links=2))
    assert linked.size == 2 * 8 * 512
    assert linked.content == 5


@given(st.dictionaries(
    st.binary(max_size=20).map(lambda name: name.replace(b"\0", b"x")),
    st.binary(min_size=9, max_size=9),
))  # fmt: skip
def test_digests_survive_the_wire(digests: dict[bytes, bytes]) -> None:
    assert unpack(pack(digests)) == digests


NAMES = st.sampled_from([b"a", b"b", b"d", b"d/a", b"d/b", b"d/e", b"d/e/a"])


@st.composite
def trees(draw: st.DrawFn) -> Listing:
    """Trees in which what is below a path makes that a directory."""
    found = {b"": entry("d", 99)}
    for path in sorted(draw(st.sets(NAMES))):
        folder = path.rpartition(b"/")[0]
        if found.get(folder, b"").startswith(b"d"):
            kind = draw(st.sampled_from("fdl"))
            found[path] = entry(kind, draw(st.integers(1, 9)), 1, 5, draw(st.integers(1, 3)))
    return Listing(found)


@given(trees(), trees())
def test_a_delta_makes_the_old_tree_the_new_one(old: Listing, new: Listing) -> None:
    """As the target carries it out, on a model."""
    what = compare(old, new)
    model = dict(old.entries)
    for path in what.remove:
        assert not any(other.startswith(path + b"/") for other in model)
        model.pop(path)
    for path in what.send:
        assert model.get(path.rpartition(b"/")[0], b"").startswith(b"d")
        assert model.get(path, new.entries[path])[:1] == new.entries[path][:1]
        model[path] = new.entries[path]
    assert model == new.entries


def test_attributes_count_in_another_tree(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_bytes(b"x")
        os.utime(tmp_path / name / "f", ns=(1, 1))
    one, two = (portable(scan(tmp_path / name), tmp_path / name) for name in ("one", "two"))
    assert one[b"f"] == two[b"f"]
    os.setxattr(tmp_path / "two/f", "user.x", b"1")
    assert portable(scan(tmp_path / "two"), tmp_path / "two")[b"f"] != one[b"f"]


def test_links_count_in_another_tree(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").touch()
    (tmp_path / "one/b").hardlink_to(tmp_path / "one/a")
    (tmp_path / "two/b").touch()
    for path in tmp_path.glob("*/*"):
        os.utime(path, ns=(1, 1))
    one, two = (portable(scan(tmp_path / name), tmp_path / name) for name in ("one", "two"))
    assert one[b"b"] != two[b"b"]
    what = delta(scan(tmp_path / "one"), {b"b"}, dict.fromkeys(two, b"f"))
    assert set(what.send) >= {b"a", b"b"}
