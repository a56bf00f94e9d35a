"""Whatever is asked for, one after the other: it is there, nothing is left to do, and when nothing
is asked for any more the tree is as it was before ETS."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.plan_machine import plan_for

from ets.errors import InputError
from ets.host.local import LocalHost
from ets.plan import diff
from ets.plan import plan as plans
from ets.plan.apply import apply
from ets.plan.desired import Copy, Desired, Directory, File, Unit
from ets.plan.observed import Observed, PathFact, UnitFact
from ets.plan.owned import Owned, OwnedUnit
from ets.plan.owned import dumps as owned_dumps
from ets.plan.owned import loads as owned_loads

MODES = st.sampled_from([0o600, 0o644, 0o755])
FOLDER_MODES = st.sampled_from([0o700, 0o755, 0o1777])
CONTENTS = st.binary(max_size=40)
FILES = ["/f/a", "/f/b", "/f/c", "/d/x/inside", "/d/y/in/side"]
FOLDERS = ["/d", "/d/x", "/d/y", "/e"]
SOURCES = ["/src/1", "/src/2"]


@st.composite
def desireds(draw: st.DrawFn) -> Desired:
    paths = draw(st.lists(st.sampled_from(FILES), unique=True))
    files, copies = [], []
    for path in sorted(paths):
        if draw(st.booleans()):
            files.append(File(path, draw(CONTENTS), draw(MODES)))
        else:
            copies.append(Copy(path, draw(st.sampled_from(SOURCES)), draw(MODES)))
    folders = sorted(draw(st.sets(st.sampled_from(FOLDERS))))
    directories = tuple(Directory(path, draw(FOLDER_MODES)) for path in folders)
    return Desired(directories=directories, files=tuple(files), copies=tuple(copies))


def everything(root: Path) -> dict[str, tuple[int, bytes]]:
    """Files and directories but ETS's own, and but empty directories that came with a file."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = f"/{path.relative_to(root)}"
        if not name.startswith(("/var", "/run")):
            content = path.read_bytes() if path.is_file() else b"directory"
            found[name] = (path.stat().st_mode & 0o7777, content)
    return found


def root_tree(folder: str) -> LocalHost:
    """A tree in which whoever runs the test is root."""
    etc = Path(folder) / "etc"
    etc.mkdir()
    (etc / "passwd").write_text(f"root:x:{os.geteuid()}:{os.getegid()}::/:/bin/sh\n")
    (etc / "group").write_text(f"root:x:{os.getegid()}:\n")
    return LocalHost(folder)


@settings(max_examples=40)
@given(
    foreign=st.dictionaries(st.sampled_from(FILES), st.tuples(CONTENTS, MODES)),
    folders=st.dictionaries(st.sampled_from(FOLDERS), FOLDER_MODES),
    wanted=st.lists(desireds(), min_size=1, max_size=3),
)
def test_plan_apply_plan_is_empty(
    foreign: dict[str, tuple[bytes, int]], folders: dict[str, int], wanted: list[Desired]
) -> None:
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        host = root_tree(folder)
        for source in SOURCES:
            host.write(source, source.encode())
        for path, mode in sorted(folders.items()):
            host.make_directory(path, mode=mode)
        for path, (content, mode) in foreign.items():
            host.write(path, content, mode=mode)
        before = everything(Path(folder))
        for desired in wanted:
            apply(plan_for(host, desired), host)
            assert plan_for(host, desired).empty
            now = everything(Path(folder))
            for file in desired.files:
                assert now[file.path] == (file.mode, file.content)
            for copy in desired.copies:
                assert now[copy.path] == (copy.mode, copy.source.encode())
            for item in desired.directories:
                assert now[item.path][0] == item.mode
        apply(plan_for(host, Desired()), host)
        after = everything(Path(folder))
        assert {path: after.get(path) for path in before} == before
        assert all(content == b"directory" for path, (_, content) in after.items()
                   if path not in before)  # fmt: skip


