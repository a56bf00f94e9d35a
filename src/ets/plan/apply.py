"""Makes a server what a plan says; the only thing that changes one.

Order, and what a crash or an error at each point leaves behind:

1. the plan is compared with the server as it is now; a stale one is refused;
2. packages, accounts, directories: additions that disturb nothing which runs;
3. all desired files are staged below ``/var/lib/ets/staged`` and the daemons' own checkers look
   at them: a refusal, or a full disk, ends here and every file is as it was;
4. what lies foreign at a path is kept in ``/var/lib/ets/backup``; each new file is prepared beside
   its place, so that the swap needs no more space;
5. ``owned.json`` records what is about to be ETS's and which units will owe a restart: from here
   on a crash, or an error, leaves a server of which the next plan knows everything left to do;
6. files are swapped, units that go are stopped, released files removed or restored, systemd is
   told, units are enabled and restarted; a unit that fails does not keep the others from starting;
7. ``owned.json`` forgets what is gone, and a receipt is written.

Applying again at any point, with the same plan or with a new one, ends in the same state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ets import paths
from ets.errors import HostError, PlanError, StalePlan
from ets.facts.observe import observe
from ets.host.transport import Host
from ets.plan import act, diff, swap
from ets.plan.diff import Step
from ets.plan.journal import (
    Clock,
    Journal,
    Receipt,
    now,
    read_owned,
    write_owned,
    write_receipt,
)
from ets.plan.observed import PathFact, UnitFact
from ets.plan.owned import OwnedPath, OwnedUnit
from ets.plan.plan import Plan, fingerprint

#: not in /run/ets, which systemd removes whenever the agent stops, nor in /var/lib/ets: on a fresh
#: server the lock would make that directory, and so the plan stale that is about to make it
LOCK = "/run/ets-apply.lock"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens during an apply, for a renderer: ``what`` is ``begin`` or ``done``
    (of ``step``, number ``index`` of ``total``) or ``phase`` (``text`` names it)."""

    what: str
    text: str
    step: Step | None = None
    index: int = 0
    total: int = 0


