"""Checks of staged files that several services share."""

from __future__ import annotations

from pathlib import PurePath

from ets.plan.desired import Command


def verify(root: PurePath, *units: str) -> Command:
    """systemd's own check of the staged ``units`` (absolute paths on the server).

    Errors in other units of the server are not ours to report, and manual pages may be missing.
    """
    staged = [str(root / unit.removeprefix("/")) for unit in units]
    names = ", ".join(PurePath(unit).name for unit in units)
    argv = ("systemd-analyze", "--man=no", "--recursive-errors=no", "verify", *staged)
    return Command(argv, f"systemd accepts {names}")


def piped(root: PurePath, path: str, why: str, program: str) -> Command:
    """``program`` (a shell command) reads the staged file at ``path`` from a pipe.

    For daemons that AppArmor keeps from opening files outside their own directory in /etc.
    """
    staged = root / path.removeprefix("/")
    script = f'test -s "$1" && cat -- "$1" | {program}'
    return Command(("sh", "-c", script, program.split(maxsplit=1)[0], str(staged)), why)
