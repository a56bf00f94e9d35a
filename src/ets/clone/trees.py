"""A server's tree that is not running: its files, found by the table's patterns and changed in
place."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ets import identity
from ets.errors import HostError
from ets.host.local import LocalHost
from ets.host.run import Completed, run

#: bytes; what is larger is no settings file
_SETTINGS = 1 << 20

# The tree's own programs need a few devices and /proc; both go with the namespace.
_INSIDE = r"""
mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" || exit 1
root=$1; shift
exec chroot "$root" "$@"
"""


class Tree(LocalHost):
    """The tree at ``root``; paths are absolute in it, and owners are those that it knows."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, name=f"the tree {root}")
        self.root = root

    def text(self, path: str) -> str:
        """The content of a file; empty when there is none. Bytes that are no UTF-8 survive."""
        return (self.read(path) or b"").decode("utf-8", "surrogateescape")

    def edit(self, path: str, change: Callable[[str], str]) -> bool:
        """Replace the content of a file, where there is one, by what ``change`` makes of it; true
        when that is something else. Owner and mode stay."""
        real = self.path(path, follow=True)
        try:
            about = real.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not stat.S_ISREG(about.st_mode):
            return False
        old = self.text(path)
        new = change(old)
        if new == old:
            return False
        self.write(
            "/" + str(real.relative_to(self.root)),
            new.encode("utf-8", "surrogateescape"),
            mode=stat.S_IMODE(about.st_mode),
            owner=str(about.st_uid),
            group=str(about.st_gid),
        )
        return True

    def of_way(self, how: str) -> list[str]:
        """The files that the table gives to this way, sorted."""
        found = {path for pattern in identity.paths_of(how) for path in self.glob(pattern)}
        return sorted(
            path
            for path in found
            if (row := identity.find(path)) is not None
            and row.how == how
            and self.path(path, follow=True).is_file()
        )

    def glob(self, pattern: str) -> Iterator[str]:
        """What lies in the tree under a pattern of the table, directories with all below."""
        if not re.search(r"[*?\[]", pattern):
            if os.path.lexists(self.path(pattern)):
                yield pattern
            return
        base, deep = pattern.removesuffix("/**"), pattern.endswith("/**")
        for found in self._shallow(base):
            if not deep:
                yield found
                continue
            top = self.path(found)
            if top.is_symlink():
                continue
            for folder, folders, files in os.walk(top):
                for name in (*folders, *files):
                    below = Path(folder, name).relative_to(top)
                    yield f"{found}/{below}"

    def _shallow(self, pattern: str) -> list[str]:
        if not re.search(r"[*?\[]", pattern):
            return [pattern]
        return ["/" + str(path.relative_to(self.root)) for path in self.root.glob(pattern[1:])]

    def is_directory(self, path: str) -> bool:
        """A directory, no link to one."""
        place = self.path(path)
        return place.is_dir() and not place.is_symlink()

    def remove(self, path: str) -> None:
        """Remove whatever lies at ``path``, a directory with all in it; well when nothing does."""
        place = self.path(path)
        if self.is_directory(path):
            shutil.rmtree(place)
        else:
            with contextlib.suppress(FileNotFoundError):
                place.unlink()

    def link(self, path: str, target: str) -> None:
        """Put a symbolic link at ``path``, whatever lies there."""
        place = self.path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        self.remove(path)
        place.symlink_to(target)

    def mentioning(self, top: str, words: Sequence[str]) -> Iterator[str]:
        """Settings files below ``top`` in which one of ``words`` stands by itself, sorted."""
        known = "|".join(re.escape(word) for word in words)
        pattern = re.compile(rf"(?<![\w.-])(?:{known})(?![\w-]|\.\d)".encode())
        for path in sorted(self.glob(f"{top}/**")):
            place = self.path(path)
            try:
                about = place.lstat()
                if not stat.S_ISREG(about.st_mode) or about.st_size > _SETTINGS:
                    continue
                content = place.read_bytes()
            except OSError as error:
                raise HostError(f"cannot read {place}: {error.strerror}") from error
            if b"\0" not in content and pattern.search(content):
                yield path

    def inside(self, argv: Sequence[str], *, deadline: float = 60.0) -> Completed:
        """Run one of the tree's own programs in it. Raises CommandFailed."""
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _INSIDE, "sh"]
        return run([*command, str(self.root), *argv], deadline=deadline)
