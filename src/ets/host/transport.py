"""Where commands run and files lie: here, in a chroot, in a container, behind ssh.

Whoever acts on a machine takes a ``Host`` and never asks which kind it is. This file holds the
contract; each kind has a file of its own beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ets.host.run import Completed


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

    def remove(self, path: str) -> None:
        """Remove a file, or an empty directory; well when there is none."""
