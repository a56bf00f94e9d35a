"""slow: the server answers every read late, but rightly."""

from __future__ import annotations

from typing import Any

from ets.errors import LabError
from ets.lab.server import LabServer

ABOUT = "every read of an image takes 1.5 s longer (seconds=...)"

UNIT = "ets-blocks.service"
_DROP_IN = f"/run/systemd/system/{UNIT}.d/lab-slow.conf"


def inject(server: LabServer, *, seconds: float = 1.5) -> dict[str, Any]:
    """nbdkit's delay filter, by a drop-in that a reboot forgets; the unit is restarted."""
    host = server.host
    unit = host.run(["systemctl", "cat", UNIT]).text
    host.write(_DROP_IN, drop_in(unit, int(seconds * 1000)).encode())
    host.run(["systemctl", "daemon-reload"])
    host.run(["systemctl", "restart", UNIT])
    return {}


def heal(server: LabServer, memory: dict[str, Any]) -> None:
    """Take the filter away."""
    if server.running:
        server.host.remove(_DROP_IN)
        server.host.run(["systemctl", "daemon-reload"])
        server.host.run(["systemctl", "restart", UNIT])


def drop_in(unit: str, milliseconds: int) -> str:
    """A drop-in for the unit file ``unit`` whose nbdkit delays every read. Raises LabError when
    the unit starts no nbdkit."""
    joined = unit.replace("\\\n", " ")
    starts = [line for line in joined.splitlines() if line.startswith("ExecStart=")]
    words = starts[-1].removeprefix("ExecStart=").split() if starts else []
    program = next((index for index, word in enumerate(words) if word.endswith("nbdkit")), None)
    if program is None:
        raise LabError(f"{UNIT} does not start nbdkit", hint="systemctl cat shows what it starts")
    # nbdkit takes filters before the plugin and their parameters among the plugin's
    words.insert(program + 1, "--filter=delay")
    words.append(f"rdelay={milliseconds}ms")
    return f"[Service]\nExecStart=\nExecStart={' '.join(words)}\n"
