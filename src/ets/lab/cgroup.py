"""A control group per machine of the lab: the one place from which all its processes can be
found, frozen and killed, whatever they forked. cgroup v2 only (no controllers needed).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ets.errors import HostError, LabError
from ets.host.deadline import Deadline, wait_for


@cache
def _mount() -> Path:
    """Where cgroup v2 is mounted: /sys/fs/cgroup, or /sys/fs/cgroup/unified on hybrid machines."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2":
            return Path(before.split()[4])
    raise LabError("this machine has no cgroup v2", hint="mount -t cgroup2 none /sys/fs/cgroup")


def lab_group(lab: str) -> Cgroup:
    """The group that holds all machines of a lab."""
    return Cgroup(_mount() / "ets-lab" / lab)


class Cgroup:
    """One control group and everything below it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def child(self, name: str) -> Cgroup:
        """A group below this one."""
        return Cgroup(self.path / name)

    def make(self) -> None:
        """Make the group; well when it is there."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LabError(f"cannot make the cgroup {self.path}: {error.strerror}") from error

    def entering(self, argv: list[str]) -> list[str]:
        """``argv``, changed so that the program and all it starts belong to this group."""
        script = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
        return ["/bin/sh", "-c", script, str(self.path), *argv]

    def pids(self) -> list[int]:
        """All processes in it and below it. Empty when the group does not exist."""
        return [pid for group in self._groups() for pid in _pids_of(group)]

    def kill(self) -> None:
        """SIGKILL everything at once, also what is frozen or just being forked (cgroup.kill,
        Linux 5.14), and wait until it is gone. Raises HostError when it is not after 10 s."""
        if not self.path.exists():
            return
        with contextlib.suppress(FileNotFoundError):
            (self.path / "cgroup.kill").write_text("1")
        self.thaw()
        wait_for(f"the processes of {self.path.name} to die", self._is_empty, Deadline(10))

    def freeze(self) -> None:
        """Stop every process where it stands, as SIGSTOP to each would, but all at once."""
        self._set_frozen("1")

    def thaw(self) -> None:
        """Let them go on."""
        if self.path.exists():
            self._set_frozen("0")

    @property
    def frozen(self) -> bool:
        """True when it is stopped."""
        try:
            return "frozen 1" in (self.path / "cgroup.events").read_text()
        except FileNotFoundError:
            return False

    def remove(self) -> None:
        """Kill what is in it and remove it with everything below; well when there is none."""
        self.kill()
        deadline = Deadline(5)
        wait_for(f"the cgroup {self.path.name} to be removable", self._try_remove, deadline)

    def _mirrors(self) -> Iterator[Path]:
        """On machines with cgroup v1 beside v2, systemd-nspawn makes the same directories in v1's
        hierarchy of systemd and leaves them there."""
        other = _mount().parent / "systemd" / self.path.relative_to(_mount())
        for path, _, _ in os.walk(other, topdown=False):
            yield Path(path)

    def _set_frozen(self, value: str) -> None:
        try:
            (self.path / "cgroup.freeze").write_text(value)
        except FileNotFoundError as error:
            raise HostError(f"{self.path.name} is not running") from error
        if value == "1":
            wait_for(f"{self.path.name} to freeze", lambda: self.frozen, Deadline(5), every=0.01)

    def _is_empty(self) -> bool:
        return not self.pids()

    def _try_remove(self) -> bool:
        try:
            for group in [*self._mirrors(), *reversed(list(self._groups()))]:
                group.rmdir()
        except OSError:
            return False
        return True

    def _groups(self) -> Iterator[Path]:
        for path, _, _ in os.walk(self.path):
            yield Path(path)


def _pids_of(group: Path) -> list[int]:
    try:
        return [int(word) for word in (group / "cgroup.procs").read_text().split()]
    except (FileNotFoundError, OSError):
        return []
