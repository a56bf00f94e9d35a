"""A disk that is full at any point: a clear error, and either all old files or all new ones."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.plan_machine import Machine, plan_for

from ets.errors import HostError
from ets.host import atomic
from ets.plan.apply import apply
from ets.plan.desired import Desired, File, Unit

pytestmark = pytest.mark.root

NAMES = ("a", "b", "c")
SIZES = (30_000, 9_000, 50_000)
UNIT = Unit("a.service", restart_on=("/etc/a.conf",))


def site(letter: bytes) -> Desired:
    files = [File(f"/etc/{n}.conf", letter * size) for n, size in zip(NAMES, SIZES, strict=True)]
    return Desired(files=tuple(files), units=(UNIT,))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 600 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "ets-test", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def fill(disk: Path, leave: int) -> None:
    """Fill the disk but for ``leave`` bytes."""
    about = os.statvfs(disk)
    (disk / "filling").write_bytes(b"\0" * (about.f_bavail * about.f_frsize - leave))


def contents(machine: Machine) -> set[bytes]:
    return {(machine.read(f"/etc/{name}.conf") or b"?")[:1] for name in NAMES}


def leftovers(machine: Machine) -> list[str]:
    return [path.name for path in machine.root.rglob("*.ets-new")]


def test_a_write_on_a_full_disk_keeps_the_old_file(small_disk: Path) -> None:
    atomic.write_atomic(small_disk / "f", b"old")
    fill(small_disk, 4096)
    with pytest.raises(HostError, match=r"the disk that holds .*/f is full: 9000 bytes") as error:
        atomic.write_atomic(small_disk / "f", b"x" * 9000)
    assert "df -h" in error.value.hint
    assert (small_disk / "f").read_bytes() == b"old"
    assert sorted(path.name for path in small_disk.iterdir()) == ["f", "filling"]


@pytest.mark.parametrize("leave", range(0, 300_000, 12_288))
def test_full_at_any_point(small_disk: Path, leave: int) -> None:
    machine = Machine.make(small_disk)
    apply(plan_for(machine, site(b"1")), machine)
    plan = plan_for(machine, site(b"2"))
    fill(small_disk, leave)
    problem = ""
    try:
        apply(plan, machine)
    except HostError as error:
        problem = error.message
    if problem:
        assert "is full" in problem
        assert contents(machine) == {b"1"}
        assert leftovers(machine) == []
        assert machine.state["units"]["a.service"]["active"]
    else:
        assert contents(machine) == {b"2"}
    (small_disk / "filling").unlink()
    apply(plan_for(machine, site(b"2")), machine)
    assert contents(machine) == {b"2"}
    assert machine.state["units"]["a.service"]["loaded"] == machine.loaded()
    assert plan_for(machine, site(b"2")).empty
    assert leftovers(machine) == []
    assert machine.names("/var/lib/ets/staged") == ()


def test_both_ends_were_seen(small_disk: Path) -> None:
    """The range of the test above reaches from certain failure to certain success."""
    machine = Machine.make(small_disk)
    apply(plan_for(machine, site(b"1")), machine)
    plan = plan_for(machine, site(b"2"))
    fill(small_disk, 0)
    with pytest.raises(HostError, match="is full"):
        apply(plan, machine)
    (small_disk / "filling").unlink()
    fill(small_disk, 290_000)
    apply(plan_for(machine, site(b"2")), machine)
    assert contents(machine) == {b"2"}


def test_the_files_disk_is_full_but_not_the_state_s(small_disk: Path, tmp_path: Path) -> None:
    """Files go to another disk than the staged ones: the first are not swapped without the last."""
    machine = Machine.make(tmp_path / "machine")
    for path in sorted((machine.root / "etc").iterdir()):
        subprocess.run(["cp", "-a", path, small_disk], check=True)
    subprocess.run(["mount", "--bind", small_disk, machine.root / "etc"], check=True)
    try:
        apply(plan_for(machine, site(b"1")), machine)
        fill(small_disk, 60_000)
        with pytest.raises(HostError, match=r"holds .*/etc/c.conf is full"):
            apply(plan_for(machine, site(b"2")), machine)
        assert contents(machine) == {b"1"}
        assert leftovers(machine) == []
        (small_disk / "filling").unlink()
        apply(plan_for(machine, site(b"2")), machine)
        assert contents(machine) == {b"2"}
    finally:
        subprocess.run(["umount", machine.root / "etc"], check=True)
