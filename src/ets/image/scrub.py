"""Looking for damage in the background: a server re-reads its images and stops serving bad ones.

What a station reads is checked by the station itself; this is so that a rotten disk is known
before it is the last one.
"""

from __future__ import annotations

from dataclasses import dataclass

from ets.errors import ImageError
from ets.image.progress import Event, Events, silent
from ets.image.store import Store

#: bytes per second: slow enough to disturb nobody on a spinning disk
GENTLE = 20e6


@dataclass(frozen=True, slots=True)
class Damage:
    """An image that is not what its digest says; ``wrong`` has one sentence per finding."""

    digest: str
    wrong: tuple[str, ...]


def scrub(store: Store, *, rate: float = GENTLE, events: Events = silent) -> list[Damage]:
    """Read every image again and return the damaged ones. ``rate`` in bytes/s, 0 for no limit.

    An image that is removed meanwhile is no damage.
    """
    damaged = []
    for digest in store.digests():
        what = f"image {digest[:12]}"
        try:
            wrong = store.verify(
                digest,
                rate=rate,
                watch=lambda part, what=what: events(Event(what, "verifying", part)),  # type: ignore[misc]
            )
        except ImageError as error:
            wrong = [error.message]
        if wrong and (store.store / digest).is_dir():
            damaged.append(Damage(digest, tuple(wrong)))
    return damaged


def quarantine(store: Store, digest: str) -> str:
    """Stop serving a damaged image: it leaves ``exports`` and the store, and is kept aside.

    Returns the path it was moved to. The block export must be told afterwards: it may hold the
    file open (the agent restarts it), and the image is fetched again from a peer
    (``ets.image.copy``). A publication of it stays, so that the right image is fetched again.
    Raises ImageError when it is not in the store.
    """
    with store.locked():
        if not (store.store / digest).is_dir():
            raise ImageError(f"there is no image {digest[:12]} in {store.root}")
        return str(store.set_aside(digest))
