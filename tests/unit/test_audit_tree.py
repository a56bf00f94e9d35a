"""The hash tree: equal to the list it stands for, read again only where something changed, and
compared with another server's by few questions, whatever that one sends."""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.unit.test_audit_manifest import CHANGES, lay_out

from ets.audit import cache as caches
from ets.audit import exchange, manifest, tree
from ets.audit.exchange import Different
from ets.audit.tree import Tree
from ets.errors import AuditError
from ets.host.run import run

HOUR = 3_600_000_000_000


def later() -> int:
    """A clock by which nothing in the tree is young."""
    return time.time_ns() + HOUR


def much_later() -> int:
    """A clock by which a cache is too old."""
    return time.time_ns() + 8 * 24 * HOUR


class Server:
    """A tree with a cache."""

    def __init__(self, root: Path) -> None:
        self.root = lay_out(root)
        self.cache = root.with_suffix(".cache")

    def take(self, *, paranoid: bool = False, clock: Callable[[], int] = later) -> Tree:
        return tree.take(self.root, cache=self.cache, paranoid=paranoid, clock=clock)


@pytest.fixture
def alpha(tmp_path: Path) -> Server:
    return Server(tmp_path / "alpha")


@pytest.fixture
def beta(tmp_path: Path) -> Server:
    return Server(tmp_path / "beta")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were read, not remembered."""
    paths: list[str] = []
    item = manifest.item

    def noted(top: Path, path: str, about: os.stat_result) -> manifest.Item | None:
        paths.append(path)
        return item(top, path, about)

    monkeypatch.setattr(manifest, "item", noted)
    return paths


def compared(mine: Tree, theirs: Tree) -> tuple[Different, int]:
    """What differs, and how many questions that took."""
    asked: list[Sequence[str]] = []

    def ask(directories: Sequence[str]) -> bytes:
        question = exchange.asked(exchange.question(directories, "x"))
        asked.append(directories)
        return exchange.answer(theirs, question.directories)

    return exchange.differing(mine, ask, peer="beta"), len(asked)


def test_it_is_the_list_in_another_form(alpha: Server) -> None:
    assert alpha.take().manifest() == manifest.take(alpha.root)
    assert alpha.take().manifest() == manifest.take(alpha.root)


@pytest.mark.parametrize("change", CHANGES)
def test_every_difference_is_found_from_the_cache(alpha: Server, beta: Server, change: str) -> None:
    alpha.take()
    theirs = beta.take()
    run(["sh", "-c", f"umask 022; {change}"], cwd=str(alpha.root))
    found, _ = compared(alpha.take(), theirs)
    known = manifest.differing(manifest.take(alpha.root), manifest.take(beta.root))
    # what lies in a directory that one of them lacks is said with the directory
    assert [*found] == [path for path in known if path != "/etc/new/a"]


def test_only_what_changed_is_read_again(alpha: Server, read: list[str]) -> None:
    first = alpha.take()
    assert "/usr/bin/tool" in read
    read.clear()
    assert alpha.take() == first
    assert read == []
    (alpha.root / "etc/app/conf").write_text("b = 2\n")
    assert alpha.take() != first
    assert read == ["/etc/app/conf"]
    read.clear()
    assert alpha.take(paranoid=True).manifest() == manifest.take(alpha.root)
    assert "/usr/bin/tool" in read


@pytest.mark.parametrize("how", ["in place", "another file"])
def test_a_change_of_neither_size_nor_mtime_is_found_by_ctime_or_inode(
    alpha: Server, how: str
) -> None:
    path = alpha.root / "etc/app/conf"
    about = path.stat()
    before = alpha.take()
    if how == "another file":
        shutil.move(shutil.copy2(path, path.with_name("new")), path)
    path.write_text("a = 2\n")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    now = path.stat()
    assert (now.st_size, now.st_mtime_ns) == (about.st_size, about.st_mtime_ns)
    assert [*compared(alpha.take(), before)[0]] == ["/etc/app/conf"]


def test_what_was_just_changed_is_not_remembered(alpha: Server, read: list[str]) -> None:
    alpha.take(clock=time.time_ns)
    read.clear()
    alpha.take(clock=time.time_ns)
    assert "/usr/bin/tool" in read  # it was made a moment ago: it may change again in this tick
    alpha.take()
    read.clear()
    alpha.take()
    assert read == []


@pytest.mark.parametrize(("name", "found"), [("users", False), ("users.tdb", True)])
def test_what_is_written_through_a_mapping(alpha: Server, name: str, found: bool) -> None:
    """No time changes when a page is written that is mapped and dirty already: in a database,
    which is always read, it is found; in any other file only by reading everything."""
    path = alpha.root / "etc/app" / name
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as mapped:
        mapped[0] = 1
        before, about = alpha.take(), path.stat()
        mapped[1] = 1
        assert path.stat().st_ctime_ns == about.st_ctime_ns
        assert (alpha.take() != before) is found
        assert alpha.take(paranoid=True) != before


def test_a_cache_holds_for_one_boot_and_a_week(
    alpha: Server, read: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alpha.take()
    read.clear()
    alpha.take(clock=much_later)
    assert read
    alpha.take()
    read.clear()
    (tmp_path / "boot").write_text("another boot")
    monkeypatch.setattr(caches, "_BOOT", tmp_path / "boot")
    alpha.take()
    assert read


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "garbage", "folder", "none"])
def test_a_damaged_cache_is_none(alpha: Server, read: list[str], harm: str) -> None:
    first = alpha.take()
    content = bytearray(alpha.cache.read_bytes())
    assert alpha.cache.stat().st_mode & 0o777 == 0o600
    read.clear()
    if harm == "flip":
        content[len(content) // 2] ^= 1
    alpha.cache.unlink()
    if harm == "folder":
        alpha.cache.mkdir()
    elif harm != "none":
        alpha.cache.write_bytes(
            {"cut": bytes(content[:-9]), "flip": bytes(content), "empty": b""}.get(harm, b"x\n{}")
        )
    assert alpha.take() == first
    assert "/usr/bin/tool" in read


def test_a_cache_of_another_tree_or_of_other_rules_is_none(alpha: Server, beta: Server) -> None:
    (beta.root / "etc/app/conf").write_text("b = 2\n")
    alpha.take()
    other = tree.take(beta.root, cache=alpha.cache, clock=later)
    assert other.manifest() == manifest.take(beta.root)
    less = tree.take(beta.root, exclude=["/etc/app"], cache=alpha.cache, clock=later)
    assert less.manifest() == manifest.take(beta.root, exclude=["/etc/app"])


def test_what_cannot_be_read_is_said_and_never_equal() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        root = lay_out(Path(folder) / "alpha")
        (root / "etc/app/conf").chmod(0)
        (root / "etc/cups").chmod(0)
        os.seteuid(65534)
        try:
            one, two = tree.take(root), tree.take(root)
        finally:
            os.seteuid(0)
    found, _ = compared(one, two)
    said = {path: pair[0] and (pair[0].kind, pair[0].content) for path, pair in found.items()}
    assert said == {
        "/etc/app/conf": ("unreadable file", "Permission denied"),
        "/etc/cups": ("unreadable directory", "Permission denied"),
    }


def test_files_that_vanish_meanwhile_are_passed_over(
    alpha: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = manifest.item

    def vanishing(top: Path, path: str, about: os.stat_result) -> manifest.Item | None:
        if path in {"/etc/app/conf", "/etc/link"}:
            (top / path[1:]).unlink()
        elif path == "/usr/bin":
            shutil.rmtree(top / "usr/bin")
        return item(top, path, about)

    monkeypatch.setattr(manifest, "item", vanishing)
    assert "/etc/app/conf" not in alpha.take().manifest()
    monkeypatch.undo()
    assert alpha.take().manifest() == manifest.take(alpha.root)


def test_a_tree_too_deep_for_a_path_is_said(alpha: Server) -> None:
    at = os.open(alpha.root / "etc", os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=at)
        further = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = further
    os.close(at)
    taken = alpha.take()
    last = max(taken.manifest().items(), key=lambda pair: len(pair[0]))[1]
    assert (last.kind, last.content) == ("unreadable", "File name too long")
    shutil.rmtree(alpha.root / "etc" / ("d" * 200))


def test_equal_trees_cost_one_question(alpha: Server, beta: Server) -> None:
    assert compared(alpha.take(), beta.take()) == ({}, 1)
    (beta.root / "etc/app/conf").write_text("other\n")
    found, questions = compared(alpha.take(), beta.take())
    assert [*found] == ["/etc/app/conf"]
    assert questions == 3  # the top, /etc, /etc/app


@pytest.mark.parametrize("seed", range(20))
def test_the_exchange_finds_what_the_lists_differ_in(
    alpha: Server, beta: Server, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever changes, and however small the pieces in which it is asked and answered."""
    chance = random.Random(seed)
    monkeypatch.setattr(exchange, "BATCH", 2)
    monkeypatch.setattr(exchange, "PIECE", 100)
    for server in (alpha, beta):
        folders = [path for path in server.root.rglob("*") if path.is_dir()]
        for number in range(12):
            folder = chance.choice(folders)
            if chance.random() < 0.5:
                (folder / f"d{number}").mkdir()
                folders.append(folder / f"d{number}")
            else:
                (folder / f"f{chance.randrange(6)}").write_text(str(chance.randrange(3)))
    found, _ = compared(alpha.take(), beta.take())
    one, two = manifest.take(alpha.root), manifest.take(beta.root)
    known = manifest.differing(one, two)
    alone = [path for path in known if path not in one or path not in two]
    said = [p for p in known if not any(p.startswith(f"{whole}/") for whole in alone)]
    assert [*found] == said
    assert all(pair == (one.get(path), two.get(path)) for path, pair in found.items())


