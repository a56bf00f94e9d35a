"""The first listing of a copy, made while what it finds is already being sent."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence

from ets.clone.listing import Listing
from ets.clone.stream import PIPE, widen, write_all
from ets.errors import CloneError, EtsError

Tell = Callable[[Sequence[bytes]], None]


class Survey:
    """Runs ``make`` in a thread of its own; that tells the paths it finds in batches."""

    def __init__(self, make: Callable[[Tell], Listing]) -> None:
        self._make = make
        self._batches: queue.SimpleQueue[Sequence[bytes] | None] = queue.SimpleQueue()
        self._listing: Listing | None = None
        self._error: EtsError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self) -> Listing:
        """The whole listing, once it is there. Raises what went wrong."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        if self._listing is None:
            raise CloneError("the server could not be listed")
        return self._listing

    @contextlib.contextmanager
    def names(self) -> Iterator[int]:
        """A pipe from which tar reads the names while they are found; once only."""
        out, into = os.pipe()
        widen(into)
        feeder = threading.Thread(target=self._feed, args=(into,), daemon=True)
        feeder.start()
        try:
            yield out
        finally:
            os.close(out)

    def _feed(self, into: int) -> None:
        try:
            while (batch := self._batches.get()) is not None:
                names = b"".join(b"./" + path + b"\0" for path in batch)
                for at in range(0, len(names), PIPE):
                    write_all(into, names[at : at + PIPE])
        except OSError:
            return  # tar ended; why, it says itself
        finally:
            os.close(into)

    def _run(self) -> None:
        try:
            self._listing = self._make(self._batches.put)
        except EtsError as error:
            self._error = error
        finally:
            self._batches.put(None)
