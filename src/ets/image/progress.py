"""What a build, copy or scrub says while it works; who listens decides how it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """A step of work on an image.

    ``what`` is the object in the user's words (``image console``), ``doing`` the step, ``done``
    the part of that step that is done (0 to 1), None where it cannot be known.
    """

    what: str
    doing: str
    done: float | None = None


Events = Callable[[Event], None]


def silent(event: Event) -> None:
    """An ``Events`` that shows nothing."""
