"""Is a server in service? Each server says it of itself, in its own record.

Invariant: while the marker ``paths.JOINING`` lies on a server, the server is ``joining``, whatever
its record said before: no station is sent to it, and its Kea answers nobody. Only the comparison
with its primary takes the marker away (``ets.clone.finish``).
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from ets import paths
from ets.agent.place import Place
from ets.agent.state import State

log = structlog.get_logger("ets.agent.standing")

IN_SERVICE, DRAINED, JOINING = "in service", "drained", "joining"


class Standing:
    """What is known of the servers' states. ``complete`` tells whether every peer was asked."""

    def __init__(self, place: Place, state: State, complete: Callable[[], bool]) -> None:
        self._me = place.me.name
        self._state = state
        self._complete = complete
        self._marker = place.tree.runtime / paths.JOINING.name
        self._marked = self._marker.exists()

    def of(self, server: str) -> str:
        """In service, drained or joining; in service while there is no record of it."""
        if server == self._me and self._marked:
            return JOINING
        told = self._recorded(server)
        return told if told in (DRAINED, JOINING) else IN_SERVICE

    def serving(self, server: str) -> bool:
        """May stations be sent to it?"""
        return self.of(server) == IN_SERVICE

    def step(self) -> bool:
        """Look at the marker; true when this server's state changed. Raises HostError."""
        self._marked = self._marker.exists()
        before = self._recorded(self._me)
        if self._marked:
            # Peers may hold a record that this server wrote in an earlier life: that one first, or
            # two different records would have one version.
            wanted = JOINING if before is not None or self._complete() else None
        else:
            wanted = IN_SERVICE if before in (None, JOINING) else before
        if wanted is None or wanted == before:
            return False
        log.info("state", was=before or "unknown", now=wanted)
        return self._state.write(f"server/{self._me}", {"state": wanted})

    def _recorded(self, server: str) -> str | None:
        value = self._state.value(f"server/{server}")
        told = value.get("state") if isinstance(value, dict) else None
        return told if isinstance(told, str) else None
