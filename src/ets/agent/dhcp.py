"""Keeps Kea and the guests' records in step: learns what Kea gave away, tells Kea what all
servers learned.

Every ``POLL`` seconds the lease file is looked at (one stat), and only when it changed are the
leases asked for. A configuration is sent when it differs from the last one sent, at most one a
second, and again after Kea was restarted or configured by somebody else. Kea being away, or
hanging, stops nothing else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import structlog

from ets.agent.kea import Kea, KeaError
from ets.agent.place import Place
from ets.agent.state import State
from ets.cluster import guests
from ets.cluster.guests import Guest, Lease
from ets.cluster.records import canonical
from ets.errors import HostError
from ets.services.dhcp import Learned, kea_config
from ets.site.pools import guest_slice

log = structlog.get_logger("ets.agent.dhcp")

POLL = 0.5
#: seconds between two looks at Kea itself: its process id, and the leases though nothing changed
LOOK = 5.0
SEND_EVERY = 1.0
#: seconds before Kea is asked again after it did not answer
PAUSE = 2.0

Signature = tuple[object, object]


@dataclass(frozen=True, slots=True)
class Told:
    """What the rest of the agent knows that DHCP depends on.

    ``complete``: every peer was asked since the start, or is lost, so what is known of guests is
    all there is to know. ``fresh``: every other server was asked within the last seconds.
    """

    complete: bool
    fresh: bool
    drained: bool


class Dhcp:
    """One server's Kea."""

    def __init__(self, place: Place, state: State) -> None:
        self._place = place
        self._state = state
        self.kea = Kea(place.tree.kea)
        self._slices = {
            server.name: cut
            for server in place.site.servers
            if (cut := guest_slice(place.site, server)) is not None
        }
        self._known = {station.mac for station in place.site.stations}
        self._file = place.tree.leases
        self._seen: Signature | None = None
        self._looked = 0.0
        self._not_before = 0.0
        self._life: tuple[int, float] | None = None
        self._sent = ""
        self._sent_at = 0.0
        self._by_mac: dict[str, str] = {}
        self._from: object = None
        self._leases_read = False
        #: what is wrong with Kea, in words; empty when all is well
        self.trouble = "not asked yet"
        self.sends = 0

    @property
    def ready(self) -> bool:
        """Kea has the configuration that it should have."""
        return self._sent != "" and not self.trouble

    def learned(self) -> tuple[Guest, ...]:
        """What every server reserves for guests, from all servers' records."""
        held = {
            name: guests.from_json(self._state.value(f"guests/{name}")) for name in self._slices
        }
        return guests.reservations(held, self._slices, self._known)

    def address_of_guest(self, mac: str) -> str | None:
        """The address of a learned guest, or None. Cheap: made anew when the records change."""
        if self._from != self._state.version:
            self._by_mac = {guest.mac: str(guest.address) for guest in self.learned()}
            self._from = self._state.version
        return self._by_mac.get(mac)

    async def step(self, told: Told) -> bool:
        """One look and, when needed, one configuration; true when guests were learned."""
        if time.monotonic() < self._not_before:
            return False
        try:
            changed = await self._learn(told)
            await self._feed(told)
        except KeaError as error:
            self._note(error.message)
            self._seen, self._life = None, None
            self._not_before = time.monotonic() + PAUSE
            return False
        except HostError as error:
            self._note(error.message)
            return False
        self._note("")
        return changed

    def _note(self, trouble: str) -> None:
        if trouble != self.trouble:
            (log.warning if trouble else log.info)("kea", trouble=trouble or "none")
        self.trouble = trouble

    async def _learn(self, told: Told) -> bool:
        now = time.monotonic()
        signature = _signature(self._file, self._place.tree.kea)
        due = now - self._looked >= LOOK
        if signature == self._seen and None not in signature and not due:
            return False
        if due or self._life is None or self._seen is None or signature[1] != self._seen[1]:
            await self._look_at_kea(now)
        self._looked = now
        leases = await self.kea.leases()
        self._seen = signature
        self._leases_read = True
        return self._record(leases, told)

    def _record(self, leases: tuple[Lease, ...], told: Told) -> bool:
        site, me = self._place.site, self._place.me.name
        pool = site.stations_net.guests
        leases = tuple(lease for lease in leases if lease.mac not in self._known)
        now, length = int(time.time()), site.defaults.lease
        own = self._slices.get(me)
        changed = False
        if own is not None:
            renewed = [
                guest
                for peer in site.peers(me)
                for guest in guests.from_json(self._state.value(f"renewed/{peer.name}"))
            ]
            learned = guests.learn(
                guests.from_json(self._state.value(f"guests/{me}")),
                leases,
                renewed,
                own=own,
                lease=length,
                now=now,
                may_forget=told.fresh,
            )
            changed = self._state.write(f"guests/{me}", guests.to_json(learned))
        if pool is not None:
            others = guests.renewals(leases, own=own, pool=pool, lease=length, now=now)
            changed |= self._state.write(f"renewed/{me}", guests.to_json(others))
        return changed

    async def _look_at_kea(self, now: float) -> None:
        """Forget what was sent when Kea has since been started or configured by another."""
        pid, _, reload = await self.kea.life()
        configured = now - reload
        strange = self._life is None or self._life[0] != pid or configured > self._sent_at + 2.0
        if strange and self._sent:
            log.info("kea has another configuration than ours; sending ours again", pid=pid)
            self._sent = ""
        self._life = (pid, configured)

    async def _feed(self, told: Told) -> None:
        config = kea_config(
            self._place.site,
            self._place.me,
            learned=[Learned(guest.mac, IPv4Address(guest.address)) for guest in self.learned()],
            serving=not told.drained,
            newcomers=told.complete and self._leases_read,
        )
        text = canonical(config)
        if text == self._sent or time.monotonic() - self._sent_at < SEND_EVERY:
            return
        await self.kea.command("config-set", config)
        self._sent, self._sent_at = text, time.monotonic()
        self.sends += 1
        log.info("kea configured", reservations=text.count('"hw-address":'))


def _signature(leases: Path, socket: Path) -> Signature:
    """Changes when Kea leased something, or was started; None for what cannot be seen (then Kea
    is asked every time)."""
    return _stat(leases), _stat(socket)


def _stat(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns)
