"""``ets lab`` as a person uses it: every command is a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.drills.lab_tools import PAIR, lab_name, leftovers

pytestmark = [pytest.mark.drill, pytest.mark.root]


def ets_lab(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "ets", "lab", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)


def test_a_site_from_up_to_down() -> None:
    name = lab_name("cl")
    named = ("--name", name)
    try:
        up = ets_lab("up", str(PAIR), "--no-image", *named)
        assert up.returncode == 0, up.stderr
        assert "is up" in up.stdout
        again = ets_lab("up", str(PAIR), "--no-image", *named)
        assert again.returncode == 1
        assert "is up" in again.stderr
        assert ets_lab("shell", *named, "beta", "hostname").stdout == "beta\n"
        assert ets_lab("shell", *named, "beta", "--", "sh", "-c", "exit 7").returncode == 7
        assert ets_lab("shell", *named, "gamma", "true").returncode == 2

        assert ets_lab("fault", *named, "hang", "beta").returncode == 0
        status = ets_lab("status", *named).stdout
        assert "frozen" in status
        assert "hang" in status
        assert ets_lab("fault", *named, "hang", "beta").returncode == 1
        assert ets_lab("fault", *named, "flood", "beta").returncode == 2
        assert "beta: hang" in ets_lab("heal", *named).stdout
        assert "nothing to heal" in ets_lab("heal", *named, "beta").stdout
        assert "frozen" not in ets_lab("status", *named).stdout
    finally:
        down = ets_lab("down", *named)
    assert down.returncode == 0, down.stderr
    assert leftovers(name) == []
    assert ets_lab("down", *named).returncode == 1
    assert ets_lab("status", *named).returncode == 2


def test_wrong_input_is_refused_before_anything_is_made() -> None:
    name = lab_name("cw")
    assert ets_lab("up", str(PAIR), "--no-image", "--name", "Not-A-Name").returncode == 2
    assert ets_lab("up", "/dev/null", "--no-image", "--name", name).returncode == 2
    assert ets_lab("up", str(PAIR), "--no-image", "--stations", "2", "--name", name).returncode == 2
    assert leftovers(name) == []
