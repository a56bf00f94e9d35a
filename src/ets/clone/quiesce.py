"""A short silence on a running server: whoever writes is stopped where it stands, for a second or
two, while what has changed is put aside.

Invariants: nothing that a station needs is stopped (addresses, boot files, blocks, time, the way
in), nor what a cluster would take for a death, nor this process and what it hangs on. Whatever
happens, everything goes on after ``limit`` seconds: a process of its own sees to that.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: units that are never stopped: stations, other servers or this copy need them every second, or
#: they keep the machine itself going
KEPT = (
    "ets-*", "kea-*", "isc-dhcp-*", "dnsmasq*", "nginx*", "nbdkit*", "tftpd*", "nfs-*", "rpc*",
    "chrony*", "ntp*", "ssh*", "dbus*", "polkit*", "systemd-*", "getty@*", "serial-getty@*",
    "NetworkManager*", "networking*", "ifup@*", "wpa_supplicant*", "dhcpcd*", "keepalived*",
    "corosync*", "pacemaker*", "sbd*", "drbd*", "watchdog*", "bind9*", "named*", "unbound*",
    "multipathd*", "iscsid*", "open-iscsi*", "lvm2-*", "dm-event*", "mdmonitor*", "mdadm*",
    "init.scope",
)  # fmt: skip
#: those of them that hold users' things all the same
NOT_KEPT = ("systemd-nspawn@*",)
_SLICES = ("system.slice", "user.slice", "machine.slice")
#: of the time, the part in which all must have stopped: who waits for a slow disk stops late
_STOPPING = 0.5

_THAW = 'sleep "$1"; shift; for group; do echo 0 >"$group/cgroup.freeze"; done'
_CONTINUE = 'sleep "$1"; shift; kill -CONT "$@"'


def stops(unit: str) -> bool:
    """Is this unit stopped?"""

    def met(patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(unit, pattern) for pattern in patterns)

    return met(NOT_KEPT) or not met(KEPT)


@dataclass(slots=True)
class Silence:
    """What is stopped, and for how long it was. ``late``: units that did not stop in time."""

    units: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    paused: float = 0.0
    broken: bool = field(default=False)


@contextlib.contextmanager
def silence(limit: float) -> Iterator[Silence]:
    """Writers stand still inside. Look at ``broken`` afterwards: then it lasted longer than
    ``limit`` and they were let go before the end."""
    groups, stop, go, alarm = _means()
    held = Silence(tuple(sorted(Path(group).name for group in groups)))
    if not groups:
        yield held
        return
    watchdog = subprocess.Popen(
        ["sh", "-c", alarm, "sh", f"{limit:g}", *groups],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    began = time.monotonic()
    try:
        held.late = stop(groups, limit * _STOPPING)
        yield held
    finally:
        held.broken = watchdog.poll() is not None
        go(groups)
        held.paused = time.monotonic() - began
        with contextlib.suppress(ProcessLookupError):
            os.killpg(watchdog.pid, signal.SIGKILL)
        watchdog.wait()


Stop = Callable[[Sequence[str], float], tuple[str, ...]]


def _means() -> tuple[list[str], Stop, Callable[[Sequence[str]], None], str]:
    """What to stop, how, how to let it go, and the watchdog's script."""
    own = _own_groups(unified=True)
    mount = _unified()
    if mount is not None and (mount / "system.slice").is_dir():
        return [str(group) for group in writers(mount, own)], _freeze, _thaw, _THAW
    return [str(pid) for pid in _processes()], _halt, _resume, _CONTINUE


def writers(mount: Path, own: Sequence[Path]) -> list[Path]:
    """The control groups to freeze, as high as possible but never one that holds ``own``."""
    found = []

    def visit(group: Path) -> None:
        holds_us = any(place == group or group in place.parents for place in own)
        if group.name.endswith((".service", ".scope")) and not holds_us:
            if stops(group.name):
                found.append(group)
            return
        if group.name.endswith(".slice") or holds_us:
            for child in sorted(group.iterdir()):
                if child.is_dir() and child not in own:
                    visit(child)

    for name in _SLICES:
        if (mount / name).is_dir():
            visit(mount / name)
    return found


def _unified() -> Path | None:
    """Where cgroup v2 is mounted for writing."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2":
            return Path(before.split()[4])
    return None


def _own_groups(*, unified: bool) -> list[Path]:
    """The groups of this process and of everything that it hangs on."""
    mount = (_unified() if unified else None) or Path("/")
    found, pid = [], os.getpid()
    while pid > 1:
        try:
            found.append(mount / _group_of(pid, unified=unified).lstrip("/"))
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        pid = int(stat.rsplit(")", 1)[1].split()[1])
    return found


def _group_of(pid: int, *, unified: bool) -> str:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if (number == "0") if unified else controllers == "name=systemd":
            return path
    return "/"


def _freeze(groups: Sequence[str], seconds: float) -> tuple[str, ...]:
    for group in groups:
        _write(group, "1")
    end, left = time.monotonic() + seconds, list(groups)
    while left and time.monotonic() < end:
        left = [group for group in left if not _is_frozen(group)]
        if left:
            time.sleep(0.002)
    return tuple(Path(group).name for group in left)


def _thaw(groups: Sequence[str]) -> None:
    for group in groups:
        _write(group, "0")


def _write(group: str, value: str) -> None:
    with contextlib.suppress(OSError):  # it ended meanwhile
        (Path(group) / "cgroup.freeze").write_text(value)


def _is_frozen(group: str) -> bool:
    try:
        return "frozen 1" in (Path(group) / "cgroup.events").read_text()
    except OSError:
        return True


def _processes() -> list[int]:
    """Without cgroup v2: the processes of units that are stopped, by systemd's own hierarchy."""
    own = {str(group) for group in _own_groups(unified=False)}
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            group = _group_of(int(place.name), unified=False)
        except (OSError, ValueError):
            continue
        units = [part for part in group.split("/") if part.endswith((".service", ".scope"))]
        if group.split("/")[1] in _SLICES and units and group not in own and stops(units[0]):
            found.append(int(place.name))
    return found


def _halt(pids: Sequence[str], seconds: float) -> tuple[str, ...]:
    del seconds
    _signal(pids, signal.SIGSTOP)
    return ()


def _resume(pids: Sequence[str]) -> None:
    _signal(pids, signal.SIGCONT)


def _signal(pids: Sequence[str], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(int(pid), number)
