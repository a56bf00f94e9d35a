"""Plan and apply on a played machine: everything shown is done, and undone again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.plan_machine import Machine, in_memory, plan_for

from ets.errors import HostError, PlanError
from ets.host.local import LocalHost
from ets.plan import plan as plans
from ets.plan.apply import Event, apply
from ets.plan.desired import Account, Copy, Desired, Directory, File, Unit
from ets.plan.journal import read_owned
from ets.plan.owned import Owned
from ets.plan.verify import verify

WEBD = Unit("webd.service", restart_on=("/etc/webd.conf",))
SITE = Desired(
    packages=("webd",),
    accounts=(Account("station", groups=("media",)),),
    directories=(
        Directory("/srv/boot", 0o750),
        Directory("/srv/boot/deep"),
        Directory("/var/lib/ets", 0o755),
    ),
    files=(
        File("/etc/foreign.conf", b"ours\n"),
        File("/etc/systemd/system/own.service", b"[Service]\n"),
        File("/etc/webd.conf", b"listen 80\n", 0o640),
    ),
    copies=(Copy("/srv/boot/boot.bin", "/usr/lib/webd/boot.bin"),),
    units=(
        Unit("own.service", restart_on=("/etc/systemd/system/own.service",)),
        Unit("telnetd.service", enabled=False, active=False),
        WEBD,
    ),
)


memory = pytest.fixture(in_memory)


@pytest.fixture
def machine(memory: Path) -> Machine:
    made = Machine.make(memory)
    (made.root / "etc/foreign.conf").write_text("theirs\n")
    (made.root / "etc/foreign.conf").chmod(0o600)
    state = made.state
    state["units"]["telnetd.service"] = {"enabled": True, "active": True, "loaded": {}}
    made.save(state)
    return made


def words(machine: Machine, desired: Desired) -> list[str]:
    return [str(step) for step in plan_for(machine, desired).steps]


def test_everything_shown_is_done(machine: Machine) -> None:
    events: list[Event] = []
    plan = plan_for(machine, SITE)
    shown = [str(step) for step in plan.steps]
    receipt = apply(plan, machine, events=events.append)
    assert [str(e.step) for e in events if e.what == "done"] == [
        step for step in shown if not step.startswith(("own", "forget"))
    ]
    assert shown == [
        "install package webd",
        "create account station",
        "create directory /srv/boot",
        "create directory /srv/boot/deep",
        "create directory /var/lib/ets",
        "change file /etc/foreign.conf",
        "create file /etc/systemd/system/own.service",
        "create file /etc/webd.conf",
        "create file /srv/boot/boot.bin",
        "stop unit telnetd.service",
        "disable unit telnetd.service",
        "read systemd units",
        "enable unit own.service",
        "enable unit webd.service",
        "start unit own.service",
        "start unit webd.service",
    ]
    assert machine.read("/etc/webd.conf") == b"listen 80\n"
    assert machine.read("/srv/boot/boot.bin") == b"\0boot"
    assert machine.look(["/srv/boot"])["/srv/boot"].mode == 0o750
    assert b"media:x:900:station" in (machine.read("/etc/group") or b"")
    units = machine.state["units"]
    assert units["webd.service"]["loaded"] == machine.loaded()
    assert not units["telnetd.service"]["active"]
    assert not units["telnetd.service"]["enabled"]
    written = json.loads(machine.read(receipt.path) or b"")
    assert [step["target"] for step in written["steps"]] == [step.target for step in plan.steps]
    assert written["outcome"] == "applied"
    assert words(machine, SITE) == []
    assert verify(SITE, (), machine).exit_code == 0
    assert machine.names("/var/lib/ets/staged") == ()


def test_what_is_no_longer_asked_for_goes(machine: Machine) -> None:
    before = machine.files()
    apply(plan_for(machine, SITE), machine)
    plan = plan_for(machine, Desired())
    assert [f"{s.verb} {s.target}" for s in plan.steps if s.verb != "forget"] == [
        "stop own.service",
        "stop webd.service",
        "disable own.service",
        "disable webd.service",
        "restore /etc/foreign.conf",
        "remove /etc/systemd/system/own.service",
        "restore /etc/webd.conf",
        "remove /srv/boot/boot.bin",
        "remove /srv/boot/deep",
        "remove /srv/boot",
        "read units",
        "enable telnetd.service",
        "start telnetd.service",
        "release webd",
    ]
    apply(plan, machine)
    after = machine.files()
    changed = {path for path in before if after.get(path) != before[path]}
    assert changed == {"/etc/passwd", "/etc/group"}
    assert (machine.read("/etc/webd.conf") or b"").startswith(b"the package's own")
    assert machine.state["auto"] == ["webd"]
    assert not machine.state["units"]["webd.service"]["active"]
    assert read_owned(machine) == Owned()
    assert machine.names("/var/lib/ets/backup") == ()
    assert words(machine, Desired()) == []


def test_only_what_changed_is_restarted(machine: Machine) -> None:
    apply(plan_for(machine, SITE), machine)
    changed = replace(SITE, files=(*SITE.files[:2], File("/etc/webd.conf", b"listen 81\n", 0o640)))
    assert words(machine, changed) == ["change file /etc/webd.conf", "restart unit webd.service"]
    gentle = replace(changed, units=(*SITE.units[:2], replace(WEBD, reload=True)))
    assert words(machine, gentle)[-1] == "reload unit webd.service"
    own = replace(
        gentle, files=(*SITE.files, File("/etc/systemd/system/webd.service.d/ets.conf", b"[Unit]"))
    )
    steps = words(machine, own)
    assert "read systemd units" in steps
    assert steps[-1] == "restart unit webd.service"


def test_the_plan_shows_what_changes_but_no_secret(machine: Machine) -> None:
    apply(plan_for(machine, SITE), machine)
    files = (
        File("/etc/foreign.conf", b"ours\nand more\n"),
        File("/etc/key", b"secret", 0o600),
        SITE.files[1],
        replace(SITE.files[2], mode=0o600, content=b"secret"),
    )
    plan = plan_for(machine, replace(SITE, files=files))
    diffs = {step.target: step.diff for step in plan.steps}
    assert "+and more" in diffs["/etc/foreign.conf"]
    assert diffs["/etc/key"] == diffs["/etc/webd.conf"] == ""


def test_a_saved_plan_is_the_same_plan(machine: Machine) -> None:
    machine.write("/bin.bin", b"\xff\xfe")
    desired = replace(SITE, files=(*SITE.files, File("/etc/bin", b"\xff\0"), File("/etc/e", b"")))
    plan = plan_for(machine, desired, validate=["/etc/bin"])
    again = plans.loads(plans.dumps(plan))
    assert again == plan
    apply(again, machine)
    assert machine.read("/etc/bin") == b"\xff\0"


def test_a_stale_plan_is_refused(machine: Machine) -> None:
    plan = plan_for(machine, SITE)
    (machine.root / "etc/foreign.conf").write_text("changed since\n")
    before = machine.files()
    with pytest.raises(PlanError, match="stale"):
        apply(plan, machine)
    assert machine.files() == before


def test_a_plan_may_be_applied_twice(machine: Machine) -> None:
    plan = plan_for(machine, SITE)
    apply(plan, machine)
    before = machine.files()
    assert apply(plan, machine).steps == ()
    assert machine.files() == before


def test_a_plan_for_another_server_is_refused(machine: Machine) -> None:
    machine.write("/etc/ets/server", b"beta\n")
    with pytest.raises(PlanError, match="for the server alpha, this is beta"):
        apply(plan_for(machine, SITE), machine)


def test_one_apply_at_a_time(machine: Machine) -> None:
    plan = plan_for(machine, SITE)
    before = machine.files()
    with machine.hold("/run/ets-apply.lock"):
        with pytest.raises(HostError, match="another run of ets"):
            apply(plan, machine)
        assert machine.files().items() >= before.items()
    apply(plan, machine)


def test_validators_see_all_files_and_may_refuse(machine: Machine) -> None:
    apply(plan_for(machine, SITE), machine)
    before, units = machine.files(), machine.state["units"]
    files = (*SITE.files[:2], File("/etc/webd.conf", b"BAD\n"), File("/etc/new", b"new"))
    plan = plan_for(machine, replace(SITE, files=files), validate=["/etc/new", "/etc/webd.conf"])
    with pytest.raises(PlanError, match=r"validator refuses .*files are good.*: /etc/webd.conf"):
        apply(plan, machine)
    assert machine.files() == before
    assert machine.state["units"] == units
    # the unchanged files are staged too, and so is the copy
    seen = ["/etc/foreign.conf", "/etc/systemd/system/own.service", "/srv/boot/boot.bin"]
    files = (*SITE.files[:2], File("/etc/webd.conf", b"good\n"))
    apply(plan_for(machine, replace(SITE, files=files), validate=seen), machine)


def test_a_unit_that_does_not_start_keeps_no_other_from_it(machine: Machine) -> None:
    files = (*SITE.files[:2], File("/etc/own.conf", b"FAILS\n"), SITE.files[2])
    failing = replace(SITE, files=files)
    with pytest.raises(PlanError, match=r"own.service does not start: bind: Address") as error:
        apply(plan_for(machine, failing), machine)
    assert "journalctl -u own.service" in str(error.value)
    assert machine.state["units"]["webd.service"]["active"]
    left = plan_for(machine, failing)
    assert [str(step) for step in left.steps] == ["start unit own.service"]
    receipts = machine.names("/var/lib/ets/receipts")
    assert "failed" in (machine.read(f"/var/lib/ets/receipts/{receipts[-1]}") or b"").decode()
    machine.remove("/etc/own.conf")
    files = (*SITE.files[:2], File("/etc/own.conf", b"WORKS\n"), SITE.files[2])
    apply(plan_for(machine, replace(SITE, files=files)), machine)
    assert machine.state["units"]["own.service"]["active"]


def test_a_missing_source_stops_before_any_file(machine: Machine) -> None:
    desired = Desired(
        files=(File("/etc/foreign.conf", b"ours\n"),), copies=(Copy("/srv/x", "/usr/lib/none"),)
    )
    before = machine.files()
    with pytest.raises(PlanError, match="/srv/x should be a copy of /usr/lib/none"):
        apply(plan_for(machine, desired), machine)
    assert {k: v for k, v in machine.files().items() if k in before} == before


def test_something_in_the_way_is_named(machine: Machine) -> None:
    machine.make_directory("/etc/webd.conf")
    with pytest.raises(PlanError, match=r"/etc/webd.conf should be a file, but a directory"):
        plan_for(machine, SITE)
    with pytest.raises(PlanError, match=r"/etc/foreign.conf should be a directory, but a file"):
        plan_for(machine, Desired(directories=(Directory("/etc/foreign.conf"),)))


def test_a_tree_takes_files_only(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    host = LocalHost(tmp_path, name="tree")
    with pytest.raises(PlanError, match=r"systemd does not run on tree.*own.service, webd.service"):
        apply(plan_for(host, replace(SITE, packages=(), accounts=())), host)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["etc", "run"]


def test_a_directory_with_things_of_others_stays(machine: Machine) -> None:
    apply(plan_for(machine, SITE), machine)
    machine.write("/srv/boot/deep/theirs", b"x")
    receipt = apply(plan_for(machine, Desired()), machine)
    assert receipt.notes == (
        "/srv/boot/deep was left: it is not empty",
        "/srv/boot was left: it is not empty",
    )
    assert machine.read("/srv/boot/deep/theirs") == b"x"
    assert words(machine, Desired()) == []


def test_a_lost_backup_is_said_before_anything_is_done(machine: Machine) -> None:
    apply(plan_for(machine, SITE), machine)
    machine.remove("/var/lib/ets/backup/etc/foreign.conf")
    with pytest.raises(HostError, match=r"before ETS cannot be restored.*is missing"):
        apply(plan_for(machine, Desired()), machine)
    assert machine.read("/etc/foreign.conf") == b"ours\n"


def test_a_damaged_record_is_named(machine: Machine) -> None:
    for content in (b"", b"\xff", b"[]", b"{}", b'{"format": 1, "paths": 3}', b'{"format": 2}'):
        machine.write("/var/lib/ets/owned.json", content)
        with pytest.raises(PlanError, match=r"owned\.json"):
            plan_for(machine, SITE)
