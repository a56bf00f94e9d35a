"""The box that daemon tests run in leaves nothing behind, however its process ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ets.host.deadline import Deadline, wait_for

pytestmark = [pytest.mark.root, pytest.mark.daemons]

TOP = Path(__file__).resolve().parents[2]
#: nginx, for it has workers of its own that do not notice the end of their master
SCRIPT = """
import sys, time
from pathlib import Path
from tests.daemons.box import Box
place = Path(sys.argv[1])
box = Box(place)
machine = box.machine("alpha", "eth1", "10.77.0.11/22")
machine.daemon("nginx", "-g", "daemon off;")
print("up", flush=True)
time.sleep(600)
"""


def inside(namespace: str) -> list[int]:
    """Every process in that process namespace, as numbered here."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if str((place / "ns/pid").readlink()) == namespace:
                found.append(int(place.name))
        except OSError:
            continue
    return found


def below(pid: int) -> list[int]:
    """``pid`` and all its descendants."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return [pid]
    return [pid, *(found for child in text.split() for found in below(int(child)))]


def test_a_killed_test_leaves_no_process_behind(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    with subprocess.Popen(argv, cwd=TOP, stdout=subprocess.PIPE, text=True) as process:
        lines = iter(process.stdout or ())
        assert any(line.strip() == "up" for line in lines)
        wait_for("nginx and its workers", lambda: _workers(process.pid), Deadline(20))
        own = str(Path("/proc/self/ns/pid").readlink())
        spaces = {str(Path(f"/proc/{pid}/ns/pid").readlink()) for pid in below(process.pid)} - {own}
        assert len(spaces) == 2
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    wait_for(
        "the end of everything in the box",
        lambda: not any(inside(space) for space in spaces),
        Deadline(10),
    )


def _workers(pid: int) -> bool:
    names = [Path(f"/proc/{found}/cmdline").read_bytes() for found in below(pid)]
    return any(b"worker process" in name for name in names)
