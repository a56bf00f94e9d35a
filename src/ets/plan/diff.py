"""What has to be done to make a server what it should be. Pure.

Order of the steps, and why: packages bring accounts, directories and daemons; accounts own
directories; files come before the units that read them; units that go are stopped while their
files still exist and before others may need their ports; then removals, and systemd is told; then
units are enabled, restarted or reloaded for changed files, and started; packages that are no
longer asked for are let go; bookkeeping comes last.

What ETS owned and the desired state lacks is released: a file is removed, or what lay there before
ETS is restored; a directory that ETS made is removed when empty; a unit gets the state back that
it had before ETS; a package that ETS installed is marked automatic, for apt to remove when nothing
needs it; an account stays, so that its uid is never given to another.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ets.errors import PlanError
from ets.plan.desired import Copy, Desired, Directory, File, Unit
from ets.plan.observed import Observed, PathFact, UnitFact
from ets.plan.owned import Owned, OwnedUnit

Kind = Literal["package", "account", "directory", "file", "systemd", "unit"]
Verb = Literal[
    "install", "create", "change", "restore", "remove", "release", "own", "forget",
    "read", "enable", "disable", "start", "restart", "reload", "stop",
]  # fmt: skip
Status = Literal["create", "change", "remove"]

#: where systemd reads units from; a change there must be told to it
UNIT_DIRECTORIES = ("/etc/systemd/system/", "/lib/systemd/system/", "/usr/lib/systemd/system/")
DIFF_LINES = 200


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. ``before`` and ``after`` say what is there and what will be (empty:
    nothing), ``why`` the reason where it is not the desired state itself, ``diff`` the change of a
    text file (unified, shortened; empty for files that only their owner may read).
    """

    kind: Kind
    verb: Verb
    target: str
    before: str = ""
    after: str = ""
    why: str = ""
    diff: str = ""

    @property
    def status(self) -> Status:
        """Created, changed or removed: the three ways in which plan and audit count."""
        if self.verb in ("install", "create", "enable", "start"):
            return "create"
        if self.verb in ("remove", "release", "forget", "disable", "stop", "restore"):
            return "remove"
        return "change"

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes two steps the same thing to do, whatever was there before."""
        return (self.kind, self.verb, self.target, self.after)

    def __str__(self) -> str:
        return f"{self.verb} {self.kind} {self.target}"


def steps(desired: Desired, observed: Observed, owned: Owned) -> tuple[Step, ...]:
    """The ordered steps from ``observed`` to ``desired``; empty when nothing is to be done.

    Raises PlanError when a directory lies where a file should be, or the other way round.
    """
    content = [*_files(desired, observed, owned)]
    releases = [*_released_paths(desired, observed, owned)]
    touched = frozenset(
        step.target
        for step in (*content, *releases)
        if step.kind == "file" and step.verb not in ("own", "forget")
    )
    units = [*_units(desired, observed, owned, touched)]
    leaving = [step for verb in ("stop", "disable") for step in units if step.verb == verb]
    coming = sorted((step for step in units if step not in leaving), key=_unit_order)
    bookkeeping = ("own", "forget")
    everything = [
        *_packages(desired, observed),
        *_accounts(desired, observed),
        *_directories(desired, observed, owned),
        *content,
        *leaving,
        *releases,
        *_systemd(observed, owned, touched),
        *coming,
        *_released_packages(desired, observed, owned),
    ]
    return tuple(
        [step for step in everything if step.verb not in bookkeeping]
        + [step for step in everything if step.verb in bookkeeping]
    )


def fact_of(item: File | Copy | Directory, observed: Observed) -> PathFact | None:
    """What will lie at an item's path; None for a copy whose source is not there (yet)."""
    if isinstance(item, File):
        digest = hashlib.sha256(item.content).hexdigest()
        return PathFact("file", item.mode, item.owner, item.group, digest)
    if isinstance(item, Directory):
        return PathFact("directory", item.mode, item.owner, item.group)
    source = observed.sources.get(item.source)
    return PathFact("file", item.mode, "root", "root", source) if source else None


def _packages(desired: Desired, observed: Observed) -> Iterator[Step]:
    for name in desired.packages:
        if name not in observed.packages:
            yield Step("package", "install", name, after="installed")


