"""Watching a site from outside: probes' records as they arrive, and who sends whom how much."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from ets.errors import EtsError
from ets.lab.topology import Namespace
from ets.report.reads import Read, clock_offset, parse, shifted

log = structlog.get_logger("ets.lab.drills")

# Counted by the kernel, per pair of addresses: looking at every packet from here would cost more
# than the stations themselves.
_COUNTERS = """
table bridge watch {
  set blocks { type ipv4_addr . ipv4_addr; flags dynamic; size 65535; counter; }
  chain forward {
    type filter hook forward priority 0; policy accept;
    tcp sport 10809 update @blocks { ip saddr . ip daddr }
  }
}
"""


class Repeat:
    """Calls ``look`` every ``seconds`` in a thread of its own, between ``with`` and its end."""

    def __init__(self, look: Callable[[], None], seconds: float) -> None:
        self._look, self._seconds = look, seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self._look()
            except (EtsError, OSError, ValueError) as error:
                # a look that failed is a gap in the record, and gaps are judged as such
                log.warning("watch", failed=str(error))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if kind is None:
            self._look()


class ProbeLog:
    """The growing file of one station's probe. ``look`` reads what is new and notes when."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._rest = b""
        self._arrived: list[tuple[float, Read]] = []

    def look(self) -> None:
        """Take over the lines that have arrived since the last look."""
        now = time.monotonic()
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                data = file.read()
        except FileNotFoundError:
            return
        self._position += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if (read := parse(line)) is not None:
                self._arrived.append((now, read))

    @property
    def count(self) -> int:
        """How many reads have been heard of."""
        return len(self._arrived)

    def reads(self, origin: float) -> tuple[Read, ...]:
        """All reads, in seconds since ``origin`` (monotonic clock), in the order of their ends."""
        arrived = list(self._arrived)
        if not arrived:
            return ()
        offset = clock_offset((when, read.end) for when, read in arrived)
        return tuple(shifted(read, offset - origin) for _, read in arrived)


class BlockCounters:
    """How many bytes of blocks each server has sent to each station's address, over time."""

    def __init__(self, net: Namespace) -> None:
        self._net = net
        self._samples: list[tuple[float, Mapping[tuple[str, str], int]]] = []

    def start(self) -> None:
        """Begin to count. Raises CommandFailed where the kernel cannot."""
        self._net.run(["nft", "-f", "-"], stdin=_COUNTERS.encode())

    def look(self) -> None:
        """Take a sample."""
        listed = self._net.run(["nft", "--json", "list", "set", "bridge", "watch", "blocks"]).stdout
        self._samples.append((time.monotonic(), counted(listed)))

    def now(self, station: str, server: str | None = None) -> int:
        """Bytes that all servers (or that one) have sent to a station by the last sample."""
        _, last = self._samples[-1] if self._samples else (0.0, {})
        return sum(
            sent
            for (source, to), sent in last.items()
            if to == station and server in (None, source)
        )

    def of(self, station: str, origin: float) -> list[tuple[float, dict[str, int]]]:
        """Samples for one station's address: seconds since ``origin``, bytes by server address."""
        return [
            (
                when - origin,
                {server: sent for (server, to), sent in sample.items() if to == station},
            )
            for when, sample in list(self._samples)
        ]


def counted(listed: bytes) -> dict[tuple[str, str], int]:
    """Bytes by (source, destination) from ``nft --json list set``. Raises ValueError."""
    found: dict[tuple[str, str], int] = {}
    for item in json.loads(listed)["nftables"]:
        for element in item.get("set", {}).get("elem", ()):
            inner = element["elem"]
            source, destination = inner["val"]["concat"]
            found[source, destination] = int(inner["counter"]["bytes"])
    return found
