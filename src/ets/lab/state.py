"""What the lab remembers in /run/ets-lab: enough that another process can find a lab, use it, and
remove what a killed one left behind.

Invariant: a thing that outlives its maker (namespace, cgroup, directory) follows from the lab's
name and its site file, and the state file with both is written before the first of them is made
and removed after the last of them is gone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ets.errors import InputError, LabError

RUN = Path("/run/ets-lab")
_NAME = re.compile(r"[a-z][a-z0-9]{0,11}")

Phase = Literal["starting", "up", "stopping"]


def check_name(name: str) -> str:
    """``name``, when it can be a lab's. Raises InputError."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be the name of a lab",
            hint="1 to 12 small letters and digits, a letter first",
        )
    return name


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, named so that a later one with the same number is not taken for it."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """True while that very process runs."""
        return _start_time(self.pid) == self.started

    @classmethod
    def this(cls) -> Owner:
        """The calling process."""
        return cls(os.getpid(), _start_time(os.getpid()))


@dataclass(slots=True)
class LabState:
    """One lab. ``site`` is the lab's own copy of the site file, ``directory`` where its servers'
    disks are, ``layers`` the server tree's, ``owner`` the process that will bring it down (None
    when it is to stay), ``blank`` the servers that are machines, ``stations`` the options of the
    stations that were started, ``faults`` the injected ones: by target, then fault, with what
    healing needs to know."""

    name: str
    site: str
    directory: str
    boot: str
    layers: list[str] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    phase: Phase = "starting"
    owner: Owner | None = None
    stations: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        """The lab's directory in /run/ets-lab."""
        return RUN / self.name

    @property
    def stale(self) -> bool:
        """True when nobody is there any more who would bring it down."""
        return self.boot != boot_id() or (self.owner is not None and not self.owner.alive)

    def save(self) -> None:
        """Replace the state file atomically."""
        self.run.mkdir(parents=True, exist_ok=True)
        temporary = self.run / ".state.json"
        temporary.write_text(json.dumps(dataclasses.asdict(self), indent=1))
        temporary.replace(self.run / "state.json")

    @classmethod
    def load(cls, name: str) -> LabState:
        """The state of a lab. Raises LabError when there is none of that name."""
        path = RUN / check_name(name) / "state.json"
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            raise LabError(
                f"there is no lab {name!r}", hint="ets lab up SITE brings one up"
            ) from None
        except ValueError as error:
            raise LabError(f"{path} is damaged: {error}", hint="ets lab down") from error
        owner = data.pop("owner")
        return cls(**data, owner=Owner(**owner) if owner else None)


def all_labs() -> Iterator[LabState]:
    """Every lab that this machine remembers, by name."""
    for path in sorted(RUN.glob("*/state.json")):
        with contextlib.suppress(LabError):
            yield LabState.load(path.parent.name)


def boot_id() -> str:
    """Changes when the machine restarts, which removes everything but files."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_time(pid: int) -> int:
    """When a process started (field 22 of /proc/PID/stat, proc(5)); 0 when there is none, or only
    a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = text[text.rindex(")") + 2 :].split()
    return 0 if fields[0] in "ZX" else int(fields[19])
