"""What the lab says while it works: structured events; who listens decides how they look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """Something the lab does or has done.

    ``what`` is the object in the user's words (``server tree``, ``alpha``), ``doing`` the step,
    ``done`` the part of it that is done (0 to 1) or None where that cannot be known.
    """

    what: str
    doing: str
    done: float | None = None


Events = Callable[[Event], None]


def silent(event: Event) -> None:
    """An ``Events`` that shows nothing."""