def _released_packages(desired: Desired, observed: Observed, owned: Owned) -> Iterator[Step]:
    for name in owned.packages:
        if name in desired.packages:
            continue
        if name in observed.packages:
            yield Step(
                "package",
                "release",
                name,
                before=observed.packages[name],
                after="automatic",
                why="no longer asked for; apt removes it when nothing needs it",
            )
        else:
            yield Step("package", "forget", name)


def _accounts(desired: Desired, observed: Observed) -> Iterator[Step]:
    for account in desired.accounts:
        groups = ", ".join(account.groups)
        there = observed.accounts.get(account.name)
        if there is None:
            yield Step("account", "create", account.name, after=f"groups: {groups}")
        elif missing := [group for group in account.groups if group not in there]:
            yield Step(
                "account",
                "change",
                account.name,
                before=f"groups: {', '.join(there)}",
                after=f"groups: {groups}",
                why=f"not in {', '.join(missing)}",
            )


def _directories(desired: Desired, observed: Observed, owned: Owned) -> Iterator[Step]:
    for directory in desired.directories:
        wanted = fact_of(directory, observed)
        there = observed.paths.get(directory.path)
        if there is not None and there.kind != "directory":
            raise PlanError(
                f"{directory.path} should be a directory, but a {there.kind} lies there",
                hint=f"look at {directory.path}, move it away, and plan again",
            )
        yield from _path_step("directory", directory.path, there, wanted, owned)


def _files(desired: Desired, observed: Observed, owned: Owned) -> Iterator[Step]:
    items: list[File | Copy] = [*desired.files, *desired.copies]
    for item in sorted(items, key=lambda item: item.path):
        there = observed.paths.get(item.path)
        if there is not None and there.kind in ("directory", "other"):
            raise PlanError(
                f"{item.path} should be a file, but a {there.kind} lies there",
                hint=f"look at {item.path}, move it away, and plan again",
            )
        why = f"equal to {item.source}" if isinstance(item, Copy) else ""
        text = _text_diff(item, observed) if isinstance(item, File) else ""
        wanted = fact_of(item, observed)
        yield from _path_step("file", item.path, there, wanted, owned, why=why, diff=text)


def _path_step(
    kind: Literal["directory", "file"],
    path: str,
    there: PathFact | None,
    wanted: PathFact | None,
    owned: Owned,
    *,
    why: str = "",
    diff: str = "",
) -> Iterator[Step]:
    """The step, if any, that makes ``there`` into ``wanted`` (None: known only when packages are
    installed)."""
    after = str(wanted) if wanted else "known when its package is installed"
    if there is None:
        yield Step(kind, "create", path, after=after, why=why, diff=diff)
    elif there != wanted:
        yield Step(kind, "change", path, before=str(there), after=after, why=why, diff=diff)
    elif path not in owned.paths or owned.paths[path].kind != kind:
        yield Step(kind, "own", path, str(there), after, why="already as it should be")


def _released_paths(desired: Desired, observed: Observed, owned: Owned) -> Iterator[Step]:
    items: list[File | Copy | Directory] = [
        *desired.files,
        *desired.copies,
        *desired.directories,
    ]
    kept = {item.path for item in items}
    gone = [path for path in owned.paths if path not in kept]
    files = sorted(path for path in gone if owned.paths[path].kind == "file")
    directories = sorted(path for path in gone if owned.paths[path].kind == "directory")
    for path in files + directories[::-1]:
        was, there = owned.paths[path], observed.paths.get(path)
        before = str(there) if there else ""
        known = there is None or there.kind in (was.kind, "link")
        if was.before and known and there != was.before and (there or was.kind == "file"):
            why = "no longer asked for; what was there before ETS comes back"
            yield Step(was.kind, "restore", path, before, str(was.before), why)
        elif there and known and not was.before:
            yield Step(was.kind, "remove", path, before, why="no longer asked for")
        else:
            yield Step(was.kind, "forget", path, before, before)


def _systemd(observed: Observed, owned: Owned, touched: Iterable[str]) -> Iterator[Step]:
    changed = sorted(path for path in touched if path.startswith(UNIT_DIRECTORIES))
    if observed.systemd and (changed or owned.reload):
        why = f"changed: {', '.join(changed)}" if changed else "an apply was interrupted before it"
        yield Step("systemd", "read", "units", why=why)


