"""What services with a systemd unit of their own share."""

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


def lasting(*, after: str = "network-online.target") -> str:
    """A drop-in that starts a daemon again whenever it ends: after a crash, and when it came up
    before the address that it binds was there."""
    return (
        f"[Unit]\nWants={after}\nAfter={after}\nStartLimitIntervalSec=0\n\n"
        "[Service]\nRestart=always\nRestartSec=500ms\n"
    )
