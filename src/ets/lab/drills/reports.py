"""What the stations' own reports say, asked of the servers' agents."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from ets.errors import EtsError
from ets.lab.lab import Lab


def status(lab: Lab, server: str) -> dict[str, Any] | None:
    """``/v1/status`` of a server's agent; None when it does not answer."""
    with contextlib.suppress(EtsError, ValueError):
        done = lab.server(server).host.run(["ets", "status", "--json"], check=False, deadline=30)
        answer = json.loads(done.stdout)
        return answer if isinstance(answer, dict) else None
    return None


def wrong_blocks(lab: Lab) -> int:
    """How many wrong blocks the stations' helpers have refused so far, as last reported."""
    seen: dict[str, int] = {}
    for server in lab.servers:
        for station in (status(lab, server) or {}).get("stations", ()):
            wrong = (station.get("report") or {}).get("wrong", 0)
            seen[station["mac"]] = max(seen.get(station["mac"], 0), int(wrong))
    return sum(seen.values())
