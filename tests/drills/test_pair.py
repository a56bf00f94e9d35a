"""The demo from beginning to end: every promise is held, the report is whole, nothing is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ets.host.deadline import Deadline, wait_for

pytestmark = [pytest.mark.drill, pytest.mark.root]


def demo(name: str, out: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ets", "demo", "--name", name, "--out", str(out), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left(name: str) -> list[str]:
    """What a lab of that name has left behind."""
    paths = [Path("/run/ets-lab") / name, *Path("/run/netns").glob(f"ets-{name}-*")]
    return [str(path) for path in paths if path.exists()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_promise_is_held(tmp_path: Path) -> None:
    process = demo("tpair", tmp_path / "report")
    output, _ = process.communicate(timeout=880)
    promises = json.loads((tmp_path / "report/report.json").read_text())
    broken = [p for p in promises if not p["held"]]
    assert not broken, output
    assert process.returncode == 0
    assert len(promises) >= 15
    assert output.splitlines()[-1] == f"report: {tmp_path / 'report'}"
    assert "<svg" in (tmp_path / "report/report.html").read_text()
    assert left("tpair") == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_same_holds_for_a_pair_that_was_made_by_a_join(tmp_path: Path) -> None:
    process = demo("tclone", tmp_path / "report", "--from-clone")
    output, _ = process.communicate(timeout=2900)
    promises = json.loads((tmp_path / "report/report.json").read_text())
    assert process.returncode == 0, output
    assert len(promises) >= 15
    assert "beta is in service, equal to alpha" in output
    assert left("tclone") == []


@pytest.mark.timeout(200)
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path) -> None:
    process = demo("tstop", tmp_path / "report")
    stations = Path("/run/ets-lab/tstop/stations")
    wait_for("the stations to be switched on", stations.exists, Deadline(150))
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 1, output
    assert "Traceback" not in output
    assert left("tstop") == []
