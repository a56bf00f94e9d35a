"""``ets plan``, ``ets apply``, ``ets verify``: what they say and how they end. Changes nothing
here: the real ones run in ``tests/daemons/test_apply.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ets.plan import plan as plans

PAIR = str(Path(__file__).parents[2] / "examples/pair.toml")


def ets(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ets", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


def test_a_plan_is_shown_and_saved(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    done = ets("plan", "--site", PAIR, "--server", "beta", "--out", str(out))
    assert (done.returncode, done.stderr) == (0, "")
    plan = plans.loads(out.read_bytes())
    assert plan.server == "beta"
    assert out.stat().st_mode & 0o777 == 0o600
    for step in plan.steps:
        assert f"{step.verb} {step.kind} {step.target}" in done.stdout
    assert f"ets apply {out}" in done.stdout


def test_json_is_nothing_but_json() -> None:
    done = ets("plan", "--site", PAIR, "--server", "alpha", "--json")
    assert json.loads(done.stdout)["server"] == "alpha"
    done = ets("-v", "verify", "--site", PAIR, "--server", "alpha", "--json", "--seconds", "0")
    verified = json.loads(done.stdout)
    assert done.returncode == verified["exit_code"] == 1
    assert verified["drift"]
    assert not all(probe["well"] for probe in verified["probes"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plan", "--site", "/nowhere.toml"), "/nowhere.toml"),
        (("plan", "--site", PAIR, "--server", "zeta"), "it has: alpha, beta"),
        (("verify", "--site", PAIR, "--server", "zeta"), "no server 'zeta'"),
        (("apply", "/nowhere.json"), "there is no plan /nowhere.json"),
        (("apply", PAIR), "is not a plan"),
        (("apply", "/bin/sh"), "is not a plan"),
        (("plan", "--nonsense"), "No such option"),
    ],
)
def test_wrong_input_ends_with_2(words: tuple[str, ...], said: str) -> None:
    done = ets(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_asks_before_it_applies(tmp_path: Path) -> None:
    """Without --yes and without anybody to ask, nothing is done."""
    out = tmp_path / "plan.json"
    ets("plan", "--site", PAIR, "--server", "beta", "--out", str(out))
    done = ets("apply", str(out))
    assert done.returncode == 1
    assert "apply it?" in done.stdout
    assert "interrupted" in done.stderr
