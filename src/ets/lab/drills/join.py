"""A real join in the lab: a machine with blank disks becomes a server, while the one that it is
copied from is being written to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ets import paths
from ets.errors import DeadlinePassed, EtsError, LabError
from ets.host.deadline import Deadline, wait_for
from ets.host.transport import Host
from ets.lab.lab import Lab
from ets.lab.machine import MachineServer
from ets.lab.qemu import Firmware
from ets.lab.server import LabServer

Say = Callable[[str], None]

#: seconds; the machine is emulated, and shares its processors with what it copies from
INSTALL = 1200.0
SERVICE = 600.0

#: where the writers write
LOAD = "/srv/load"
#: an account that is logged in meanwhile
USER = "ada"

# A person at work in a home of their own.
_PERSON = "i=0; while :; do i=$((i+1)); echo $i >>notes; cp notes notes.bak; sleep 0.1; done"
_LOGIN = f"useradd --create-home --shell /bin/sh {USER}"


@dataclass
class Joined:
    """How a join went. ``stages`` are the seconds since power-on at which each was reached."""

    server: str
    firmware: Firmware
    stages: dict[str, float] = field(default_factory=dict)


@contextmanager
def write_load(host: Host) -> Iterator[None]:
    """Writers that fsync, live databases, and somebody logged in, as long as the context lasts."""
    host.run(["sh", "-c", f"id {USER} >/dev/null 2>&1 || {_LOGIN}"])
    start = ["systemd-run", "--quiet", "--collect"]
    writer = ["--setenv=PYTHONPATH=/opt/ets/lib", "--", "python3", "-m", "ets.lab.load", "write"]
    host.run([*start, "--unit=load-writer", *writer, LOAD])
    host.run([*start, "--unit=load-person", "--uid", USER, f"--working-directory=/home/{USER}",
              "--", "sh", "-c", _PERSON])  # fmt: skip
    wait_for("the writers", lambda: host.read(f"{LOAD}/wal.db"), Deadline(20))
    try:
        yield
    finally:
        host.run(["systemctl", "stop", "load-writer", "load-person"], check=False)


def load_on(server: LabServer) -> dict[str, Any]:
    """What the load looks like there, as ``ets.lab.load.look``. Raises HostError."""
    found: dict[str, Any] = json.loads(server.program("ets.lab.load", "look", LOAD))
    return found


def join(
    lab: Lab,
    name: str,
    *,
    source: str,
    firmware: Firmware = "bios",
    say: Say = lambda _: None,
    options: Sequence[str] = ("--unattended",),
    command: str = "join",
) -> Joined:
    """Open a join of ``name`` on ``source``, switch the machine on, and wait until it is in
    service. Raises LabError when the installer fails for good, DeadlinePassed."""
    primary, machine = lab.server(source).host, lab.machine(name)
    joined = Joined(name, firmware)
    primary.run(["ets", command, name, *options, "--no-wait"])
    say(f"{source} takes {name}; switching a blank machine on ({firmware.upper()})")
    machine.start(boot="once", firmware=firmware)
    watch = _Watch(machine, joined, say)
    watch.until_installed(INSTALL)
    machine.wait_booted(SERVICE)
    watch.reached("booted", "starts from its own disk")
    wait_in_service(machine, primary, name)
    watch.reached("in service", f"is in service, equal to {source}")
    return joined


def wait_in_service(
    machine: LabServer, primary: Host, name: str, deadline: float = SERVICE
) -> None:
    """Wait until the newcomer's marker is gone and the primary says that the join is done.
    Raises DeadlinePassed with what both say."""
    marker = str(paths.JOINING)

    def done() -> bool:
        try:
            there = machine.host.run(["test", "-e", marker], check=False, deadline=20).status == 0
        except EtsError:
            return False
        return not there and state(primary, name) == "done"

    try:
        wait_for(f"{name} to be in service", done, Deadline(deadline), every=1.0)
    except DeadlinePassed as error:
        said = machine.host.run(
            ["journalctl", "--boot", "--no-pager", "--lines=40", "--unit=ets-*"], check=False
        )
        raise DeadlinePassed(
            f"{error.message}; the join is {state(primary, name)}\n{said.text}"
        ) from error


def state(primary: Host, name: str) -> str:
    """The state of a join as the primary has it; empty when there is none."""
    shown = json.loads(primary.run(["ets", "join", "--list", "--json"]).stdout)
    return next((str(row["state"]) for row in shown["joins"] if row["name"] == name), "")


class _Watch:
    """What the machine says, as it says it."""

    def __init__(self, machine: MachineServer, joined: Joined, say: Say) -> None:
        self._machine, self._joined, self._say = machine, joined, say
        self._seen = 0
        self._progress = 0.0
        self._failures = 0

    def reached(self, stage: str, says: str) -> None:
        """Note a stage."""
        self._joined.stages.setdefault(stage, time.monotonic() - self._machine.machine.powered_on)
        self._say(f"{self._machine.name} {says}")

    def until_installed(self, deadline: float) -> None:
        """Wait for the installer's end. A failure that repeats itself is one for good."""
        what = f"{self._machine.name} to be installed"
        qemu = self._machine.machine
        qemu.explained(lambda: wait_for(what, self._installed, Deadline(deadline), every=0.5))
        self.reached("installed", "is installed; it restarts")

    def _installed(self) -> bool:
        if not self._machine.machine.running:
            raise LabError(f"{self._machine.name} went off: {self._machine.machine.tail()}")
        events = self._machine.machine.events()
        for event in events[self._seen :]:
            self._heard(str(event.get("event")), event)
        self._seen = len(events)
        return any(event.get("event") == "installed" for event in events)

    def _heard(self, kind: str, event: dict[str, object]) -> None:
        text = str(event.get("text", "")).strip()
        if kind == "failed":
            self._failures += 1
            if self._failures > 2:
                raise LabError(f"the installer on {self._machine.name} fails: {text}")
        if kind == "progress" and time.monotonic() - self._progress < 5:
            return
        if kind == "progress":
            self._progress = time.monotonic()
        if self._seen == 0 and not self._joined.stages:
            self.reached("installer", "runs the installer")
        if text:
            self._say(f"{self._machine.name}: {text}")
