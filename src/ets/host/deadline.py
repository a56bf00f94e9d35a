"""Waiting, always with an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ets.errors import DeadlinePassed

T = TypeVar("T")


class Deadline:
    """A moment in the future (monotonic clock), made from seconds from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left; 0 when it has passed."""
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        """True when no time is left."""
        return self.left == 0.0


def wait_for(
    what: str, look: Callable[[], T | None], deadline: Deadline, *, every: float = 0.1
) -> T:
    """Call ``look`` every ``every`` seconds until it returns something true; return that.

    Raises DeadlinePassed naming ``what`` and what was seen last.
    """
    while True:
        seen = look()
        if seen:
            return seen
        if deadline.passed:
            raise DeadlinePassed(f"waited {deadline.seconds:g} s for {what}; last seen: {seen!r}")
        time.sleep(min(every, deadline.left))
