"""The state of one moment where the file systems can keep it: btrfs.

Invariant: at most one copy at a time has snapshots, in ``view.SNAPSHOT`` at the top of each file
system; they are removed when their context ends, and what a killed process left is removed before
the next.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from ets import paths
from ets.clone import listing
from ets.clone.listing import Listing
from ets.clone.view import SNAPSHOT, View, bind
from ets.errors import HostError
from ets.host.lock import hold
from ets.host.run import run

#: the inode of every subvolume's top directory (btrfs(5))
_TOP = 256
_DEADLINE = 60.0


def possible(view: View, found: Listing) -> bool:
    """Can snapshots hold all of the view? Everything in it must be btrfs, and nothing in a
    subvolume within another one, which a snapshot shows as an empty directory."""
    if view.top is None or shutil.which("btrfs") is None:
        return False
    if any(mount.type != "btrfs" for mount in (view.top, *view.mounts)):
        return False
    tops = {b"", *(point.lstrip("/").encode() for point in points(view))}
    return not any(
        value.startswith(b"d %d " % _TOP) and path not in tops
        for path, value in found.entries.items()
    )


def points(view: View) -> tuple[str, ...]:
    """Where in the view its other file systems begin."""
    top = view.source.rstrip("/")
    return tuple(mount.point[len(top) :] for mount in view.mounts)


class Snapshots:
    """Of all file systems of a view. ``take`` is quick; ``view`` shows what was taken."""

    def __init__(self, view: View, at: Path) -> None:
        self._view = view
        self._at = at
        self._places = [Path(f"{view.source.rstrip('/')}{point}") for point in ("", *points(view))]

    def prepare(self) -> None:
        """What is to be done beforehand: remove what is left, and write what is waiting, so that
        taking does not wait for it."""
        self._remove()
        for place in self._places:
            listing.settle(place or Path("/"))

    def take(self) -> None:
        """Now."""
        for place in self._places:
            argv = ["btrfs", "subvolume", "snapshot", "-r", str(place), str(place / SNAPSHOT)]
            run(argv, deadline=_DEADLINE)

    def show(self) -> Path:
        """Where what was taken can be read, as the view itself."""
        self._at.mkdir(parents=True, exist_ok=True)
        for place, point in zip(self._places, ("", *points(self._view)), strict=True):
            bind(place / SNAPSHOT, self._at / point.lstrip("/"))
        return self._at

    def close(self) -> None:
        """Remove them."""
        run(["umount", "--recursive", "--lazy", str(self._at)], check=False)
        self._remove()

    def _remove(self) -> None:
        for place in self._places:
            if (place / SNAPSHOT).exists():
                argv = ["btrfs", "subvolume", "delete", str(place / SNAPSHOT)]
                run(argv, deadline=_DEADLINE, check=False)


@contextlib.contextmanager
def snapshots(view: View, found: Listing) -> Iterator[Snapshots | None]:
    """Snapshots for one pass; None where there can be none, or another copy has them."""
    if not possible(view, found):
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold(Path(paths.RUN) / "clone-snapshots.lock"))
        except HostError:
            yield None
            return
        made = Snapshots(view, view.root.with_name(f"{view.root.name}-snapshot"))
        stack.callback(made.close)
        made.prepare()
        yield made
