"""The agent's part in joins: it answers newcomers, keeps the copy's sshd as the joins say, and
tells the other servers where a newcomer may ask.

What strangers send is bounded in size, in rate and in number; nothing is kept of who only asks but
the last few, for the administrator to see.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial

import structlog

from ets.agent.place import Place
from ets.agent.standing import IN_SERVICE
from ets.agent.state import State
from ets.agent.stations import Bucket
from ets.clone import protocol, states
from ets.clone.joins import Joins
from ets.clone.protocol import Request
from ets.clone.states import Join
from ets.cluster import newcomers
from ets.cluster.mac import parse
from ets.cluster.newcomers import Newcomer
from ets.errors import EtsError

log = structlog.get_logger("ets.agent.joins")

EVERY = 1.0
MAX_BODY = 32_768
#: machines that asked last, for ``ets join`` to show
MAX_ASKING = 32
#: seconds after which who asked is forgotten
FORGET = 60.0
#: questions a second of one machine (it asks every two seconds), and of all together
PER_SOURCE, BURST_SOURCE, MAX_SOURCES = 2.0, 10.0, 1024
OVER_ALL, BURST_ALL = 50.0, 100.0

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Asking:
    """A machine that asked. ``at`` is in seconds, monotonic."""

    name: str
    code: str
    mac: str
    source: str
    hardware: Mapping[str, object]
    why: str
    at: float


class Refused(Exception):
    """A question that gets no answer but this status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Desk:
    """Where newcomers ask. One per agent."""

    def __init__(
        self,
        place: Place,
        state: State,
        *,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._place = place
        self._state = state
        self._wall = wall
        self._monotonic = monotonic
        self._asking: OrderedDict[str, Asking] = OrderedDict()
        self._sources: OrderedDict[str, Bucket] = OrderedDict()
        self._all = Bucket(BURST_ALL, monotonic())
        self._working = asyncio.Semaphore(2)
        self.joins = Joins(place.tree.joins, place.tree.pki, port=place.ports.clone)
        self.counts: Counter[str] = Counter()

    # -- newcomers --------------------------------------------------------------------------

    async def answer(self, what: str, body: bytes, source: str) -> Json:
        """What a newcomer at ``source`` is told. Raises Refused."""
        self._allow(source)
        handler = {"open": self._open, "hello": self._hello, "ask": self._ask,
                   "report": self._report}[what]  # fmt: skip
        if len(body) > MAX_BODY:
            raise Refused(413, "too long")
        try:
            document = json.loads(body or b"{}")
        except (ValueError, RecursionError) as error:
            raise Refused(400, "not JSON") from error
        if not isinstance(document, dict):
            raise Refused(400, "not a table")
        async with self._working:
            try:
                return await asyncio.to_thread(handler, document, source)
            except ValueError as error:
                raise Refused(400, protocol.plain(str(error), 200)) from error
            except EtsError as error:
                log.warning("join", trouble=error.message, source=source)
                raise Refused(503, error.message) from error

    def _open(self, document: Json, source: str) -> Json:
        """The joins that this card may ask for."""
        mac = parse(str(document.get("mac", "")))
        return {
            "site": self._place.site.name,
            "server": self._place.me.name,
            "joins": [
                {"name": join.name, "unattended": join.unattended, "for_you": join.mac is not None}
                for join in self._joins_now()
                if not join.ended and join.mac in {None, mac}
            ],
        }

    def _hello(self, document: Json, source: str) -> Json:
        """The terms, and the nonce for a commitment."""
        name, commit = document.get("name"), document.get("commit")
        if not isinstance(name, str) or not protocol.is_commitment(commit):
            raise ValueError("a name and a commitment are needed")
        join = self.joins.read(name)
        if join is None:
            raise Refused(404, f"no join of {protocol.plain(name, 63)} is open here")
        terms = self.joins.terms(self._place.site, self._place.me, join)
        return {"terms": terms.document(), "nonce": self.joins.nonce(name, str(commit))}

    def _ask(self, document: Json, source: str) -> Json:
        request = Request.read(document.get("request"))
        site, me, now = self._place.site, self._place.me, self._wall()
        told = self.joins.ask(site, me, request, document.get("proof"), now)
        self.counts[told.state] += 1
        if told.state == "approved":
            self.joins.settle(me)
        self._note(request, told.why, source)
        return {**asdict(told), "now": now}

    def _report(self, document: Json, source: str) -> Json:
        try:
            join = self.joins.report(document, self._wall())
        except states.Stale:
            found = self.joins.read(str(document.get("name")))
            return {"stale": True, "count": found.count if found else 0}
        log.info("join", server=join.name, state=join.state, said=join.reason)
        return {"state": join.state, "count": join.count}

    def _note(self, request: Request, why: str, source: str) -> None:
        """Keep who asked, the oldest forgotten first."""
        join = self.joins.read(request.name)
        if join is None:
            return
        terms = self.joins.terms(self._place.site, self._place.me, join)
        nonce = self.joins.nonce(request.name, protocol.commitment(request))
        code = protocol.code(protocol.transcript(terms, request, nonce))
        hardware = {
            protocol.plain(str(key), 30): protocol.plain(str(value), 200)
            for key, value in list(request.hardware.items())[:20]
        }
        mac = protocol.plain(request.mac, 17)
        asking = Asking(request.name, code, mac, source, hardware, why, self._monotonic())
        self._asking.pop(code, None)
        self._asking[code] = asking
        while len(self._asking) > MAX_ASKING:
            self._asking.popitem(last=False)

    def _allow(self, source: str) -> None:
        """Raises Refused when there are too many questions."""
        now = self._monotonic()
        bucket = self._sources.pop(source, None) or Bucket(BURST_SOURCE, now)
        self._sources[source] = bucket
        if len(self._sources) > MAX_SOURCES:
            self._sources.popitem(last=False)
        if not bucket.take(PER_SOURCE, BURST_SOURCE, now) or not self._all.take(
            OVER_ALL, BURST_ALL, now
        ):
            self.counts["too many"] += 1
            raise Refused(429, "too many")

    # -- the administrator ------------------------------------------------------------------

    def document(self) -> Json:
        """What ``ets join`` shows: the joins, and who asks. No secret is in it."""
        now = self._monotonic()
        asking = [one for one in list(self._asking.values()) if now - one.at < FORGET]
        return {
            "joins": [shown(join) for join in self._joins_now()],
            "asking": [{**asdict(one), "at": round(now - one.at, 1)} for one in asking],
        }

    # -- the loop ---------------------------------------------------------------------------

    async def step(self) -> None:
        """Bring everything in line with the joins. Raises EtsError."""
        if not self._place.tree.joins.is_dir():
            return
        joins = await asyncio.to_thread(self._settle)
        self._publish(joins)

    def _settle(self) -> tuple[Join, ...]:
        now = self._wall()
        self.joins.expire(now)
        for join in self.joins.all():
            serial = self._in_service(join.name)
            if states.in_service(join, serial, now) != join:
                self.joins.change(join.name, partial(states.in_service, serial=serial, now=now))
        self.joins.settle(self._place.me)
        return self.joins.all()

    def _in_service(self, name: str) -> str:
        """The number of the certificate with which that server is in service; empty when not."""
        keys, server = (self._state.value(f"{kind}/{name}") for kind in ("keys", "server"))
        if not isinstance(keys, dict) or server != {"state": IN_SERVICE}:
            return ""
        return str(keys.get("serial", ""))

    def _joins_now(self) -> tuple[Join, ...]:
        now = self._wall()
        return tuple(states.expire(join, now) for join in self.joins.all())

    def _publish(self, joins: tuple[Join, ...]) -> None:
        """Write the records of this server's joins, and empty those of joins that are over."""
        me = self._place.me
        open_ = {join.name: join for join in joins if not join.ended}
        for join in open_.values():
            mac = join.mac or (
                join.approval.mac if join.state == "copied" and join.approval else None
            )
            newcomer = Newcomer(
                join.name, me.stations, mac, "disk" if join.state == "copied" else "install"
            )
            until = max(join.until, join.heard + states.SILENCE if join.approval else 0)
            # rounded up to ten minutes, so that a report does not make a new record
            value = newcomers.record(newcomer, (until // 600 + 1) * 600)
            self._state.write(f"join/{join.name}", value)
        for key, record in self._state.held.items():
            name = key.removeprefix(newcomers.KIND)
            mine = key.startswith(newcomers.KIND) and record.owner == me.name
            if mine and name not in open_ and record.body != "{}":
                self._state.write(key, {})


def shown(join: Join) -> Json:
    """A join without its secrets."""
    document = asdict(join)
    document.pop("key")
    approval = document["approval"]
    if approval is not None:
        approval.pop("certificate")
        approval["code"] = protocol.code(approval["seen"])
    return document