Events = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Events for nobody."""


def apply(plan: Plan, host: Host, *, events: Events = ignore, clock: Clock = now) -> Receipt:
    """Do what ``plan`` says on ``host``, and only that; one apply at a time.

    Raises StalePlan; PlanError when it is for another server or refused by a validator, and
    after everything else was done when a unit did not start; HostError when the host did not do
    what was asked (another apply holds the lock, a disk is full, apt fails). After any error the
    next plan holds what is left to do.
    """
    with host.hold(LOCK):
        return _Apply(plan, host, events, clock).go()


class _Apply:
    """One apply under the lock. ``owned`` is what the record on the server should say, ``saved``
    what it says: once files are being swapped, a record that cannot be written (a full disk) stops
    nothing, for the one before it knows of at least as much that is left to do."""

    def __init__(self, plan: Plan, host: Host, events: Events, clock: Clock) -> None:
        self.plan = plan
        self.host = host
        self.events = events
        self.clock = clock
        self.owned = self.saved = read_owned(host)
        self.resumed = self.owned.plan
        self.observed = observe(host, plan.desired, self.owned)
        self.steps = self._fresh_steps()
        self.index = 0
        self.failures: list[str] = []
        self.notes: list[str] = []
        self.swapping = False
        self.journal = Journal(host, plan, clock)

    def go(self) -> Receipt:
        started = self._time()
        swap.sweep(self.host, self.owned)
        if not self.steps:
            self._record(due={}, reload=False, prepared=(), plan="")
            return Receipt("", self.plan, (), started, started)
        steps = [str(step) for step in self.steps]
        self.journal.note("begin", plan=self.plan.id, resumed=self.resumed, steps=steps)
        try:
            self._record(plan=self.plan.id, units=self._owned_units())
            self._add()
            self._stage_and_validate()
            self._take_over()
        except (HostError, PlanError) as error:
            self.journal.lenient = True
            self.journal.note("refused", error=error.message)
            self._withdraw()
            raise
        self.swapping = self.journal.lenient = True
        try:
            self._swap()
            self._settle_units()
        except HostError as error:
            self.journal.note("failed", error=error.message)
            raise
        return self._finish(started)

    # -- before anything is disturbed --------------------------------------------------------

    def _fresh_steps(self) -> tuple[Step, ...]:
        """The steps to do: the plan's, or what an interrupted apply of it left."""
        plan, host = self.plan, self.host
        here = (host.read(str(paths.SERVER_NAME)) or plan.server.encode()).decode().strip()
        if here != plan.server:
            raise PlanError(
                f"the plan is for the server {plan.server}, this is {here}",
                hint=f"apply it on {plan.server}, or make one for this server: ets plan",
            )
        if fingerprint(self.observed, self.owned) == plan.fingerprint:
            return self._possible(plan.steps)
        left = diff.steps(plan.desired, self.observed, self.owned)
        if not left:
            return ()  # it was applied before
        if self.owned.plan == plan.id and self._is_rest_of(left):
            return self._possible(left)
        raise StalePlan(
            f"the plan {plan.id} is stale: {host.name} changed since it was made ({plan.created})",
            hint="make a new one (ets plan), read it, apply it",
        )

    def _is_rest_of(self, left: tuple[Step, ...]) -> bool:
        """Is what is left to do a part of the plan, and did nobody else touch its files?

        Installed packages may have brought files that the plan could not know.
        """
        packages = any(step.verb == "install" for step in self.plan.steps)

        def key(step: Step) -> tuple[str, ...]:
            before = step.before if step.kind == "file" and not packages else ""
            return (step.kind, step.target, before)

        return {key(step) for step in left} <= {key(step) for step in self.plan.steps}

    def _possible(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """``steps``, unless they need a systemd that does not run. Raises PlanError."""
        units = [s.target for s in steps if s.kind == "unit" and s.verb not in ("own", "forget")]
        if units and not self.observed.systemd:
            raise PlanError(
                f"systemd does not run on {self.host.name}, so these units cannot be changed: "
                + ", ".join(sorted(set(units))),
                hint="apply on a booted server; a tree takes files only",
            )
        return steps

    def _add(self) -> None:
        names = [step.target for step in self._of("package", "install")]
        if names:
            self._record(packages=tuple(sorted({*self.owned.packages, *names})))
            self._phase(f"apt-get installs {len(names)} packages and what they need")
            self._together("package", "install", lambda: act.install(self.host, names))
        accounts = {account.name: account for account in self.plan.desired.accounts}
        for step in self._of("account"):
            wanted, exists = accounts[step.target], step.verb == "change"
            self._do(step, partial(act.account, self.host, wanted, exists=exists))
        wanted_paths = {item.path: item for item in self.plan.desired.directories}
        steps = [step for step in self._of("directory") if step.target in wanted_paths]
        self._own_paths(steps)
        for step in steps:
            if step.verb != "own":
                self._do(step, partial(swap.make_directory, self.host, wanted_paths[step.target]))

    def _stage_and_validate(self) -> None:
        self._phase("staging files")
        self.new = swap.desired_content(self.host, self.plan.desired)
        swap.stage(self.host, self.plan.id, self.new)
        for command in self.plan.validators:
            self._phase(f"validating: {command.why}")
            act.validate(self.host, command)
            self.journal.note("validated", argv=command.argv)

    def _take_over(self) -> None:
        """Backups, prepared files, then the record: the point after which there is no way back,
        only forward."""
        wanted = [s for s in self._of("file") if s.verb in ("create", "change")]
        restored = self._of("file", "restore")
        self.restored = {s.target: swap.backup_of(self.host, self.owned, s) for s in restored}
        new = {s.target: self.new[s.target] for s in wanted} | self.restored
        self._phase("preparing files")
        self._record(prepared=tuple(sorted(new)))
        taken = [s for s in self._of("file") if s.verb in ("create", "change", "own")]
        before = self._own_before(taken)
        swap.back_up(self.host, before)
        swap.prepare(self.host, new)
        # makes room for what is written from here on, where the disk is nearly full
        act.remove_tree(self.host, swap.staged(self.plan.id))
        verbs = {"start": "restart", "restart": "restart", "reload": "reload"}
        due = {s.target: verbs[s.verb] for s in self._of("unit") if s.verb in verbs}
        owned_paths = {path: OwnedPath("file", fact) for path, fact in before.items()}
        self._record(
            paths={**self.owned.paths, **owned_paths},
            due={**self.owned.due, **due},
            reload=self.owned.reload or bool(self._of("systemd")),
        )

    def _withdraw(self) -> None:
        """After an error before the swap: nothing prepared or staged stays. Where even that fails
        the record still knows of it, and the first error is the one to tell."""
        with contextlib.suppress(HostError):
            for path in self.owned.prepared:
                self.host.discard(path)
            act.remove_tree(self.host, swap.staged(self.plan.id))
            self._record(prepared=(), plan=self.resumed)

    # -- the change ---------------------------------------------------------------------------

    def _swap(self) -> None:
        for step in self._of("file"):
            if step.verb in ("create", "change"):
                self._do(step, partial(self.host.commit, step.target))
        for step in self._of("unit", "stop"):
            self._do(step, partial(act.stop, self.host, step.target))
        self._units_together("disable", act.disable)
        for step in self.steps:
            if step.verb == "restore" and step.kind == "file":
                self._do(step, partial(self.host.commit, step.target))
            elif step.verb == "restore":
                self._do(step, partial(self._restore_directory, step.target))
            elif step.verb == "remove":
                self._do(step, partial(self._remove, step))
        self._record(prepared=())

    def _remove(self, step: Step) -> None:
        if step.kind == "directory" and self.host.names(step.target):
            self.notes.append(f"{step.target} was left: it is not empty")
        else:
            self.host.remove(step.target)

    def _restore_directory(self, path: str) -> None:
        before = self.owned.paths[path].before
        if before is not None:
            self.host.make_directory(path, mode=before.mode, owner=before.owner, group=before.group)

    def _settle_units(self) -> None:
        for step in self._of("systemd"):
            self._do(step, partial(act.daemon_reload, self.host))
            self._record(reload=False)
        self._units_together("enable", act.enable)
        for step in self.steps:
            if step.kind == "unit" and step.verb in ("reload", "restart", "start"):
                self._start(step)
        for step in self._of("package", "release"):
            self._do(step, partial(act.let_go, self.host, step.target))

    def _start(self, step: Step) -> None:
        """Start one unit; a failure is told at the end, and the unit goes on owing its restart."""
        try:
            reload = step.verb == "reload"
            self._do(step, partial(act.start, self.host, step.target, reload=reload))
        except HostError as error:
            self.failures.append(str(error))
            self.journal.note("failed", step=str(step), error=error.message)
            return
        self._record(
            due={name: verb for name, verb in self.owned.due.items() if name != step.target}
        )

    def _finish(self, started: str) -> Receipt:
        desired = self.plan.desired
        kept = {path for path, _item in swap.items(desired)}
        units = {unit.name for unit in desired.units}
        self.swapping = False
        self._record(
            paths={path: item for path, item in self.owned.paths.items() if path in kept},
            units={name: unit for name, unit in self._owned_units().items() if name in units},
            packages=tuple(name for name in self.owned.packages if name in desired.packages),
            due={name: verb for name, verb in self.owned.due.items() if name in units},
            reload=False,
            prepared=(),
            plan="",
        )
        swap.sweep(self.host, self.owned)
        if self.journal.trouble:
            self.notes.append(f"the journal is not complete: {self.journal.trouble.message}")
        finished = self.clock()
        name = f"{finished.strftime('%Y%m%dT%H%M%SZ')}-{self.plan.id}.json"
        receipt = Receipt(
            path=str(paths.RECEIPTS / name),
            plan=self.plan,
            steps=self.steps,
            started=started,
            finished=finished.isoformat(timespec="seconds"),
            failures=tuple(self.failures),
            notes=tuple(self.notes),
            resumed=self.resumed,
        )
        write_receipt(self.host, receipt)
        self.journal.note("end", failures=self.failures)
        self.journal.prune()
        if self.failures:
            raise PlanError(
                "applied, but not every unit runs:\n" + "\n".join(self.failures),
                hint="correct the cause and apply again; the plan then holds these units only",
            )
        return receipt

    # -- small things ------------------------------------------------------------------------

    def _of(self, kind: str, verb: str | None = None) -> list[Step]:
        return [s for s in self.steps if s.kind == kind and verb in (None, s.verb)]

    def _time(self) -> str:
        return self.clock().isoformat(timespec="seconds")

    def _phase(self, text: str) -> None:
        self.events(Event("phase", text, total=len(self.steps)))

    def _record(self, **changes: object) -> None:
        """Change the record of what is owned, on the disk first."""
        self.owned = replace(self.owned, **changes)  # type: ignore[arg-type]
        if self.owned == self.saved:
            return
        try:
            write_owned(self.host, self.owned)
            self.saved = self.owned
        except HostError:
            if not self.swapping:
                raise

    def _do(self, step: Step, deed: Callable[[], object]) -> None:
        """One step, journalled before and after."""
        self.index += 1
        total = len(self.steps)
        self.journal.note("before", step=str(step), was=step.before, will=step.after)
        self.events(Event("begin", str(step), step, self.index, total))
        deed()
        self.journal.note("after", step=str(step))
        self.events(Event("done", str(step), step, self.index, total))

    def _together(self, kind: str, verb: str, deed: Callable[[], object]) -> None:
        """Several steps that one program does at once."""
        steps = self._of(kind, verb)
        for step in steps:
            self.journal.note("before", step=str(step), was=step.before, will=step.after)
            self.events(Event("begin", str(step), step, self.index + 1, len(self.steps)))
        deed()
        for step in steps:
            self.index += 1
            self.journal.note("after", step=str(step))
            self.events(Event("done", str(step), step, self.index, len(self.steps)))

    def _units_together(self, verb: str, deed: Callable[[Host, list[str]], None]) -> None:
        names = [step.target for step in self._of("unit", verb)]
        if names:
            self._together("unit", verb, lambda: deed(self.host, names))

    def _own_before(self, steps: list[Step]) -> dict[str, PathFact | None]:
        """For the paths of ``steps`` that are not owned yet: what lies there now."""
        owned = self.owned.paths
        new = [s.target for s in steps if s.target not in owned or owned[s.target].kind != s.kind]
        there = self.host.look(new)
        facts: dict[str, PathFact | None] = {}
        for path in new:
            entry = there.get(path)
            facts[path] = None
            if entry is not None and entry.kind in ("file", "directory"):
                facts[path] = PathFact(
                    entry.kind, entry.mode, entry.owner, entry.group, entry.digest
                )
        return facts

    def _own_paths(self, steps: list[Step]) -> None:
        """Record directories as owned before they are touched."""
        before = self._own_before(steps)
        new = {path: OwnedPath("directory", fact) for path, fact in before.items()}
        self._record(paths={**self.owned.paths, **new})

    def _owned_units(self) -> dict[str, OwnedUnit]:
        """The units owned so far and the desired ones, these with their state before ETS."""
        units = dict(self.owned.units)
        for unit in self.plan.desired.units:
            was = units.get(unit.name)
            if was is None:
                fact = self.observed.units.get(unit.name, UnitFact())
                was = OwnedUnit(fact.enabled, fact.active)
            units[unit.name] = replace(was, restart_on=unit.restart_on)
        return units
