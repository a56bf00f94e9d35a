"""A blank machine as far as a join is concerned: a place on the stations' network, and a process
there that asks, reports, and runs commands on the server that let it in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ASK = """
import json, subprocess, sys
from dataclasses import asdict
from pathlib import Path
from ets.clone.joining import Joining
from ets.errors import EtsError
told = json.loads(sys.argv[1])
def say(**what):
    print(json.dumps(what), flush=True)
try:
    joining = Joining(told["addresses"], Path(told["keys"]), told["hardware"],
                      token=told.get("token"))
    if told["seconds"] is not None:
        offer = joining.wait(told["seconds"], lambda text: say(tell=text, code=joining.code))
        offer = {k: v.decode() if isinstance(v, bytes) else v for k, v in asdict(offer).items()}
        say(offer=offer, code=joining.code)
    for argv in told["commands"]:
        done = subprocess.run(joining.wrap(argv), capture_output=True, timeout=60)
        said = (done.stdout + done.stderr).decode(errors="replace")
        say(status=done.returncode, said=said)
    if told["hold"]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
        held = subprocess.Popen(joining.wrap(told["hold"]), **pipes)
        say(status=held.wait(100))
    for report in told["reports"]:
        joining.report(*report)
    say(end=True)
except EtsError as error:
    say(error=error.message, hint=error.hint)
"""


@dataclass
class Newcomer:
    """``enter`` makes a command line run in its network, ``keys`` is its only disk."""

    enter: Callable[[Sequence[str]], list[str]]
    keys: Path
    mac: str = "52:54:00:99:00:01"
    addresses: Sequence[str] = ("10.77.0.11",)
    hardware: Mapping[str, Any] = field(default_factory=lambda: {"memory": "2 GB"})

    def start(
        self,
        *,
        token: str | None = None,
        seconds: float | None = 30.0,
        commands: Sequence[Sequence[str]] = (),
        reports: Sequence[Sequence[Any]] = (),
        hold: Sequence[str] = (),
    ) -> subprocess.Popen[str]:
        """Begin to ask; ``heard`` reads what it says. ``seconds`` None: use what was agreed;
        ``hold`` is a command that is told nothing and waited for."""
        told = {
            "addresses": list(self.addresses), "keys": str(self.keys), "token": token,
            "hardware": {**self.hardware, "mac": self.mac}, "seconds": seconds,
            "commands": [list(argv) for argv in commands],
            "reports": [list(report) for report in reports], "hold": list(hold),
        }  # fmt: skip
        argv = self.enter([sys.executable, "-c", _ASK, json.dumps(told)])
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def ask(self, **given: Any) -> list[dict[str, Any]]:
        """Ask to the end; everything that it said."""
        process = self.start(**given)
        try:
            out, _ = process.communicate(timeout=120)
        finally:
            process.kill()
        return [json.loads(line) for line in out.splitlines()]


def heard(process: subprocess.Popen[str], key: str) -> dict[str, Any]:
    """The next thing that it says with ``key`` in it."""
    assert process.stdout is not None
    for line in process.stdout:
        said: dict[str, Any] = json.loads(line)
        if key in said:
            return said
        assert "error" not in said, said
    raise AssertionError(f"it ended without a word of {key}")


def only(said: Sequence[dict[str, Any]], key: str) -> Any:
    """What it said under ``key``, the one time that it did."""
    found = [line[key] for line in said if key in line]
    assert len(found) == 1, said
    return found[0]
