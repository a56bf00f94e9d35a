"""The hash tree of what must be equal on all servers: a digest for each directory over what is in
it and the digests of those below, so that equal subtrees are known to be equal by one digest.

Invariant: two directories have equal digests exactly when ``manifest`` finds no difference in or
below them. What is listed, how it is read and what is passed over is ``manifest``'s and
``ets.identity``'s to say; here it is only put together, with the help of what was read before.

A directory's rows are JSON, in the order of the names:
``[[name, kind, mode, owner, group, content, more], …]``. Above the roots is one more node, ``TOP``,
whose names are the roots' whole paths. A file that cannot be read is listed, as an ``unreadable``
one; what vanishes while it is looked at is not.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import blake3

from ets import identity
from ets.audit import cache as caches
from ets.audit import manifest
from ets.audit.cache import Cache, Kept
from ets.audit.manifest import ROOTS, Item, Manifest
from ets.errors import HostError

#: the node above the roots
TOP = ""
UNREADABLE = "unreadable"
#: files that are worth a thread of their own, in bytes
_LARGE = 1 << 16
_AT_ONCE = 2
#: directories that wait for their large files
_WAITING = 64
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})

Row = tuple[str, Item]


@dataclass(frozen=True, slots=True)
class Node:
    """A directory: its ``rows`` as they travel, and the digests of the directories in it by name
    (also of those that have no row, because only what is in them must be equal)."""

    rows: bytes
    folders: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Of all that is in and below it."""
        return digest_of(self.rows, folded(self.folders) if self.folders else b"{}")

    def items(self) -> dict[str, Item]:
        """The rows by name."""
        return {name: Item(*rest) for name, *rest in json.loads(self.rows)}


@dataclass(frozen=True, slots=True)
class Tree:
    """The nodes by path. ``rules`` is a digest of what decides what is listed: trees by other
    rules cannot be compared."""

    nodes: Mapping[str, Node]
    digest: str
    rules: str

    def manifest(self) -> Manifest:
        """The tree as a list, for a file."""
        return {
            below(path, name): item
            for path, node in self.nodes.items()
            for name, item in node.items().items()
        }

    def under(self, path: str) -> Iterator[tuple[str, Item]]:
        """Everything below a directory."""
        node = self.nodes.get(path)
        if node is None:
            return
        for name, item in node.items().items():
            yield below(path, name), item
        for name in node.folders:
            yield from self.under(below(path, name))


def below(directory: str, name: str) -> str:
    """The path of a name in a directory."""
    return name if directory == TOP else f"{directory}/{name}"


def digest_of(rows: bytes, folders: bytes) -> str:
    """A node's digest, from its two lines of text."""
    return blake3.blake3(rows + b"\n" + folders).digest(length=16).hex()


def folded(folders: Mapping[str, str]) -> bytes:
    """The directories in a node as a line of text."""
    return json.dumps(dict(sorted(folders.items()))).encode()


def rules(roots: Sequence[str] = ROOTS, exclude: Collection[str] = ()) -> str:
    """A digest of what decides what is listed, and how it is read."""
    told = [manifest.FORMAT, [*roots], sorted(exclude), identity.page()]
    return blake3.blake3(json.dumps(told).encode()).digest(length=16).hex()


def take(
    root: Path | str = "/",
    roots: Sequence[str] = ROOTS,
    *,
    exclude: Collection[str] = (),
    cache: Path | None = None,
    paranoid: bool = False,
    clock: Callable[[], int] = time.time_ns,
) -> Tree:
    """The hash tree of a server, or of the tree at ``root``.

    ``exclude`` are the site's own excludes. ``cache`` is the file of what was read before, which is
    used and written anew; ``paranoid`` reads everything all the same. ``clock`` gives nanoseconds.
    """
    by = rules(roots, exclude)
    # what is remembered of another tree must never be taken for this one's
    tagged = f"{by} {Path(root).resolve()}"
    old = Cache(clock() / 1e9, {})
    if cache is not None and not paranoid:
        old = caches.load(cache, tagged, clock() / 1e9)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        taker = _Taker(Path(root), tuple(exclude), old.kept, clock, pool)
        kept = taker.take(roots)
    if cache is not None and (kept != old.kept or not old.kept):
        caches.store(cache, tagged, Cache(old.born, kept))
    nodes = _nodes(kept, taker.folders)
    return Tree(nodes, nodes[TOP].digest, by)


def _nodes(kept: dict[str, Kept], folders: Mapping[str, Sequence[str]]) -> dict[str, Node]:
    """The nodes, from the deepest up: a directory is listed before those in it. One that has no row
    and nothing in it is none."""
    nodes: dict[str, Node] = {}
    digests: dict[str, str] = {}
    for path in reversed(kept):
        inside = {
            name: digests[at] for name in folders[path] if (at := below(path, name)) in digests
        }
        node = Node(kept[path].rows, inside)
        if path == TOP or inside or node.rows != b"[]" or identity.compared(path):
            nodes[path], digests[path] = node, node.digest
    return nodes


@dataclass(slots=True)
class _Draft:
    """A directory whose large files are being read."""

    path: str
    seen: str
    rows: list[tuple[str, str, Item | Future[Item | None] | None]]


