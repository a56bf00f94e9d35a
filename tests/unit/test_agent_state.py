"""The runtime state on the disk: a version that was seen by anybody survives kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ets.agent.state import State
from ets.cluster.records import made
from ets.errors import HostError

SERVERS = ("alpha", "beta")


def state(directory: Path, clock: float = 1000.0) -> State:
    return State(directory, "alpha", SERVERS, clock=lambda: clock)


def test_records_are_there_after_a_restart(tmp_path: Path) -> None:
    first = state(tmp_path)
    assert first.write("server/alpha", {"state": "in service"})
    assert not first.write("server/alpha", {"state": "in service"})
    assert first.absorb([made("server/beta", "beta", 7, {"state": "drained"})]) == ("server/beta",)
    second = state(tmp_path)
    assert second.held == first.held
    assert second.version == first.version
    assert second.value("server/beta") == {"state": "drained"}


def test_every_start_has_a_higher_number(tmp_path: Path) -> None:
    assert state(tmp_path, clock=5000).start == 5000
    assert state(tmp_path, clock=5000).start == 5001
    assert state(tmp_path, clock=100).start == 5002
    assert state(tmp_path, clock=9000).start == 9000


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe", b"{}", b"[1]", b"[" * 100_000])
def test_a_damaged_file_is_put_aside_and_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "records.json").write_bytes(content)
    found = state(tmp_path)
    assert found.held == {}
    (alarm,) = found.alarms.standing(1000.0)
    assert "damaged" in str(alarm["text"])
    assert (tmp_path / "records.json.damaged").read_bytes() == content
    assert found.write("server/alpha", {"state": "in service"})
    assert state(tmp_path).held == found.held


def test_an_owner_that_lost_its_state_goes_on_from_what_the_peers_hold(tmp_path: Path) -> None:
    fresh = state(tmp_path)
    fresh.absorb([made("guests/alpha", "alpha", 7, {"old": 1})])
    fresh.write("guests/alpha", {"new": 1})
    assert fresh.held["guests/alpha"].version == 8


def test_what_cannot_be_stored_did_not_happen(tmp_path: Path) -> None:
    found = state(tmp_path)
    found.write("server/alpha", {"state": "in service"})
    version = found.version
    (tmp_path / ".records.json.ets-new").unlink(missing_ok=True)
    (tmp_path / ".records.json.ets-new").mkdir()
    with pytest.raises(HostError):
        found.write("server/alpha", {"state": "drained"})
    assert found.version == version
    assert found.value("server/alpha") == {"state": "in service"}


def test_alarms_are_bounded_and_end(tmp_path: Path) -> None:
    found = state(tmp_path)
    for number in range(1000):
        found.alarm(f"alarm {number}", keep=10)
    assert len(found.alarms.standing(1000.0)) == 50
    assert found.alarms.standing(1011.0) == []


_WRITER = """
import sys
from pathlib import Path
from ets.agent.state import State
state = State(Path(sys.argv[1]), "alpha", ("alpha", "beta"), clock=lambda: 1.0)
number = 0
while True:
    number += 1
    state.write("guests/alpha", {"n": number, "pad": "x" * 5000})
    print(state.held["guests/alpha"].version, flush=True)
"""


def test_kill_9_at_any_moment_loses_nothing_that_was_told(tmp_path: Path) -> None:
    """Each round kills the writer somewhere else; what it had told (printed) is on the disk."""
    for round_ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            told = int(writer.stdout.readline())
            time.sleep(0.02 + 0.03 * round_)
            os.kill(writer.pid, signal.SIGKILL)
            rest = writer.stdout.read().split(b"\n")
            told = max([told, *(int(line) for line in rest[:-1])])
        found = state(tmp_path)
        assert found.alarms.standing(1000.0) == []
        assert found.held["guests/alpha"].version >= told
