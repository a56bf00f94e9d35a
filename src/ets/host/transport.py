"""Where commands run and files lie: here, in a chroot, in a container, behind ssh.

Whoever acts on a machine takes a ``Host`` and never asks which kind it is. This file holds the
contract; each kind has a file of its own beside it.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from ets.host.run import Completed

Kind = Literal["file", "directory", "link", "other"]

#: a command line there → the command line on this machine that runs it (as ``ShellHost.wrap``)
Wrap = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """What lies at a path (a symbolic link itself, not what it points to).

    ``mode`` are the permission bits, ``owner`` and ``group`` names on that host (the number where
    it has no name), ``digest`` the sha256 (hex) of a regular file's content, else empty.
    """

    kind: Kind
    mode: int
    owner: str
    group: str
    digest: str = ""


def kind_of(mode: int) -> Kind:
    """The kind of what has this ``st_mode`` (inode(7))."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "other"


class Host(Protocol):
    """A machine, or a tree, that can be looked at and changed. Paths are absolute on it."""

    @property
    def name(self) -> str:
        """What a person calls it."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        deadline: float = 60.0,
        check: bool = True,
        hint: str = "",
    ) -> Completed:
        """As ``ets.host.run.run``, there."""

    def read(self, path: str) -> bytes | None:
        """The content of a file; None when there is none. Raises HostError when unreadable."""

    def write(
        self,
        path: str,
        content: bytes,
        *,
        mode: int = 0o644,
        owner: str = "root",
        group: str = "root",
    ) -> None:
        """Replace a file atomically and durably (temporary file, fsync, rename, fsync of the
        directory). Missing parents are made. Raises HostError, naming a full disk as such."""

    def prepare(
        self,
        path: str,
        content: bytes,
        *,
        mode: int = 0o644,
        owner: str = "root",
        group: str = "root",
    ) -> None:
        """The first half of ``write``: everything that can fail for want of space. What lies at
        ``path`` is not touched."""

    def commit(self, path: str) -> None:
        """The second half: swap in what ``prepare`` made for ``path``."""

    def discard(self, path: str) -> None:
        """Take back what ``prepare`` made, or a killed writer left; well when there is none."""

    def remove(self, path: str) -> None:
        """Remove a file, or an empty directory; well when there is none."""

    def append(self, path: str, line: bytes) -> None:
        """Append a line to a file (made, 0600, when missing) and wait for the disk."""

    def look(self, paths: Sequence[str], *, follow: bool = False) -> Mapping[str, Entry]:
        """What lies at ``paths``, in one round trip; paths with nothing are missing. ``follow``
        looks at what a symbolic link points to, which is there or missing, and never a link.
        Raises HostError when a file cannot be read."""

    def make_directory(
        self, path: str, *, mode: int = 0o755, owner: str = "root", group: str = "root"
    ) -> None:
        """Make a directory, or give the one that is there this mode and owner. Missing parents
        are made. Raises HostError, also when something else lies there."""

    def names(self, path: str) -> tuple[str, ...]:
        """The names in a directory, sorted; none when there is no such directory."""

    def hold(self, path: str) -> AbstractContextManager[None]:
        """An exclusive lock on the file ``path`` there, until the context ends or this process
        does. Raises HostError at once when somebody else holds it."""