class _Taker:
    """One pass over a tree."""

    def __init__(
        self,
        top: Path,
        exclude: tuple[str, ...],
        old: Mapping[str, Kept],
        clock: Callable[[], int],
        pool: ThreadPoolExecutor,
    ) -> None:
        self._top = top
        self._prefix = "" if str(top) == "/" else str(top)
        self._skip = frozenset(exclude) | (manifest.elsewhere() if not self._prefix else set())
        self._below = tuple(f"{path.rstrip('/')}/" for path in exclude)
        self._old = old
        self._clock = clock
        self._pool = pool
        self._waiting: deque[_Draft] = deque()
        self._done: dict[str, Kept] = {}
        #: directories in each directory
        self.folders: dict[str, list[str]] = {}

    def take(self, roots: Sequence[str]) -> dict[str, Kept]:
        """What each directory holds, each before those in it. Raises HostError."""
        self._directory(TOP, roots)
        paths = [*reversed(self.folders[TOP])]
        while paths:
            path = paths.pop()
            try:
                names = os.listdir(f"{self._prefix}{path}")  # noqa: PTH208
            except OSError:  # said where its row is made, or vanished
                names = []
            self._directory(path, names)
            paths += (below(path, name) for name in self.folders[path])
        while self._waiting:
            self._finish(self._waiting.popleft())
        return {path: self._done[path] for path in self.folders}

    def _directory(self, path: str, names: Sequence[str]) -> None:
        looked, folders = self._clock(), list[str]()
        found: list[tuple[str, str, os.stat_result | OSError]] = []
        for name in sorted(names):
            at = below(path, name)
            if at in self._skip or (self._below and at.startswith(self._below)):
                continue
            try:
                about = os.lstat(f"{self._prefix}{at}")
            except OSError as error:
                if error.errno not in _GONE:
                    found.append((name, "", error))
                continue
            found.append((name, caches.key(about), about))
            if stat.S_ISDIR(about.st_mode):
                folders.append(name)
        self.folders[path] = folders
        seen = _seen(found)
        old = self._old.get(path)
        if old is not None and old.seen == seen:
            self._done[path] = old
            return
        self._waiting.append(_Draft(path, seen, list(self._rows(path, found, old, looked))))
        if len(self._waiting) > _WAITING:
            self._finish(self._waiting.popleft())

    def _rows(
        self,
        path: str,
        found: Sequence[tuple[str, str, os.stat_result | OSError]],
        old: Kept | None,
        looked: int,
    ) -> Iterator[tuple[str, str, Item | Future[Item | None] | None]]:
        """Name, key (empty: not to be remembered) and item of what must be equal."""
        known = _known(old)
        for name, key, about in found:
            at = below(path, name)
            if not identity.compared(at):
                continue
            if isinstance(about, OSError):
                yield name, "", _unreadable(None, about.strerror or "")
                continue
            before = known.get(name)
            if before is not None and before[0] == key:
                yield name, key, before[1]
                continue
            lasting = key if caches.lasting(name, about, looked) else ""
            if stat.S_ISREG(about.st_mode) and about.st_size >= _LARGE:
                yield name, lasting, self._pool.submit(self._item, at, about)
            else:
                yield name, lasting, self._item(at, about)

    def _item(self, path: str, about: os.stat_result) -> Item | None:
        try:
            if stat.S_ISDIR(about.st_mode) and not os.access(
                f"{self._prefix}{path}", os.R_OK | os.X_OK, effective_ids=True
            ):
                return _unreadable(about, "Permission denied")
            return manifest.item(self._top, path, about)
        except HostError as error:
            cause = error.__cause__
            return _unreadable(about, (isinstance(cause, OSError) and cause.strerror) or str(cause))

    def _finish(self, draft: _Draft) -> None:
        """Remember a directory, once all in it is read."""
        rows, keys, whole = [], [], True
        for name, key, made in draft.rows:
            item = made.result() if isinstance(made, Future) else made
            if item is None:
                whole = False
                continue
            key = "" if item.kind.startswith(UNREADABLE) else key  # noqa: PLW2901
            whole = whole and bool(key)
            keys.append(key)
            rows.append(
                (name, item.kind, item.mode, item.owner, item.group, item.content, item.more)
            )
        self._done[draft.path] = Kept(
            draft.seen if whole else "",
            json.dumps(rows, separators=(",", ":")).encode(),
            json.dumps(keys, separators=(",", ":")).encode(),
        )


def _unreadable(about: os.stat_result | None, why: str) -> Item:
    """Never equal to another one: nobody knows what is in it."""
    never = os.urandom(16).hex()
    if about is None:
        return Item(UNREADABLE, 0, 0, 0, why, never)
    mode = stat.S_IMODE(about.st_mode)
    kind = "directory" if stat.S_ISDIR(about.st_mode) else "file"
    return Item(f"{UNREADABLE} {kind}", mode, about.st_uid, about.st_gid, why, never)


def _seen(found: Sequence[tuple[str, str, object]]) -> str:
    """A digest of all names in a directory with what lstat said of them."""
    told = "\0".join([f"{name}/{key}" for name, key, _ in found])
    return blake3.blake3(told.encode("utf-8", "surrogateescape")).digest(length=16).hex()


def _known(old: Kept | None) -> dict[str, tuple[str, Item]]:
    """What is remembered of a directory: key and item by name."""
    if old is None:
        return {}
    rows, keys = json.loads(old.rows), json.loads(old.keys)
    return {name: (key, Item(*rest)) for (name, *rest), key in zip(rows, keys, strict=True) if key}