@given(desired=desireds(), server=st.text(min_size=1), created=st.text())
def test_a_plan_survives_being_saved(desired: Desired, server: str, created: str) -> None:
    made = plans.make(
        site="",
        server=server.encode(errors="replace").decode(),
        desired=desired,
        observed=Observed(),
        owned=Owned(),
        validators=lambda _root: [],
        created=created.encode(errors="replace").decode(),
    )
    assert plans.loads(plans.dumps(made)) == made


JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.one_of(st.binary(), JSON.map(lambda value: json.dumps(value).encode())))
@example(b"[" * 100_000)
@example(b'{"format": 1}')
@example(b'{"format": 1, "steps": {"base64": "!"}}')
def test_what_is_no_plan_is_said_so(content: bytes) -> None:
    with pytest.raises(InputError, match="is not a plan"):
        plans.loads(content)


def test_a_plan_of_another_format_is_said_so() -> None:
    with pytest.raises(InputError, match="has format 99"):
        plans.loads(b'{"format": 99}')


STATES = st.builds(
    UnitFact,
    load=st.sampled_from(["loaded", "not-found"]),
    file_state=st.sampled_from(["enabled", "disabled", "static", "generated", "masked", ""]),
    active_state=st.sampled_from(["active", "inactive", "failed", "activating", "reloading"]),
    sub_state=st.just(""),
)
OWNED_UNITS = st.builds(OwnedUnit, st.booleans(), st.booleans())
UNITS = ["a.service", "b.socket", "c.timer"]


def _after(step: diff.Step, fact: UnitFact) -> UnitFact:
    """What systemd says of a unit after a step."""
    if step.verb in ("start", "restart", "reload", "stop"):
        state = "inactive" if step.verb == "stop" else "active"
        return UnitFact("loaded", fact.file_state, state)
    state = {"enable": "enabled", "disable": "disabled"}.get(step.verb, fact.file_state)
    return UnitFact("loaded", state, fact.active_state)


@given(
    facts=st.dictionaries(st.sampled_from(UNITS), STATES),
    wanted=st.dictionaries(st.sampled_from(UNITS), st.tuples(st.booleans(), st.booleans())),
    owned=st.dictionaries(st.sampled_from(UNITS), OWNED_UNITS),
    due=st.dictionaries(st.sampled_from(UNITS), st.sampled_from(["restart", "reload"])),
)
def test_units_settle_in_one_go(
    facts: dict[str, UnitFact],
    wanted: dict[str, tuple[bool, bool]],
    owned: dict[str, OwnedUnit],
    due: dict[str, str],
) -> None:
    """The steps on units, done as they say, leave nothing to do but to forget."""
    desired = Desired(
        units=tuple(Unit(name, enabled=e, active=a) for name, (e, a) in sorted(wanted.items()))
    )
    steps = diff.steps(desired, Observed(units=facts), Owned(units=owned, due=due))  # type: ignore[arg-type]
    settled = dict(facts)
    for step in steps:
        if step.verb not in ("own", "forget"):
            settled[step.target] = _after(step, settled.get(step.target, UnitFact()))
    kept = {unit.name: OwnedUnit(False, False) for unit in desired.units}
    again = diff.steps(desired, Observed(units=settled), Owned(units=kept))
    assert again == ()
    for unit in desired.units:
        fact = settled.get(unit.name, UnitFact())
        assert fact.active or not unit.active
        assert fact.file_state != "enabled" or unit.enabled


@given(st.dictionaries(st.sampled_from(FILES), st.binary(min_size=32, max_size=32)))
def test_equal_facts_give_equal_fingerprints(files: dict[str, bytes]) -> None:
    facts = {path: PathFact("file", 0o644, "root", "root", d.hex()) for path, d in files.items()}
    backwards = dict(reversed(facts.items()))
    one = plans.fingerprint(Observed(paths=facts), Owned())
    assert one == plans.fingerprint(Observed(paths=backwards), Owned())
    for path in facts:
        less = {other: fact for other, fact in facts.items() if other != path}
        assert plans.fingerprint(Observed(paths=less), Owned()) != one
    assert owned_loads(owned_dumps(Owned()), where="x") == Owned()