def _units(
    desired: Desired, observed: Observed, owned: Owned, touched: frozenset[str]
) -> Iterator[Step]:
    for unit in desired.units:
        there = observed.units.get(unit.name, UnitFact())
        if there.file_state == "generated" and any(_belongs(path, unit.name) for path in touched):
            # made from a SysV script so far; with a file of its own it starts out disabled
            there = replace(there, file_state="disabled")
        todo = [
            *_switch(unit.name, there, unit.enabled),
            *_run_or_stop(unit, there, owned, touched),
        ]
        yield from todo
        if not todo and unit.name not in owned.units:
            yield Step("unit", "own", unit.name, why="already as it should be")
    names = {unit.name for unit in desired.units}
    for name, was in sorted(owned.units.items()):
        if name not in names:
            there = observed.units.get(name, UnitFact())
            yield from _released_unit(name, was, there, touched, due=name in owned.due)
            yield Step("unit", "forget", name)


def _switch(name: str, there: UnitFact, enabled: bool, why: str = "") -> Iterator[Step]:
    now = there.file_state or "not there"
    if enabled and not there.enabled:
        yield Step("unit", "enable", name, now, "enabled", why)
    elif not enabled and there.file_state == "enabled":
        yield Step("unit", "disable", name, now, "disabled", why)


def _run_or_stop(
    unit: Unit, there: UnitFact, owned: Owned, touched: frozenset[str]
) -> Iterator[Step]:
    if not unit.active:
        if there.active:
            yield Step("unit", "stop", unit.name, there.active_state, "inactive")
        return
    if not there.active:
        yield Step("unit", "start", unit.name, there.active_state, "active")
        return
    own = sorted(path for path in touched if _belongs(path, unit.name))
    files = sorted(touched.intersection(unit.restart_on))
    due = owned.due.get(unit.name)
    if not (own or files or due):
        return
    verb: Verb = "reload" if unit.reload and not own and due != "restart" else "restart"
    changed = ", ".join([*own, *(path for path in files if path not in own)])
    why = f"changed: {changed}" if changed else "an apply was interrupted before it"
    yield Step("unit", verb, unit.name, there.active_state, "active", why)


def _released_unit(
    name: str, was: OwnedUnit, there: UnitFact, touched: frozenset[str], *, due: bool
) -> Iterator[Step]:
    why = "no longer asked for; it gets the state back that it had before ETS"
    if there.active and not was.active:
        yield Step("unit", "stop", name, there.active_state, "inactive", why)
    yield from _switch(name, there, was.enabled and there.load == "loaded", why)
    own = any(_belongs(path, name) for path in touched)
    if was.active and not there.active and there.load == "loaded":
        yield Step("unit", "start", name, there.active_state, "active", why)
    elif there.active and was.active and (due or own or touched.intersection(was.restart_on)):
        yield Step("unit", "restart", name, there.active_state, "active", why)


def _belongs(path: str, unit: str) -> bool:
    """Is ``path`` the unit's own file or drop-in?"""
    return any(
        path == directory + unit or path.startswith(f"{directory}{unit}.d/")
        for directory in UNIT_DIRECTORIES
    )


def _unit_order(step: Step) -> tuple[int, bool]:
    """By verb; sockets before services, for a socket cannot start when its service runs."""
    verbs = ("enable", "reload", "restart", "start", "own", "forget")
    return verbs.index(step.verb), not step.target.endswith(".socket")


def _text_diff(item: File, observed: Observed) -> str:
    """How the text changes; empty for secrets, for binary content and where nothing changes."""
    there = observed.paths.get(item.path)
    old = observed.contents.get(item.path, b"")
    secret = item.mode & 0o077 == 0 or (there is not None and there.mode & 0o077 == 0)
    if secret or old == item.content:
        return ""
    try:
        before, after = old.decode().splitlines(), item.content.decode().splitlines()
    except UnicodeDecodeError:
        return ""
    lines = [*difflib.unified_diff(before, after, "before", "after", n=2, lineterm="")]
    if len(lines) > DIFF_LINES:
        lines[DIFF_LINES:] = [f"… and {len(lines) - DIFF_LINES} more lines"]
    return "\n".join(lines)
