"""ETS itself, for images that run it: an installer has the library that a server has, in
/opt/ets/lib.

On a server it is the server's own. In a checkout it is made as ``tools/bootstrap.sh`` and the lab
make it: the locked dependencies (by uv, with their hashes), and ``src/ets`` beside them.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from ets.errors import ImageError
from ets.host.run import run

#: what starts it, as on a server
LAUNCHER = '#!/bin/sh\nPYTHONPATH=/opt/ets/lib exec /usr/bin/python3 -m ets "$@"\n'

_HERE = Path(__file__).resolve().parents[1]


def fingerprint(package: Path = _HERE) -> str:
    """sha256 (hex) over ETS' own sources and what they are used with, whatever was compiled."""
    lock = _lock(package)
    folder = package.parent if lock is None else package
    digest = hashlib.sha256(b"" if lock is None else lock.read_bytes())
    for path in sorted(_sources(folder)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder)}\0{content}\n".encode())
    return digest.hexdigest()


def install(target: Path, package: Path = _HERE) -> None:
    """Fill the directory ``target`` with the library. Raises ImageError when it cannot be had."""
    if _lock(package) is None:
        _copy(package.parent, target)
        return
    install_dependencies(package.parents[1], target)
    _copy(package, target / package.name)


def install_dependencies(checkout: Path, target: Path) -> None:
    """Fill ``target`` with what ``uv.lock`` in ``checkout`` says. Raises ImageError without uv."""
    uv = _find_uv(checkout)
    requirements = run(
        [uv, "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project"], cwd=str(checkout)
    ).stdout
    target.mkdir(parents=True, exist_ok=True)
    # Debian 12's python3 here and in the tree are the same; only it may choose the wheels.
    run(
        [uv, "pip", "install", "--quiet", "--target", str(target), "--python", "/usr/bin/python3",
         "--link-mode=copy", "--require-hashes", "-r", "-"],
        stdin=requirements,
        deadline=600,
        hint="is PyPI reachable?",
    )  # fmt: skip


def _lock(package: Path) -> Path | None:
    """The lock file of the checkout that ``package`` belongs to, if it does."""
    lock = package.parents[1] / "uv.lock"
    return lock if package.parent.name == "src" and lock.is_file() else None


def _sources(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]


def _copy(source: Path, target: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source, target, symlinks=True, ignore=ignored, dirs_exist_ok=True)


def _find_uv(checkout: Path) -> str:
    own = checkout / ".tools/bin/uv"
    found = str(own) if own.exists() else shutil.which("uv")
    if found is None:
        raise ImageError("uv was not found", hint="run ./demo or ./test: they install it")
    return found
