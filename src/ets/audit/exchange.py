"""Where the hash trees of two servers differ, found by asking for few nodes of the other one.

One question per level: first for the top, then for the directories whose digests differ. Equal
trees cost one question. An answer is lines of text: a head, and for each directory asked (in that
order, from the first on, as many as fit) its rows and the digests of the directories in it.

Invariant: what is taken from an answer is what the peer's top digest stands for, since every node
is checked against the digest that its parent's node gave for it. Input is bounded in bytes, rows
and levels, whatever a peer sends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from ets import __version__
from ets.audit.manifest import Item
from ets.audit.tree import TOP, Node, Tree, below, digest_of, folded
from ets.errors import AuditError

FORMAT = "ets audit tree 1"
#: directories, and bytes of their names, in one question
BATCH, BATCH_BYTES = 1024, 200_000
#: bytes of a question as it travels, where a name may need six for one
MAX_QUESTION = 8 * BATCH_BYTES
#: bytes after which an answer ends with the directory that it is at
PIECE = 4_000_000
#: what one comparison may cost: bytes, rows, levels (a path has at most 4096 bytes, PATH_MAX)
MAX_BYTES, MAX_ROWS, MAX_LEVELS = 256_000_000, 2_000_000, 2048
#: times that a comparison begins again because the peer read its files anew meanwhile
ROUNDS = 3

#: puts a question (directories) to a peer, and returns its answer
Ask = Callable[[Sequence[str]], bytes]
Pair = tuple[Item | None, Item | None]
Different = Mapping[str, Pair]

_DIGEST = re.compile(r"[0-9a-f]{32}")
_TEXT = 8192


def answer(tree: Tree, directories: Sequence[str]) -> bytes:
    """The nodes of ``directories``; at least one, and no more than fit into ``PIECE``. One that the
    tree does not have is said to be empty."""
    lines: list[bytes] = []
    size = 0
    for path in directories:
        node = tree.nodes.get(path, Node(b"[]", {}))
        lines += [node.rows, folded(node.folders)]
        size += len(lines[-1]) + len(lines[-2])
        if size > PIECE:
            break
    head = {"format": FORMAT, "version": __version__, "rules": tree.rules, "top": tree.digest,
            "nodes": len(lines) // 2}  # fmt: skip
    return b"\n".join([json.dumps(head).encode(), *lines])


def differing(mine: Tree, ask: Ask, *, peer: str = "the other server") -> Different:
    """The paths that are not equal, with what lies there here and on the peer. A directory that one
    of them lacks is one path; a file that either cannot read is never equal.

    Raises AuditError when the peer answers badly or goes by other rules, and what ``ask`` raises.
    """
    for _ in range(ROUNDS):
        try:
            return dict(sorted(_Walk(mine, ask, peer).differing()))
        except _Changed:
            continue
    raise AuditError(
        f"{peer} has read its files anew {ROUNDS} times while it was asked about them",
        hint="run it again when nobody else compares the servers",
    )


class _Changed(Exception):
    """The peer's tree is another one than it was."""


