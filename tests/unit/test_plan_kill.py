"""An apply that is killed at any step, and run again, ends as if it had not been killed."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.plan_machine import Machine, in_memory, plan_for

from ets.plan import plan as plans
from ets.plan.apply import apply
from ets.plan.desired import Account, Copy, Desired, Directory, File, Unit
from ets.plan.plan import Plan

FIRST = Desired(
    directories=(Directory("/srv/old"), Directory("/srv/kept", 0o700)),
    files=(
        File("/etc/back.conf", b"ours\n"),
        File("/etc/changes.conf", b"first\n"),
        File("/etc/goes.conf", b"gone soon\n"),
        File("/etc/same.conf", b"same\n"),
        File("/etc/systemd/system/olddaemon.service", b"[Service]\n"),
    ),
    units=(
        Unit("changes.service", restart_on=("/etc/changes.conf",)),
        Unit("gentle.service", restart_on=("/etc/changes.conf",), reload=True),
        Unit("olddaemon.service", restart_on=("/etc/back.conf",)),
        Unit("untouched.service", restart_on=("/etc/same.conf",)),
        Unit("was.service", restart_on=("/etc/back.conf",)),
    ),
)
SECOND = Desired(
    packages=("timed", "webd"),
    accounts=(Account("station", groups=("media",)),),
    directories=(Directory("/srv/kept"), Directory("/srv/new")),
    files=(
        File("/etc/changes.conf", b"second\n"),
        File("/etc/foreign.conf", b"ours\n"),
        File("/etc/same.conf", b"same\n"),
        File("/etc/systemd/system/webd.service.d/ets.conf", b"[Unit]\n"),
        File("/etc/webd.conf", b"listen 80\n", 0o600),
    ),
    copies=(Copy("/srv/new/boot.bin", "/usr/lib/webd/boot.bin"),),
    units=(
        Unit("changes.service", restart_on=("/etc/changes.conf",)),
        Unit("gentle.service", restart_on=("/etc/changes.conf",), reload=True),
        Unit("telnetd.service", enabled=False, active=False),
        Unit("timed.service", restart_on=("/etc/timed.conf",)),
        Unit("untouched.service", restart_on=("/etc/same.conf",)),
        Unit("webd.service", restart_on=("/etc/webd.conf",)),
    ),
)
VALIDATED = ("/etc/webd.conf", "/etc/same.conf", "/srv/new/boot.bin")


memory = pytest.fixture(scope="module")(in_memory)


@pytest.fixture(scope="module")
def start(memory: Path) -> Path:
    """A machine that is as ``FIRST`` wants it, with foreign files and units."""
    machine = Machine.make(memory / "start")
    for name in ("back", "foreign"):
        (machine.root / f"etc/{name}.conf").write_text(f"{name}: theirs\n")
    state = machine.state
    for name in ("telnetd", "was"):
        state["units"][f"{name}.service"] = {"enabled": True, "active": True, "loaded": {}}
    machine.save(state)
    apply(plan_for(machine, FIRST), machine)
    return machine.folder


def copy_of(start: Path, name: str) -> Machine:
    folder = start.with_name(name)
    shutil.copytree(start, folder, symlinks=True)
    return Machine(folder)


def outcome(machine: Machine) -> tuple[dict[str, str], dict[str, Any]]:
    """Files, and what every running daemon has loaded of those that concern it."""
    state = machine.state
    concerns = {unit.name: unit.restart_on for unit in (*FIRST.units, *SECOND.units)}
    for name, unit in state["units"].items():
        loaded = unit.pop("loaded")
        unit["knows"] = {path: loaded.get(path) for path in concerns[name]}
    reloaded = state.pop("reloaded")
    state["systemd knows"] = {p: w for p, w in reloaded.items() if "/systemd/system/" in p}
    return machine.files(), state


def apply_killed_at(machine: Machine, plan: Plan, call: int) -> bool:
    """Apply in a process that is killed before its ``call``-th change; False when it ended well
    before that came."""
    child = os.fork()
    if child == 0:
        status, count = 1, 0

        def count_down(_what: str, _target: str) -> None:
            nonlocal count
            count += 1
            if count == call:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            machine.before = count_down
            apply(plan, machine)
            status = 0
        finally:
            os._exit(status)
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


@pytest.fixture(scope="module")
def whole(start: Path) -> tuple[Any, int]:
    """How an apply ends that nobody kills, and how many changes it makes."""
    machine = copy_of(start, "whole")
    changes: list[str] = []
    machine.before = lambda what, target: changes.append(f"{what} {target}")
    apply(plan_for(machine, SECOND, validate=VALIDATED), machine)
    return outcome(machine), len(changes)


Resume = Callable[[Machine, Plan, tuple[Any, int], Any], None]


def with_a_new_plan(machine: Machine, _plan: Plan, whole: Any, _first: Any) -> None:
    apply(plan_for(machine, SECOND, validate=VALIDATED), machine)
    assert outcome(machine) == whole
    assert plan_for(machine, SECOND).empty


def with_the_same_plan(machine: Machine, plan: Plan, whole: Any, _first: Any) -> None:
    apply(plans.loads(plans.dumps(plan)), machine)
    assert outcome(machine) == whole
    assert plan_for(machine, SECOND).empty


def with_the_old_site(machine: Machine, _plan: Plan, _whole: Any, first: Any) -> None:
    """The interrupted change is taken back: the machine is as it was, but for packages."""
    apply(plan_for(machine, FIRST), machine)
    files, state = outcome(machine)
    brought = {"/etc", "/etc/group", "/etc/passwd", "/etc/timed.conf", "/etc/webd.conf"}
    brought |= {"/etc/systemd/system/webd.service.d", "/usr", "/var/lib/ets/owned.json"}

    def others(found: dict[str, str]) -> dict[str, str]:
        return {p: w for p, w in found.items() if p not in brought and not p.startswith("/usr/")}

    assert others(files) == others(first[0])
    for unit in FIRST.units:
        knows = state["units"][unit.name]["knows"]
        assert knows == {path: files[path] for path in unit.restart_on}, unit.name
    assert plan_for(machine, FIRST).empty


RESUMES: list[Resume] = [with_a_new_plan, with_the_same_plan, with_the_old_site]


def kill_and_resume(start: Path, whole: Any, call: int, resume: Resume) -> None:
    machine = copy_of(start, f"{resume.__name__}-{call}")
    plan = plan_for(machine, SECOND, validate=VALIDATED)
    assert apply_killed_at(machine, plan, call), f"change {call} never came"
    try:
        resume(machine, plan, whole, outcome(Machine(start)))
    except Exception as error:
        error.add_note(f"killed before change {call}")
        raise
    shutil.rmtree(machine.folder)


def test_the_unkilled_one_is_complete(whole: tuple[Any, int]) -> None:
    (files, state), total = whole
    assert total > 60
    assert state["packages"] == ["timed", "webd"]
    for name, unit in state["units"].items():
        current = {path: files.get(path) for path in unit["knows"]}
        assert not unit["active"] or unit["knows"] == current, name
    active = {name for name, unit in state["units"].items() if unit["active"]}
    wanted = {unit.name for unit in SECOND.units if unit.active}
    assert active == wanted | {"was.service"}


@pytest.mark.parametrize("part", range(4))
def test_killed_at_every_step(start: Path, whole: tuple[Any, int], part: int) -> None:
    """Every step, the three ways to go on in turn; four parts, for two processors."""
    expected, total = whole
    for call in range(1 + part, total + 1, 4):
        kill_and_resume(start, expected, call, RESUMES[call % 3])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("resume", RESUMES)
def test_killed_at_every_step_in_all_ways(
    start: Path, whole: tuple[Any, int], resume: Resume, part: int
) -> None:
    expected, total = whole
    for call in range(1 + part, total + 1, 4):
        kill_and_resume(start, expected, call, resume)


def test_killed_twice(start: Path, whole: tuple[Any, int]) -> None:
    expected, total = whole
    for first in range(3, total, 9):
        machine = copy_of(start, str(first))
        assert apply_killed_at(machine, plan_for(machine, SECOND, validate=VALIDATED), first)
        for second in (first, first // 2 + 1, 2):
            plan = plan_for(machine, SECOND, validate=VALIDATED)
            if not apply_killed_at(machine, plan, second):
                break
        apply(plan_for(machine, SECOND, validate=VALIDATED), machine)
        assert outcome(machine) == expected, f"killed before change {first}, and again"
        shutil.rmtree(machine.folder)