def bad(mine: Tree, content: Callable[[Sequence[str]], bytes]) -> str:
    """What is said of a peer that sends that."""
    with pytest.raises(AuditError) as caught:
        exchange.differing(mine, content, peer="beta")
    assert caught.value.hint
    return caught.value.message


def always(content: bytes) -> exchange.Ask:
    """Sends that, whatever it is asked."""
    return lambda _: content


def made(taken: Tree, rows: object, folders: object = None, **head: object) -> bytes:
    """An answer of one node whose digest is right."""
    lines = [json.dumps(rows).encode(), json.dumps(folders or {}).encode()]
    told = {"format": exchange.FORMAT, "rules": taken.rules, "nodes": 1,
            "top": tree.digest_of(*lines), **head}  # fmt: skip
    return b"\n".join([json.dumps(told).encode(), *lines])


def test_garbage_is_refused_with_what_to_do(alpha: Server) -> None:
    taken = alpha.take()
    row = ["/etc", "directory", 0o755, 0, 0, "", ""]
    for content in (b"", b"\xff\0", b"{}", b"[" * 100_000, b"null\n[]\n{}"):
        assert bad(taken, always(content)).startswith("beta ")
    assert "more than" in bad(taken, lambda _: b"x" * (exchange.MAX_BYTES + 1))
    assert "another number" in bad(taken, lambda _: made(taken, [], nodes=2))
    assert "stands for" in bad(taken, lambda _: made(taken, [], top="0" * 32))
    for wrong in ([1], [row[:-1]], [["/etc", 7, 0, 0, 0, "", ""]], [[*row[:2], -1, *row[3:]]],
                  [["/e/../x", *row[1:]]], [["etc", *row[1:]]], [["/etc", *row[1:6], "y" * 9999]],
                  {"a": 1}):  # fmt: skip
        assert bad(taken, always(made(taken, wrong))).startswith("beta sent ")
    for folders in ({"/etc": "zz"}, {"/etc": 1}, {"..": "0" * 32}, ["/etc"]):
        assert bad(taken, always(made(taken, [], folders))).startswith("beta sent ")


