"""A copy of a server that never stops writing is of one moment, and the server hardly notices."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.drills.lab_tools import lab_name, leftovers

from ets.clone.pull import Copied, pull
from ets.host.deadline import Deadline, wait_for
from ets.lab.lab import Lab
from ets.lab.nspawn import ContainerServer

pytestmark = [pytest.mark.root, pytest.mark.daemons]

ONE = Path(__file__).parents[2] / "examples/one-server.toml"
LOAD = Path(__file__).with_name("clone_load.py")
PLACE = "/srv/load"
#: unit → what it runs; the log belongs to a user who is logged in
WRITERS = {"ledger": "ledger", "sqlite-wal": "wal", "sqlite-rollback": "rollback"}

WATCH_SILENCE = f"""
import time
from pathlib import Path
from ets.clone.quiesce import silence

def seen():
    names = ("/run/beat", "{PLACE}/ledger.b", "{PLACE}/rollback.db", "{PLACE}/log")
    return [Path(name).read_bytes() for name in names]

with silence(5.0) as held:
    before = seen()
    time.sleep(1.5)
    print(*[one == other for one, other in zip(before, seen())], held.late, held.broken)
"""

DIE_IN_SILENCE = """
import os
from ets.clone.quiesce import silence
with silence(2.0) as held:
    print(len(held.units), flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def alpha() -> Iterator[ContainerServer]:
    """A server on which everything writes."""
    name = lab_name("w")
    with Lab.up(ONE, name=name, apply=False) as lab:
        server = next(iter(lab.servers.values()))
        assert isinstance(server, ContainerServer)
        server.host.write(f"{PLACE}/load.py", LOAD.read_bytes())
        for unit, what in WRITERS.items():
            start(server, what, f"--unit={unit}")
        start(server, "log", "--unit=session", "--slice=user-1000.slice")
        start(server, "beat", "--unit=kea-beat", place="/run")
        names = [f"{PLACE}/{name}" for name in ("ledger.b", "wal.db", "rollback.db", "log")]
        wait_for("all to write", lambda: len(server.host.look(names)) == 4, Deadline(20))
        yield server
    assert leftovers(name) == []


def start(server: ContainerServer, what: str, *options: str, place: str = PLACE) -> None:
    argv = ["systemd-run", *options, "python3", f"{PLACE}/load.py", place, what]
    server.host.run(argv)


def judge(into: Path) -> None:
    """Is the copy of one moment?"""
    place = into / PLACE[1:]
    first, second = (int((place / f"ledger.{half}").read_bytes()) for half in "ab")
    assert first - second in (0, 1)
    for mode in ("wal", "rollback"):
        with closing(sqlite3.connect(place / f"{mode}.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert database.execute("SELECT sum(amount) FROM account").fetchone() == (1_000_000,)
    lines = (place / "log").read_bytes().split(b"\n")
    assert lines[-1] == b""
    assert [int(line) for line in lines[:-1]] == list(range(len(lines) - 1))


def test_a_copy_under_write_load_is_of_one_moment(alpha: ContainerServer, tmp_path: Path) -> None:
    copies: list[Copied] = []
    for trial in range(4):
        into = tmp_path / f"into{trial % 2}"  # the first two are whole copies, the others updates
        into.mkdir(exist_ok=True)
        copies.append(pull(alpha.shell, into))
        judge(into)
    assert [copy.method for copy in copies] == ["all", "all", "missing", "missing"]
    assert all(0 < copy.paused < 10 for copy in copies)
    assert [copy.notes for copy in copies] == [(), (), (), ()]


def test_only_writers_stand_still(alpha: ContainerServer) -> None:
    """The services' and the user's; what stations need goes on."""
    argv = ["env", "PYTHONPATH=/opt/ets/lib", "python3", "-c", WATCH_SILENCE]
    assert alpha.host.run(argv).text.split() == ["False", "True", "True", "True", "()", "False"]


def test_without_the_silence_it_would_not_be(alpha: ContainerServer, tmp_path: Path) -> None:
    """What this is for: the load tears a copy that is not of one moment."""

    def torn(trial: int) -> bool:
        into = tmp_path / f"into{trial}"
        into.mkdir()
        pull(alpha.shell, into, final=False)
        try:
            judge(into)
        except (AssertionError, sqlite3.Error, OSError, ValueError):
            return True
        return False

    assert any(torn(trial) for trial in range(4))


def test_a_copy_that_dies_in_the_silence_leaves_nobody_stopped(alpha: ContainerServer) -> None:
    ledger = f"{PLACE}/ledger.b"
    argv = ["env", "PYTHONPATH=/opt/ets/lib", "python3", "-c", DIE_IN_SILENCE]
    began = time.monotonic()
    done = alpha.host.run(argv, check=False)
    assert done.status != 0
    assert int(done.text) >= 4
    stopped = alpha.host.read(ledger)
    wait_for("the writers to go on", lambda: alpha.host.read(ledger) != stopped, Deadline(5))
    assert 1 < time.monotonic() - began < 5
