"""This machine, or a tree on it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath

from ets.errors import HostError
from ets.host import atomic, lock
from ets.host.run import Completed, run
from ets.host.transport import Entry, kind_of

#: as many symbolic links on one path as Linux follows (path_resolution(7))
LINKS = 40


class LocalHost:
    """This machine; with another ``root`` the tree below it, whose files alone can be changed.

    On a tree, names of owners are those of its ``/etc/passwd`` and ``/etc/group`` (this machine's
    where it has none), and nothing can be run: ``chroot.ChrootHost`` runs programs in a tree.
    """

    def __init__(self, root: str | os.PathLike[str] = "/", *, name: str | None = None) -> None:
        self._root = Path(root)
        self._tree = self._root.resolve() != Path("/")
        self._name = name or (str(root) if self._tree else os.uname().nodename)

    @property
    def name(self) -> str:
        """The node name, or the tree's path."""
        return self._name

    def path(self, path: str, *, follow: bool = False) -> Path:
        """Where ``path`` lies on this machine: below the root, also when symbolic links on the way
        (and with ``follow`` at the end) are absolute. Raises HostError unless it is absolute."""
        pure = PurePosixPath(path)
        if not pure.is_absolute() or ".." in pure.parts:
            raise HostError(f"{path!r} is not an absolute path")
        if self._root == Path("/"):
            return Path(path)
        here, todo, links = PurePosixPath("/"), list(pure.parts[:0:-1]), 0
        while todo:
            part = todo.pop()
            if part == "..":
                here = here.parent
                continue
            real = self._root / (here / part).relative_to("/")
            if not ((todo or follow) and real.is_symlink()):
                here /= part
                continue
            links += 1
            if links > LINKS:
                raise HostError(f"too many symbolic links in {path}")
            target = PurePosixPath(real.readlink())
            here = PurePosixPath("/") if target.is_absolute() else here
            todo.extend(part for part in target.parts[::-1] if part != "/")
        return self._root / here.relative_to("/")

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        deadline: float = 60.0,
        check: bool = True,
        hint: str = "",
    ) -> Completed:
        """As ``ets.host.run.run``. Raises HostError on a tree."""
        if self._tree:
            raise HostError(f"cannot run {argv[0]} on the tree {self._root}: only files lie there")
        return run(argv, stdin=stdin, deadline=deadline, check=check, hint=hint)

    def read(self, path: str) -> bytes | None:
        """The content of a file; None when there is none."""
        try:
            return self.path(path, follow=True).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise HostError(f"cannot read {path}: {error.strerror}") from error

    def write(
        self,
        path: str,
        content: bytes,
        *,
        mode: int = 0o644,
        owner: str = "root",
        group: str = "root",
    ) -> None:
        """Replace a file atomically and durably."""
        atomic.write_atomic(
            self.path(path), content, mode=mode, owner=self._uid(owner), group=self._gid(group)
        )

    def prepare(
        self,
        path: str,
        content: bytes,
        *,
        mode: int = 0o644,
        owner: str = "root",
        group: str = "root",
    ) -> None:
        """The first half of ``write``."""
        atomic.prepare(
            self.path(path), content, mode=mode, owner=self._uid(owner), group=self._gid(group)
        )

    def commit(self, path: str) -> None:
        """The second half: swap in what was prepared."""
        atomic.commit(self.path(path))

    def discard(self, path: str) -> None:
        """Take back what was prepared."""
        atomic.discard(self.path(path))

    def remove(self, path: str) -> None:
        """Remove a file, or an empty directory; well when there is none."""
        atomic.remove_durably(self.path(path))

    def append(self, path: str, line: bytes) -> None:
        """Append a line to a file and wait for the disk."""
        atomic.append_durably(self.path(path), line)

    def look(self, paths: Sequence[str], *, follow: bool = False) -> Mapping[str, Entry]:
        """What lies at ``paths``, or with ``follow`` at the end of their links."""
        users, groups = self._names("passwd"), self._names("group")
        found = ((path, self._entry(path, users, groups, follow=follow)) for path in paths)
        return {path: entry for path, entry in found if entry is not None}

    def make_directory(
        self, path: str, *, mode: int = 0o755, owner: str = "root", group: str = "root"
    ) -> None:
        """Make a directory, or give the one that is there this mode and owner."""
        target = self.path(path)
        uid, gid = self._uid(owner), self._gid(group)
        try:
            atomic.make_parents(target.parent)
            with contextlib.suppress(FileExistsError):
                target.mkdir(mode=0o700)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(target, flags)
        except OSError as error:
            raise HostError(f"cannot make the directory {path}: {error.strerror}") from error
        try:
            now = os.fstat(descriptor)
            if (now.st_uid, now.st_gid) != (uid, gid):
                os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        except OSError as error:
            raise HostError(f"cannot change the directory {path}: {error.strerror}") from error
        finally:
            os.close(descriptor)
        atomic.sync_directory(target.parent)

    def names(self, path: str) -> tuple[str, ...]:
        """The names in a directory, sorted."""
        try:
            return tuple(sorted(os.listdir(self.path(path))))  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise HostError(f"cannot list {path}: {error.strerror}") from error

    def hold(self, path: str) -> AbstractContextManager[None]:
        """An exclusive lock on a file."""
        return lock.hold(self.path(path))

    def _entry(
        self, path: str, users: Mapping[str, int], groups: Mapping[str, int], *, follow: bool
    ) -> Entry | None:
        target = self.path(path, follow=follow)
        try:
            about = target.stat() if follow else target.lstat()
            kind = kind_of(about.st_mode)
            digest = ""
            if kind == "file":
                with target.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise HostError(f"cannot read {path}: {error.strerror}") from error
        owner, group = _name_of(about.st_uid, users), _name_of(about.st_gid, groups)
        return Entry(kind, stat.S_IMODE(about.st_mode), owner, group, digest)

    def _names(self, database: str) -> dict[str, int]:
        """Names and numbers from ``/etc/passwd`` or ``/etc/group``, of this machine where the
        tree has none."""
        own = self._root / "etc" / database
        text = (own if own.exists() else Path("/etc") / database).read_text(errors="replace")
        rows = (line.split(":") for line in text.splitlines())
        return {row[0]: int(row[2]) for row in rows if len(row) > 2 and row[2].isdigit()}

    def _uid(self, owner: str) -> int:
        return self._number(owner, "passwd", "user")

    def _gid(self, group: str) -> int:
        return self._number(group, "group", "group")

    def _number(self, name: str, database: str, what: str) -> int:
        if name.isdigit():
            return int(name)
        try:
            return self._names(database)[name]
        except KeyError as error:
            raise HostError(
                f"{self.name} has no {what} {name}", hint="is the package that makes it installed?"
            ) from error


def _name_of(number: int, names: Mapping[str, int]) -> str:
    return next((name for name, value in names.items() if value == number), str(number))
