"""What the lab says while it works: the same events as an image's build, to the same listeners."""

from __future__ import annotations

from ets.image.progress import Event, Events, silent

__all__ = ["Event", "Events", "silent"]
