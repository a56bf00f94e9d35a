"""The verdict: every promise of the script is there whatever happened, and what was not played is
not held."""

from __future__ import annotations

from ipaddress import IPv4Address

from ets.lab.dhcpload import Outcome, Wait
from ets.lab.drills import verdict
from ets.lab.drills.pair import AWAY, BOOTING, KILL, RUNNING
from ets.lab.drills.play import Notes
from ets.report.reads import Read, Window
from ets.report.timeline import Fault, Row, Served


def good(block: int) -> str:
    return "good"


def test_a_drill_that_never_began_holds_nothing() -> None:
    promises = verdict.promises(Notes(), [], [], good)
    assert len(promises) >= 15
    assert not [promise.name for promise in promises if promise.held]
    assert len({promise.name for promise in promises}) == len(promises)


def test_every_kind_of_fault_is_promised_something() -> None:
    names = " ".join(promise.name for promise in verdict.promises(Notes(), [], [], good))
    for step in (*RUNNING, *BOOTING):
        assert step.shown in names


def played() -> tuple[Notes, list[Row], list[Fault]]:
    """All went well: every step 10 s long and 20 s apart, reads every 0.1 s."""
    notes = Notes(running=("ws01",), noticed=3, quiet_dhcp=[0.1], late_dhcp=0.2)
    faults = []
    for index, step in enumerate((*BOOTING, *RUNNING)):
        began = 20.0 * index
        target = "alpha+beta" if step is AWAY else "alpha"
        faults.append(Fault(step.shown, target, Window(began, began + 10)))
        notes.began[step.shown], notes.ended[step.shown] = began, began + 19
        if step.guests:
            wait = Wait(b"\2" * 6, "boot", 0.4, IPv4Address("10.77.0.12"))
            notes.guests[step.shown] = Outcome(step.guests, (wait,), (), (), 0)
    away = notes.began[AWAY.shown]
    notes.returned, notes.late_root, notes.late_booted = away + 10, 50.0, 60.0
    end = 20.0 * len(faults)
    times = [index / 10 for index in range(round(end * 10))]
    reads = [Read(t, 0.09, 1, "good") for t in times if not away <= t <= away + 11]
    reads.append(Read(away, 10.9, 1, "good"))
    served = (Served("alpha", Window(0, end)),)
    row = Row("ws01", order=("alpha", "beta"), reads=tuple(reads), served=served)
    return notes, [row], faults


def test_a_drill_in_which_all_went_well_holds_everything() -> None:
    promises = verdict.promises(*played(), good)
    assert [promise.name for promise in promises if not promise.held] == []


def test_one_wrong_block_is_seen() -> None:
    broken = [p for p in verdict.promises(*played(), lambda block: "other") if not p.held]
    assert [promise.name for promise in broken] == ["bad image: wrong bytes read"]


def test_a_long_read_at_the_kill_is_seen() -> None:
    notes, (row,), faults = played()
    late = Read(notes.began[KILL.shown], 0.5, 1, "good")
    slow = Row(row.name, order=row.order, reads=(*row.reads, late), served=row.served)
    broken = [p for p in verdict.promises(notes, [slow], faults, good) if not p.held]
    assert [promise.name for promise in broken] == ["kill -9: longest read"]


def test_a_client_that_nobody_served_is_seen() -> None:
    notes, rows, faults = played()
    notes.guests[KILL.shown] = Outcome(40, (), ("52:54:00:9d:01:07",), (), 0)
    broken = [p for p in verdict.promises(notes, rows, faults, good) if not p.held]
    assert len(broken) == 1
    assert "unserved" in broken[0].name
