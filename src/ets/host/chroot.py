"""A tree in which programs run: an image being built, a server being cloned."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ets.host.local import LocalHost
from ets.host.run import Completed, run


class ChrootHost(LocalHost):
    """The tree at ``root``, with its own programs (chroot(8); needs root). No systemd runs in it,
    and it sees this machine's /proc and /dev only where the caller has mounted them."""

    def __init__(self, root: str | os.PathLike[str], *, name: str | None = None) -> None:
        super().__init__(root, name=name)
        self._root_path = os.fspath(root)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        deadline: float = 60.0,
        check: bool = True,
        hint: str = "",
    ) -> Completed:
        """As ``ets.host.run.run``, in the tree."""
        command = ["chroot", self._root_path, *argv]
        return run(command, stdin=stdin, deadline=deadline, check=check, hint=hint)
