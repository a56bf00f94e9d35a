"""What changed on the primary between the copy and the new server's first start, brought over.

An administrator who changes a password in those minutes must not keep the new server out for ever.
Only what must be equal is fetched, only into a server that is not in service yet, and a few times
at most: whatever differs then is a mistake that a person must see.

Invariant: every file is at every moment the old or the new one, whole. They are fetched beside
first and then moved into place one by one, so a power cut leaves a server that starts, finds the
rest different, and goes on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from ets import identity, paths
from ets.audit.manifest import ROOTS, Item, Manifest, differing
from ets.errors import CloneError
from ets.host.run import run
from ets.host.transport import Wrap

#: times that a server is mended before a person is asked, and paths that it may be about
ROUNDS = 3
MOST = 5000
#: seconds for all of it
FETCH = 1800.0

STAGE = Path(paths.STATE) / "clone" / "mend"
COUNT = Path(paths.JOIN) / "mended"

_ATTRIBUTES = ("--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner")


def give(wanted: BinaryIO) -> None:
    """The primary's side: a tar of the paths in ``wanted`` (each ended by NUL) on standard output.

    What a new server may have in a version of its own is not given out here, nor what has
    vanished meanwhile. Raises CloneError.
    """
    names = [name for name in wanted.read().split(b"\0") if name]
    asked = [name for name in names if _may_be_given(name) and os.path.lexists(name)]
    argv = ["tar", "--create", *_ATTRIBUTES, "--no-recursion", "--ignore-failed-read", "--null",
            "--verbatim-files-from", "--absolute-names", "--files-from=-", "--file=-"]  # fmt: skip
    sys.stdout.flush()
    done = subprocess.run(argv, input=b"".join(name + b"\0" for name in asked), check=False)
    if done.returncode not in (0, 1):  # 1: a file changed while it was read (tar(1))
        raise CloneError(f"tar ended with status {done.returncode}")


def _may_be_given(name: bytes) -> bool:
    path = os.fsdecode(name)
    inside = any(path == root or path.startswith(f"{root}/") for root in ROOTS)
    return inside and ".." not in path.split("/") and identity.compared(path)


def mend(wrap: Wrap, mine: Manifest, theirs: Manifest, *, root: Path = Path("/")) -> int:
    """Bring over what differs; how many paths. 0: not again, a person must look.

    Raises CloneError, HostError; mending again goes on.
    """
    different = differing(mine, theirs)
    count = _count(root)
    if not different or len(different) > MOST or count >= ROUNDS:
        return 0
    _below(root, COUNT).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _below(root, COUNT).write_text(f"{count + 1}\n")
    stage = _below(root, STAGE)
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(mode=0o700, parents=True)
    try:
        _fetch(wrap, [path for path in different if path in theirs], stage)
        for path in sorted(different, reverse=True):
            if path not in theirs or _other_kind(mine.get(path), theirs[path]):
                _remove(_below(root, Path(path)))
        for path in sorted(different):
            if path in theirs:
                _place(stage, root, path, theirs[path])
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    run(["sync"], deadline=600)
    return len(different)


def _fetch(wrap: Wrap, wanted: Iterable[str], stage: Path) -> None:
    names = b"".join(os.fsencode(path) + b"\0" for path in wanted)
    unpack = ["tar", "--extract", *_ATTRIBUTES, "--preserve-permissions", "--same-owner",
              f"--directory={stage}", f"--file={stage}/.tar"]  # fmt: skip
    # not over a pipe: of what comes only a part, nothing must be put into place
    with (stage / ".tar").open("wb") as file:
        done = subprocess.run(
            wrap(["ets", "clone", "give"]), input=names, stdout=file, stderr=subprocess.PIPE,
            timeout=FETCH, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise CloneError(f"what changed meanwhile could not be fetched: {said}")
    run(unpack, deadline=FETCH)


def _place(stage: Path, root: Path, path: str, item: Item) -> None:
    source, target = f"{stage}{path}", f"{root}{path}" if str(root) != "/" else path
    if not os.path.lexists(source):
        return  # it vanished there meanwhile: the next comparison says so
    if item.kind == "directory":
        with contextlib.suppress(FileExistsError):
            os.mkdir(target)  # noqa: PTH102 - a path may be no UTF-8
        os.chown(target, item.owner, item.group)
        os.chmod(target, item.mode)  # noqa: PTH101 - same
        for name in set(os.listxattr(source)) | set(os.listxattr(target)):
            if name in os.listxattr(source):
                os.setxattr(target, name, os.getxattr(source, name))
            else:
                os.removexattr(target, name)
        return
    run(["mv", "--force", "--no-target-directory", "--", source, target], deadline=600)


def _other_kind(mine: Item | None, theirs: Item) -> bool:
    return mine is not None and mine.kind != theirs.kind


def _remove(place: Path) -> None:
    try:
        place.unlink()
    except IsADirectoryError:
        with contextlib.suppress(OSError):  # something is in it that may differ
            place.rmdir()
    except FileNotFoundError:
        return


def _count(root: Path) -> int:
    try:
        return int(_below(root, COUNT).read_text())
    except (OSError, ValueError):
        return 0


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")
