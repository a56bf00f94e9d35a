"""What stations say of themselves. Shown, never obeyed, and bounded whoever sends it.

Kept is the last report of stations that the site knows or that hold a learned guest's address,
at most ``MAX_STATIONS``, and for ``KEEP`` seconds. A report must come from the station's own
address. Rates are limited per address and over all.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ets.cluster.mac import parse

MAX_BODY = 8192
MAX_STATIONS = 4096
MAX_SOURCES = 1024
KEEP = 600.0
#: reports a second: of one station (it sends one in five seconds), and of all together
PER_SOURCE, BURST_SOURCE = 1.0, 5.0
OVER_ALL, BURST_ALL = 400.0, 800.0

Count = Annotated[int, Field(ge=0, lt=2**63)]
Name = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9._:-]*$")]
Hex = Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]*$")]
State = Literal["up", "connecting", "refused", "avoided"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Connection(_Model):
    """A server as the station's helper sees it. ``latency_us`` is the usual time of a read."""

    address: Annotated[str, Field(max_length=21, pattern=r"^[0-9.]+(:[0-9]+)?$")]
    state: State
    reads: Count = 0
    hedges: Count = 0
    wrong: Count = 0
    latency_us: Count = 0


class Report(_Model):
    """A station's report, every five seconds. ``uptime`` is in seconds, stalls in microseconds."""

    mac: Annotated[str, Field(max_length=17)]
    name: Name = ""
    root: Hex = ""
    digest: Hex = ""
    uptime: Annotated[float, Field(ge=0, lt=1e10)] = 0.0
    reads: Count = 0
    hedges: Count = 0
    wrong: Count = 0
    longest_stall_us: Count = 0
    servers: Annotated[tuple[Connection, ...], Field(max_length=16, strict=False)] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """A report, when it came (seconds, monotonic), and from where."""

    report: Report
    at: float
    source: str


class Bucket:
    """A token bucket: ``rate`` a second, ``burst`` at once."""

    __slots__ = ("_at", "_left")

    def __init__(self, burst: float, now: float) -> None:
        self._left = burst
        self._at = now

    def take(self, rate: float, burst: float, now: float) -> bool:
        """One more, now?"""
        self._left = min(burst, self._left + (now - self._at) * rate)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Stations:
    """The last report of each station.

    ``address_of`` gives the address that a MAC has as a known station or a learned guest, None
    for everybody else.
    """

    def __init__(
        self, address_of: Callable[[str], str | None], *, monotonic: Callable[[], float]
    ) -> None:
        self._address_of = address_of
        self._monotonic = monotonic
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._sources: OrderedDict[str, Bucket] = OrderedDict()
        self._all = Bucket(BURST_ALL, monotonic())
        self.counts: Counter[str] = Counter()

    def allow(self, source: str) -> bool:
        """May ``source`` send a report now? Asked before its body is read."""
        now = self._monotonic()
        bucket = self._sources.pop(source, None) or Bucket(BURST_SOURCE, now)
        self._sources[source] = bucket
        if len(self._sources) > MAX_SOURCES:
            self._sources.popitem(last=False)
        good = bucket.take(PER_SOURCE, BURST_SOURCE, now) and self._all.take(
            OVER_ALL, BURST_ALL, now
        )
        if not good:
            self.counts["too many"] += 1
        return good

    def take(self, body: bytes, source: str) -> str | None:
        """Keep a report; or why not, in words."""
        why = self._take(body, source)
        self.counts[why or "accepted"] += 1
        return why

    def _take(self, body: bytes, source: str) -> str | None:
        if len(body) > MAX_BODY:
            return "too long"
        try:
            report = Report.model_validate_json(body)
        except (ValidationError, RecursionError):
            return "not a report"
        mac = parse(report.mac)
        address = self._address_of(mac) if mac else None
        if mac is None or address is None:
            return "not a station of this site"
        if address != source:
            return "sent from another address than the station's"
        self._kept.pop(mac, None)
        self._kept[mac] = Kept(report, self._monotonic(), source)
        if len(self._kept) > MAX_STATIONS:
            self._kept.popitem(last=False)
        return None

    def kept(self) -> dict[str, Kept]:
        """The reports by MAC, without the old ones."""
        now = self._monotonic()
        for mac in [mac for mac, kept in self._kept.items() if now - kept.at > KEEP]:
            del self._kept[mac]
        return dict(self._kept)
