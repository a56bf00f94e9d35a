"""From a played script to promises and a timeline: every promise of the script is there, measured
or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ets.lab.drills.pair import BOOTING, KILL, LATE, RUNNING, Step
from ets.lab.drills.play import STANDS_STILL, Notes
from ets.lab.drills.stage import Stage
from ets.report import judge
from ets.report.promises import Promise
from ets.report.reads import Window
from ets.report.timeline import Fault, Moment, Row, Timeline

#: seconds without a word from a probe that are no stall yet: it reads ten times a second, but an
#: emulated processor may be kept waiting
PAUSE = 0.5
#: how much later than on a quiet day the first DHCP answer may come, in seconds
DHCP_LATER = 1.0
#: while all servers are away, reads must have been out at least so long: otherwise they were not
LEAST_AWAY = 10.0


def promises(
    notes: Notes,
    rows: Sequence[Row],
    faults: Sequence[Fault],
    good: Callable[[int], str],
    steps: Sequence[Step] = RUNNING + BOOTING,
) -> list[Promise]:
    """All promises of the script, in its order."""
    running = [row for row in rows if row.name in notes.running]
    found: list[Promise] = []
    for step in steps:
        watch = _watch(step, notes, faults)
        if watch is None:
            found += [replace(p, measured=None, detail="the drill broke off before") for p in
                      _of(step, notes, running, _nothing(step), good)]  # fmt: skip
        else:
            found += _of(step, notes, running, watch, good)
    return [*found, *_late(notes), *_addresses(notes, steps)]


def _of(
    step: Step,
    notes: Notes,
    rows: Sequence[Row],
    watch: judge.Watch,
    good: Callable[[int], str],
) -> list[Promise]:
    name = step.shown
    if step.promise == "stall":
        struck = watch.fault.window.start + STANDS_STILL if step is KILL else None
        return [
            judge.stall(f"{name}: longest read", step.limit, rows, watch, PAUSE, struck=struck),
            judge.io_errors(f"{name}: I/O errors", rows, watch),
        ]
    if step.promise == "slow":
        return [judge.slow_reads(f"{name} server: 99 % of reads", step.limit, rows, watch)]
    if step.promise == "right":
        return [
            judge.wrong_blocks(f"{name}: wrong bytes read", rows, watch, good, notes.noticed),
            judge.io_errors(f"{name}: I/O errors", rows, watch),
        ]
    if step.promise == "patient":
        again = f"{name}: reading again after the first return"
        return [
            judge.io_errors(f"{name}: I/O errors", rows, watch),
            judge.reading_again(again, step.limit, rows, notes.returned, LEAST_AWAY),
        ]
    return []


def _watch(step: Step, notes: Notes, faults: Sequence[Fault]) -> judge.Watch | None:
    fault = next((fault for fault in faults if fault.name == step.shown), None)
    if fault is None or step.shown not in notes.ended:
        return None
    return judge.Watch(fault, Window(notes.began[step.shown], notes.ended[step.shown]))


def _nothing(step: Step) -> judge.Watch:
    return judge.Watch(Fault(step.shown, step.target, Window(0, 0)), Window(0, 0))


def _late(notes: Notes) -> list[Promise]:
    booted = notes.late_root is not None and notes.late_booted is not None
    detail = (
        f"{LATE[0]} had address, boot script, kernel and root while the server was dead, and "
        "booted on to its login"
        if booted
        else "it did not reach its login"
    )
    return [
        Promise(
            "switched on at the kill: stations that the survivor did not boot", "stations", 0,
            0 if booted else None, detail,
        ),
        judge.dhcp_delay(
            "switched on at the kill: first DHCP answer later than on a quiet day", DHCP_LATER,
            notes.quiet_dhcp, notes.late_dhcp,
        ),
    ]  # fmt: skip


def _addresses(notes: Notes, steps: Sequence[Step]) -> list[Promise]:
    wanted = [step for step in steps if step.guests]
    names = " and ".join(step.shown for step in wanted)
    outcomes = [notes.guests[step.shown] for step in wanted if step.shown in notes.guests]
    complete = bool(wanted) and len(outcomes) == len(wanted)
    clients = sum(outcome.clients for outcome in outcomes)
    worst = max((outcome.worst for outcome in outcomes), default=0.0)
    detail = f"{clients} DHCP clients, worst wait {worst:.2f} s"
    twice = sum(len(outcome.duplicates) for outcome in outcomes)
    never = sum(len(outcome.unserved) for outcome in outcomes)
    return [
        Promise(f"{names}: addresses given twice", "addresses", 0,
                twice if complete else None, detail),
        Promise(f"{names}: DHCP clients unserved", "clients", 0,
                never if complete else None, detail),
    ]  # fmt: skip


def timeline(
    stage: Stage, notes: Notes, rows: Sequence[Row], facts: Sequence[tuple[str, str]]
) -> Timeline:
    """The picture's data, with its zero where undisturbed reading begins."""
    zero = notes.shown_from
    end = notes.over or stage.now

    def moved(window: Window) -> Window:
        return Window(window.start - zero, window.end - zero)

    shown = [
        replace(
            row,
            reads=tuple(replace(read, start=read.start - zero) for read in row.reads),
            served=tuple(replace(s, window=moved(s.window)) for s in row.served),
            moments=tuple(Moment(m.name, m.at - zero) for m in row.moments),
        )
        for row in rows
    ]
    faults = [replace(fault, window=moved(fault.window)) for fault in stage.faults]
    servers = tuple(server.name for server in stage.lab.site.servers)
    return Timeline(Window(0, end - zero), servers, tuple(shown), tuple(faults), tuple(facts))
