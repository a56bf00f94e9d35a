"""Drift between two servers that were equal: whatever is done to one of them is told in words that
name it, and what may differ is not. The cases are files in ``tests/drift``."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.drills.lab_tools import PAIR, lab_name, leftovers

from ets.audit import findings, manifest
from ets.audit.findings import Finding
from ets.facts import inventory, owners
from ets.host.local import LocalHost
from ets.host.transport import Host
from ets.lab.lab import Lab, each

pytestmark = [pytest.mark.root, pytest.mark.daemons]

CASES = Path(__file__).parents[1] / "drift"
PACKAGES = (
    "acl", "cron", "cups", "cups-client", "libcap2-bin", "samba", "samba-common-bin", "sudo",
)  # fmt: skip
#: what a person may ask of the proof, whatever cases come and go
LEAST_REPORTED, LEAST_LEGITIMATE = 60, 40


@dataclass(frozen=True)
class Case:
    """One file."""

    name: str
    do: str
    words: tuple[str, ...] = ()
    below: tuple[str, ...] = ()

    def told_by(self, finding: Finding) -> bool:
        """Is this finding what was done?"""
        consequences = "\n".join(finding.consequences)
        words = all(word in finding.words for word in self.words)
        return words and all(word in consequences for word in self.below)


def cases(folder: str) -> list[Case]:
    found = []
    for path in sorted((CASES / folder).glob("*.toml")):
        about = tomllib.loads(path.read_text())
        words, below = (tuple(about.pop(key, ())) for key in ("words", "below"))
        found.append(Case(path.stem, words=words, below=below, **about))
    return found


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """The pair, applied and with the same things on both."""
    name = lab_name("d")
    with Lab.up(PAIR, name=name, packages=PACKAGES) as up:
        script = (CASES / "setup.sh").read_bytes()
        each(lambda s: s.host.run(["bash", "-s"], stdin=script), up.servers.values())
        yield up
    assert leftovers(name) == []


def audit(lab: Lab) -> tuple[Finding, ...]:
    """Both servers as they are now, compared."""
    hosts = [lab.server(name).host for name in ("alpha", "beta")]
    with ThreadPoolExecutor(2) as pool:
        taken = list(pool.map(inventory.gather, hosts))
        trees = dict(zip(("alpha", "beta"), pool.map(tree, hosts), strict=True))
    paths = manifest.differing(trees["alpha"], trees["beta"])
    whose: dict[str, str] = {}
    for host in hosts:
        whose = {**owners.read(host, paths), **whose}
    differ = {name: {p: t[p] for p in paths if p in t} for name, t in trees.items()}
    return findings.compare(taken, differ, whose)


def tree(host: Host) -> manifest.Manifest:
    """What lies on a running container, read from here."""
    assert isinstance(host, LocalHost)
    return manifest.take(host.path("/"))


def do(host: Host, chosen: Sequence[Case]) -> None:
    """All of them, one after the other."""
    ended = {c.name: host.run(["bash", "-c", f"set -e\n{c.do}"], check=False) for c in chosen}
    failed = {name: done.stderr.decode() for name, done in ended.items() if done.status != 0}
    assert failed == {}


def test_drift(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """One test, in this order: equal; equal with all that may differ; every drift told."""
    legitimate, reported = cases("legitimate"), cases("reported")
    assert len(legitimate) >= LEAST_LEGITIMATE
    assert len(reported) >= LEAST_REPORTED
    beta = lab.server("beta").host
    assert [f.words for f in audit(lab)] == []
    do(beta, legitimate)
    assert [f.words for f in audit(lab)] == []
    do(beta, reported)
    found = audit(lab)
    told = {case.name: [f for f in found if case.told_by(f)] for case in reported}
    claimed = {f.words for named in told.values() for f in named}
    untold = [name for name, named in told.items() if not named]
    doubly = {name: [f.words for f in named] for name, named in told.items() if len(named) > 1}
    surplus = [f.words for f in found if f.words not in claimed]
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(reported) - len(untold)} of {len(reported)} drifts reported, in {len(found)}"
            f" findings; {len(legitimate)} legitimate differences, none reported\n"
        )
    assert untold == []
    assert (doubly, surplus) == ({}, [])
    assert list(found) == sorted(found, key=lambda f: -f.harm)
