"""What the stations' own reports say, asked of the servers' agents."""

from __future__ import annotations

import contextlib
from typing import Any

import httpx

from ets import paths
from ets.errors import EtsError
from ets.lab.lab import Lab


def status(lab: Lab, server: str) -> dict[str, Any] | None:
    """``/v1/status`` of a server's agent; None when it does not answer."""
    with contextlib.suppress(EtsError, httpx.HTTPError, ValueError, OSError):
        socket = lab.server(server).files / paths.AGENT_SOCKET.as_posix().lstrip("/")
        transport = httpx.HTTPTransport(uds=str(socket))
        with httpx.Client(transport=transport, timeout=5) as client:
            answer = client.get("http://agent/v1/status").raise_for_status().json()
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
