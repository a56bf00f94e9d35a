"""Each check against what real machines said, and what they would say with one thing wrong.

A case is a file in ``tests/facts/ready/CHECK``: ``=== QUESTION`` before each answer, ``=== expect``
before the findings (severity | subject | part of the words), ``=== site`` for ``EXAMPLE SERVER``,
``=== like CASE`` to take what is not said from another case of the same check. Adding a case is
adding a file.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from inspect import signature
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from ets import ready
from ets.cli.ready import command as ready_command
from ets.cli.ready import plain, show
from ets.host.local import LocalHost
from ets.ready.examine import Checked, examine, exit_code, judged
from ets.ready.finding import Finding
from ets.site.load import read
from ets.site.model import Server, Site

TOP = Path(__file__).resolve().parents[2]
CASES = TOP / "tests/facts/ready"
CHECKS = {check.NAME: check for check in ready.load()}
FILES = sorted(CASES.glob("*/*.case"))


def sections(path: Path) -> dict[str, str]:
    """The parts of a case; those that it does not have from the case that it is like."""
    parts = re.split(r"^=== (.+)\n", path.read_text(), flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    for name in [name for name in found if name.startswith("like ")]:
        del found[name]
        found = {**sections(path.with_name(name.removeprefix("like ") + ".case")), **found}
    return found


def case(path: Path) -> tuple[Mapping[str, str], list[list[str]], Site | None, Server | None]:
    """Facts, what is expected, and whose they are."""
    facts = sections(path)
    lines = facts.pop("expect").splitlines()
    where = facts.pop("site", "").split()
    site = read(TOP / f"examples/{where[0]}.toml") if where else None
    server = site.server(where[1]) if site else None
    return facts, [line.split(" | ") for line in lines if line.strip()], site, server


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_case(path: Path) -> None:
    facts, expected, site, server = case(path)
    found = list(judged(CHECKS[path.parent.name], facts, site, server).findings)
    told = "\n".join(f"{f.severity} | {f.subject} | {f.words}" for f in found)
    for severity, subject, words in expected:
        fits = [
            f for f in found
            if (f.severity, f.subject) == (severity, subject) and words in f.words
        ]  # fmt: skip
        assert fits, f"{severity} | {subject} | {words}\nis not among:\n{told}"
        found.remove(fits[0])
    assert found == [], told


@pytest.mark.parametrize("name", CHECKS)
def test_each_check_has_a_well_case_and_wrong_ones(name: str) -> None:
    expected = [case(path)[1] for path in FILES if path.parent.name == name]
    matters = [any(row[0] != "note" for row in rows) for rows in expected]
    assert False in matters
    assert True in matters


@pytest.mark.parametrize("check", CHECKS.values(), ids=lambda check: check.NAME)
def test_every_check_has_the_one_shape(check: ready.Check) -> None:
    file = Path(str(vars(check)["__file__"]))
    assert file.stem == check.NAME
    names = [n.name for n in ast.parse(file.read_text()).body if isinstance(n, ast.FunctionDef)]
    assert [name for name in names if name in ("ask", "judge")] == ["ask", "judge"]
    assert list(signature(check.ask).parameters) == ["host", "site", "server"]
    assert list(signature(check.judge).parameters) == ["facts", "site", "server"]


def test_every_finding_says_what_to_do() -> None:
    for path in FILES:
        facts, _, site, server = case(path)
        for finding in judged(CHECKS[path.parent.name], facts, site, server).findings:
            assert all((finding.subject, finding.words, finding.means, finding.step)), finding
            assert "\n" not in finding.subject + finding.words + finding.means + finding.step


def test_the_handbook_names_every_check() -> None:
    page = (TOP / "docs/ready.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(CHECKS)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_garbage_is_a_finding_and_never_a_traceback(data: st.DataObject) -> None:
    """Half an answer, another program's answer, or noise."""
    facts, _, site, server = case(data.draw(st.sampled_from(FILES)))
    check = CHECKS[data.draw(st.sampled_from(sorted(CHECKS)))]
    noise = data.draw(st.text(max_size=80))
    cut = data.draw(st.integers(0, 400))
    broken = {question: text[:cut] + noise for question, text in facts.items()}
    own = {q: noise for path in FILES if path.parent.name == check.NAME for q in case(path)[0]}
    for mixed in (broken, {**own, **broken}, own):
        assert judged(check, mixed, site, server).check == check.NAME


def test_what_cannot_be_asked_is_not_taken_for_fit(tmp_path: Path) -> None:
    """On a tree nothing can be run: every check says so, and the machine is not fit."""
    host = LocalHost(tmp_path)
    results = examine([CHECKS["disks"], CHECKS["memory"]], host, None, None)
    assert [len(checked.findings) for checked in results] == [1, 1]
    assert all(f.severity == "warning" for checked in results for f in checked.findings)
    assert exit_code(results) == 3


def test_reports() -> None:
    finding = Finding("critical", "/dev/sda", "is failing", "it dies", "replace it")
    note = Finding("note", "x", "is so", "little", "nothing")
    results = [Checked("disks", (finding, note)), Checked("memory", ())]
    document = json.loads(json.dumps(plain(results, "alpha", exit_code(results))))
    assert (document["server"], document["fit"]) == ("alpha", False)
    assert document["checks"]["disks"][0]["step"] == "replace it"
    assert document["checks"]["memory"] == []
    assert exit_code([Checked("disks", (note,))]) == 0
    from io import StringIO

    from rich.console import Console

    out = StringIO()
    show(results, "alpha", Console(file=out, highlight=False))
    assert "✗ critical disks: /dev/sda is failing" in out.getvalue()
    assert "alpha: not fit to be cloned yet (1 critical, 0 warnings, 1 notes)" in out.getvalue()


def test_an_unknown_check_is_an_input_error() -> None:
    done = CliRunner().invoke(ready_command, ["--only", "nonsense"])
    assert done.exception is not None
    assert "nonsense" in str(done.exception)
    assert "addresses" in str(done.exception)