def test_another_version_or_other_rules_are_named(alpha: Server) -> None:
    taken = alpha.take()
    assert "another form" in bad(taken, lambda _: made(taken, [], format="ets audit tree 2"))
    said = bad(taken, lambda _: made(taken, [], rules="other", version="9.9"))
    assert "beta (ETS '9.9') lists its files by other rules" in said


def test_a_peer_without_end_is_left(alpha: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each level has another one below, with right digests."""
    monkeypatch.setattr(exchange, "MAX_LEVELS", 50)
    taken = alpha.take()
    chain = [(b"[]", b"{}")]
    for depth in range(60):
        name = "/etc" if depth == 59 else "d"
        chain.append((b"[]", json.dumps({name: tree.digest_of(*chain[-1])}).encode()))
    asked = iter(reversed(chain))

    def ask(_: Sequence[str]) -> bytes:
        rows, folders = next(asked)
        top = tree.digest_of(*chain[-1])
        return made(taken, json.loads(rows), json.loads(folders), top=top)

    assert "more than 50" in bad(taken, ask)


def test_a_tree_that_changes_under_the_questions_is_asked_anew(alpha: Server, beta: Server) -> None:
    taken = alpha.take()
    trees = []
    for content in "xyz":
        (beta.root / "etc/app/conf").write_text(content)
        trees.append(beta.take())
    order = [trees[0], *[trees[1]] * 4]
    found = exchange.differing(taken, lambda asked: exchange.answer(order.pop(0), asked))
    assert [*found] == ["/etc/app/conf"]
    turns = iter(trees * 9)
    assert "anew" in bad(taken, lambda asked: exchange.answer(next(turns), asked))


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"[" * 100_000, b"x" * (exchange.MAX_QUESTION + 1),
     exchange.question([], "x"), exchange.question(["/"] * 2000, "x"),
     exchange.question(["/"], ""), exchange.question(["/"], "x").replace(b"tree 1", b"tree 2"),
     b'{"format": "ets audit tree 1", "audit": "x", "directories": [1]}'],
)  # fmt: skip
def test_what_is_no_question_is_refused(body: bytes) -> None:
    with pytest.raises(AuditError):
        exchange.asked(body)
