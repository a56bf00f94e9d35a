"""hang: every process stands still, as after SIGSTOP; the kernel still acknowledges packets."""

from __future__ import annotations

from typing import Any

from ets.lab.server import LabServer

ABOUT = "every process stopped; connections stay open and silent"


def inject(server: LabServer) -> dict[str, Any]:
    """The cgroup freezer stops all at once, also what is just being forked; SIGSTOP to one
    process after the other would not."""
    server.container.cgroup.freeze()
    return {}


def heal(server: LabServer, memory: dict[str, Any]) -> None:
    """Let everything go on where it stood."""
    server.container.cgroup.thaw()
