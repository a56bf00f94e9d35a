"""The agent itself: its parts put together, and the loops that keep them going.

A loop whose step fails is noted and goes on: no part can stop another. Only what happens at the
start (a port taken, keys missing) ends the agent, with an error that says what to do.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from ets import __version__
from ets.agent import joins, listen
from ets.agent.api import Api
from ets.agent.audit import Audits
from ets.agent.boot import Boot, Now
from ets.agent.dhcp import POLL, Dhcp, Told
from ets.agent.heartbeats import Heartbeats, News
from ets.agent.images import Images
from ets.agent.listen import Listener
from ets.agent.peers import STEP, Peers
from ets.agent.place import Place, tls
from ets.agent.revoked import Revocations
from ets.agent.standing import Standing
from ets.agent.state import State
from ets.agent.stations import Stations
from ets.agent.supervise import EVERY, Supervisor
from ets.cluster import newcomers
from ets.cluster.heartbeat import fingerprint
from ets.cluster.view import BEAT
from ets.errors import EtsError

log = structlog.get_logger("ets.agent")

#: seconds a loop rests after its step failed
REST = 1.0
#: seconds between two looks whether an image's files were touched
SCRUB = 5.0

Step = Callable[[], Awaitable[object]]


class Agent:
    """One server's agent."""

    def __init__(self, place: Place) -> None:
        """Raises EtsError when it cannot run here."""
        self.place = place
        self.version = __version__
        self.monotonic = time.monotonic
        self.wall = time.time
        self.began = self.monotonic()
        self.boot_counts: Counter[str] = Counter()
        #: what is wrong with a loop, by its name; only those with trouble
        self.troubles: dict[str, str] = {}
        names = [server.name for server in place.site.servers]
        self.state = State(place.tree.runtime, place.me.name, names, clock=self.wall)
        self.heartbeats = Heartbeats(
            place, self.state.start, news=self._news, monotonic=self.monotonic, wall=self.wall
        )
        self.peers = Peers(
            place,
            self.state,
            self.heartbeats,
            monotonic=self.monotonic,
            on_change=self._heard_news,
        )
        self.standing = Standing(place, self.state, self.peers.complete)
        self.dhcp = Dhcp(place, self.state)
        self.boot = Boot(place)
        self.images = Images(
            place, self.state, self.peers, alive=self.is_alive, monotonic=self.monotonic
        )
        self.stations = Stations(self._address_of, monotonic=self.monotonic)
        self.supervisor = Supervisor(place)
        self.desk = joins.Desk(place, self.state, wall=self.wall, monotonic=self.monotonic)
        self.revocations = Revocations(place, self.state, self.desk.joins)
        self.audits = Audits(place)
        self._written: Now | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners: list[Listener] = []

    # -- what the parts ask each other ------------------------------------------------------

    def state_of(self, server: str) -> str:
        """In service, drained or joining."""
        return self.standing.of(server)

    def is_alive(self, server: str) -> bool:
        """Not lost: this server itself, and peers that are alive or not yet known."""
        made = self.heartbeats.decisions().get(server)
        return made is None or made.verdict != "lost"

    def now(self) -> Now:
        """What boot scripts depend on."""
        decisions = self.heartbeats.decisions()
        return Now(
            images=self.images.boot_images(),
            drained=frozenset(
                s.name for s in self.place.site.servers if not self.standing.serving(s.name)
            ),
            lost=frozenset(name for name, made in decisions.items() if made.verdict == "lost"),
            newcomers=newcomers.read(
                {k: r.value for k, r in self.state.held.items() if k.startswith(newcomers.KIND)},
                self.wall(),
            ),
        )

    def alarms(self) -> list[dict[str, object]]:
        """What stands now."""
        return self.state.alarms.standing(self.wall())

    def load(self) -> float:
        """The machine's load average over a minute."""
        return round(os.getloadavg()[0], 2)

    def _address_of(self, mac: str) -> str | None:
        station = self.place.site.station(mac)
        return str(station.address) if station else self.dhcp.address_of_guest(mac)

    def _news(self) -> News:
        condition = {
            "published": self.images.published_here(),
            "images": self.images.condition(),
            "services": [[health.name, health.well] for health in self.supervisor.health],
        }
        return News(self.state.version, fingerprint(condition), self.load())

    def _heard_news(self, changed: tuple[str, ...]) -> None:
        log.info("records", changed=sorted(changed))

    # -- the loops --------------------------------------------------------------------------

    async def start(self) -> None:
        """Open all ports and start the loops. Raises AgentError."""
        try:
            self.heartbeats.open()
            await self._listen()
        except BaseException:
            await self.stop()
            raise
        self.standing.step()
        self._loop("heartbeats", BEAT, self._beat)
        self._loop("standing", BEAT, self._stand)
        self._loop("dhcp", POLL, self._dhcp)
        self._loop("images", 1.0, self.images.step)
        self._loop("scrub", SCRUB, self.images.scrub)
        self._loop("boot scripts", 1.0, self._boot_files)
        self._loop("services", EVERY, self.supervisor.step)
        self._loop("joins", joins.EVERY, self.desk.step)
        self._loop("keys", joins.EVERY, self._keys)
        for peer in self.place.peers:
            self._loop(f"peer {peer.name}", STEP, partial(self.peers.step, peer))
        log.info("running", server=self.place.me.name, site=self.place.site.name)

    async def stop(self) -> None:
        """Stop everything that was started. Nothing that runs elsewhere notices."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for listener in self._listeners:
            await listener.close()
        self._listeners.clear()
        self.audits.close()
        self.heartbeats.close()
        await self.peers.close()

    async def _listen(self) -> None:
        place, api = self.place, Api(self)
        names = {server.name for server in place.site.servers}
        local = Listener(api.for_stations())
        peers = Listener(api.for_peers(), keep_alive=60, admit=listen.named_peer(names))
        root = Listener(api.for_root())
        self._listeners = [local, peers, root]
        await local.tcp("127.0.0.1", place.ports.local)
        addresses = {str(a) for server in place.site.servers for a in server.addresses.values()}
        told = self.revocations.newer()
        if told is not None:
            self.revocations.keep(told)
        if self.revocations.load():
            await self.peers.revoke(self.revocations.file)
        context = tls(place.tree.pki, ssl.PROTOCOL_TLS_SERVER, self.revocations.file)
        await peers.tls(str(place.me.peering), place.ports.peers, context, addresses)
        await root.unix(place.tree.socket)

    async def _beat(self) -> None:
        self.heartbeats.beat()

    async def _stand(self) -> None:
        if self.standing.step():
            self.heartbeats.beat()  # the peers hear of it at once

    async def _dhcp(self) -> None:
        told = Told(
            complete=self.peers.complete(),
            fresh=self.peers.fresh(),
            drained=not self.standing.serving(self.place.me.name),
        )
        if await self.dhcp.step(told):
            self.heartbeats.beat()  # the peers hear of it at once, and come to ask

    async def _keys(self) -> None:
        """Keep to the list of revoked certificates, and tell the peers this server's own."""
        held = self.revocations
        newer = held.newer()
        if newer is not None:
            await asyncio.to_thread(held.keep, newer)
        await asyncio.to_thread(held.add)
        if held.load():
            await self.peers.revoke(held.file)
            for listener in self._listeners:
                listener.renew(tls(self.place.tree.pki, ssl.PROTOCOL_TLS_SERVER, held.file))
            log.info("revoked certificates", number=held.list.number)
        record = held.wanted()
        if record is not None:
            self.state.put(record)
        # After its state: peers must never see the new keys with the old life's "in service".
        me = self.place.me.name
        if self.peers.complete() and self.state.value(f"server/{me}") == {
            "state": self.state_of(me)
        }:
            held.tell_serial()

    async def _boot_files(self) -> None:
        now = self.now()
        calm = Now(dict(now.images), now.drained)
        if calm == self._written:
            return
        changed = await asyncio.to_thread(self.boot.write_files, calm)
        self._written = calm
        log.info("boot scripts written", changed=changed)

    def _loop(self, name: str, every: float, step: Step) -> None:
        self._tasks.append(asyncio.create_task(self._forever(name, every, step), name=name))

    async def _forever(self, name: str, every: float, step: Step) -> None:
        """Run ``step`` every ``every`` seconds, whatever happens in it."""
        due = self.monotonic()
        while True:
            try:
                await step()
                self.troubles.pop(name, None)
            except EtsError as error:
                if self.troubles.get(name) != error.message:
                    log.warning("trouble", part=name, text=error.message)
                self.troubles[name] = error.message
                due = max(due, self.monotonic() + REST - every)
            except Exception as error:
                log.exception("a mistake in ETS", part=name)
                self.troubles[name] = f"a mistake in ETS: {error!r}"
                self.state.alarm(f"a mistake in ETS, in {name}: {error!r}")
                due = max(due, self.monotonic() + REST - every)
            due = max(due + every, self.monotonic())
            await asyncio.sleep(due - self.monotonic())