@dataclass(slots=True)
class _Walk:
    """One comparison, from the top down."""

    mine: Tree
    ask: Ask
    peer: str
    top: str = ""
    size: int = 0
    rows: int = 0

    def differing(self) -> Iterator[tuple[str, Pair]]:
        level: dict[str, str] = {TOP: ""}
        for _ in range(MAX_LEVELS):
            further: dict[str, str] = {}
            for path, theirs in self._nodes(level):
                ours = self.mine.nodes.get(path, Node(b"[]", {}))
                if ours.digest != theirs.digest:
                    yield from self._entries(path, ours, theirs, further)
            if not further:
                return
            level = further
        raise self._bad(f"directories in directories, more than {MAX_LEVELS}")

    def _entries(
        self, path: str, ours: Node, theirs: Node, further: dict[str, str]
    ) -> Iterator[tuple[str, Pair]]:
        """What differs directly in a directory; those whose insides differ go to ``further``."""
        here, there = ours.items(), self._items(path, theirs)
        for name in {**here, **there}:
            a, b = here.get(name), there.get(name)
            if a != b:
                yield below(path, name), (a, b)
        for name, digest in theirs.folders.items():
            a, b = here.get(name), there.get(name)
            both = name in ours.folders
            # without a row on either side, only what is inside must be equal
            if (both and ours.folders[name] != digest) or (not both and a is None and b is None):
                further[below(path, name)] = digest
        for name in ours.folders:
            if name not in theirs.folders and name not in here and name not in there:
                for at, item in self.mine.under(below(path, name)):
                    yield at, (item, None)

    def _nodes(self, level: Mapping[str, str]) -> Iterator[tuple[str, Node]]:
        """The peer's nodes, each checked against the digest that its parent gave."""
        waiting = list(level)
        while waiting:
            batch = _batch(waiting)
            got = self._read(self.ask(batch), len(batch))
            for path, (rows, folders) in zip(batch, got, strict=False):
                digest = digest_of(rows, folders)
                if digest != (level[path] or self.top):
                    raise self._bad("something that is not what its own digest stands for")
                yield path, Node(rows, self._folders(folders, path))
            waiting = waiting[len(got) :]

    def _read(self, content: bytes, asked: int) -> list[tuple[bytes, bytes]]:
        """The lines of an answer, by twos. Raises AuditError, or _Changed."""
        self.size += len(content)
        if self.size > MAX_BYTES:
            raise self._bad(f"more than {MAX_BYTES} bytes")
        first, *lines = content.split(b"\n")
        head = self._json(first)
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            raise self._other(head)
        if head.get("rules") != self.mine.rules:
            raise AuditError(
                f"{self.peer} (ETS {str(head.get('version'))[:20]!r}) lists its files by other "
                f"rules than this server (ETS {__version__!r})",
                hint="bring both to the same version of ETS and the same site file",
            )
        if head.get("nodes") != len(lines) / 2 or not 1 <= len(lines) // 2 <= asked:
            raise self._bad("another number of directories than asked for")
        top = head.get("top")
        if self.top and top != self.top:
            raise _Changed
        self.top = str(top)
        return list(zip(lines[::2], lines[1::2], strict=True))

    def _items(self, path: str, node: Node) -> dict[str, Item]:
        found = self._json(node.rows)
        if not isinstance(found, list):
            raise self._bad("rows that are no list")
        self.rows += len(found)
        if self.rows > MAX_ROWS:
            raise self._bad(f"more than {MAX_ROWS} files that differ")
        for row in found:
            if not (isinstance(row, list) and len(row) == 1 + len(fields(Item)) and _row(row)):
                raise self._bad("a row that is none")
            self._name(row[0], path)
        return {row[0]: Item(*row[1:]) for row in found}

    def _folders(self, text: bytes, path: str) -> dict[str, str]:
        found = self._json(text)
        if not isinstance(found, dict):
            raise self._bad("directories that are no table")
        for name, digest in found.items():
            self._name(name, path)
            if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
                raise self._bad("a digest that is none")
        return found

    def _name(self, name: str, path: str) -> None:
        """Raises AuditError for what can be no name in a directory (at the top: no path)."""
        parts = name.split("/")[1:] if path == TOP else [name]
        bad = not parts or any(part in {"", ".", ".."} or "/" in part for part in parts)
        if bad or "\0" in name or len(below(path, name)) > _TEXT:
            raise self._bad("a name that is none")

    def _json(self, text: bytes) -> object:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._bad("what is not JSON") from error

    def _bad(self, what: str) -> AuditError:
        return AuditError(
            f"{self.peer} sent {what} when asked about its files",
            hint=f"on {self.peer}: journalctl -u ets-agent; are both of the same version of ETS?",
        )

    def _other(self, head: object) -> AuditError:
        told = str(head.get("format")) if isinstance(head, dict) else "nothing that is known here"
        return AuditError(
            f"{self.peer} answers in another form ({told[:40]!r}) than this server's ({FORMAT!r})",
            hint="bring both to the same version of ETS",
        )


def _row(row: Sequence[object]) -> bool:
    """Are these the name and the fields of an item?"""
    name, kind, mode, owner, group, content, more = row
    texts = all(isinstance(one, str) and len(one) <= _TEXT for one in (name, kind, content, more))
    return texts and all(type(one) is int and 0 <= one < 1 << 32 for one in (mode, owner, group))


def _batch(waiting: Sequence[str]) -> list[str]:
    """The next directories to ask for: at least one."""
    batch: list[str] = []
    size = 0
    for path in waiting[:BATCH]:
        size += len(path) + 4
        if batch and size > BATCH_BYTES:
            break
        batch.append(path)
    return batch


def question(directories: Sequence[str], audit: str, *, paranoid: bool = False) -> bytes:
    """A question as it travels; ``audit`` is a name that all questions of one comparison share."""
    asked = {"format": FORMAT, "audit": audit, "paranoid": paranoid}
    return json.dumps({**asked, "directories": list(directories)}).encode()


@dataclass(frozen=True, slots=True)
class Question:
    """What a peer asks."""

    audit: str
    paranoid: bool
    directories: tuple[str, ...]


def asked(body: bytes) -> Question:
    """What a peer asks. Raises AuditError for what is no question, or too long a one."""
    try:
        told = json.loads(body) if len(body) <= MAX_QUESTION else {}
        form, audit, directories = told["format"], told["audit"], told["directories"]
        well = form == FORMAT and isinstance(audit, str) and 0 < len(audit) <= 64
        well = well and isinstance(directories, list) and 1 <= len(directories) <= BATCH
        well = well and all(isinstance(one, str) for one in directories)
    except (ValueError, KeyError, TypeError, RecursionError):
        well = False
    if not well:
        raise AuditError(
            f"no question about files, or not one of this version ({FORMAT})",
            hint="bring both servers to the same version of ETS",
        )
    return Question(audit, told.get("paranoid") is True, tuple(directories))
