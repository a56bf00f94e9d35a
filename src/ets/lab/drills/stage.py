"""The stage of a drill: a lab with running stations, and everything that is noted about it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from ets.cluster.placement import order
from ets.errors import DeadlinePassed
from ets.host.deadline import Deadline, wait_for
from ets.lab.dhcpload import Outcome
from ets.lab.drills.dhcp import clients
from ets.lab.drills.watch import BlockCounters, ProbeLog, Repeat
from ets.lab.lab import Lab
from ets.lab.station import LabStation
from ets.lab.wire import Capture
from ets.report.reads import Window
from ets.report.timeline import Fault, Moment, Row, Served, served_windows
from ets.services import blocks
from ets.site.model import Server, Station

Say = Callable[[str], None]

_SINCE = (
    "cut -d' ' -f1 /proc/uptime; "
    f"systemctl show --property=ActiveEnterTimestampMonotonic --value {blocks.SOCKET}"
)


@dataclass
class Actor:
    """A station on the stage."""

    known: Station
    machine: LabStation
    kind: str
    probe: ProbeLog
    order: tuple[Server, ...]
    moments: list[Moment] = field(default_factory=list)


class Stage:
    """Watches a lab from ``with`` to its end. Times are seconds since it was made (``now``)."""

    def __init__(self, lab: Lab, say: Say) -> None:
        self.lab = lab
        self.say = say
        self.origin = time.monotonic()
        self.actors: dict[str, Actor] = {}
        self.faults: list[Fault] = []
        self.wire: Capture = lab.dhcp_capture()
        self._counters = BlockCounters(lab.topology.net)
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        self._counters.start()
        with ExitStack() as entered:
            entered.enter_context(self.wire)
            entered.enter_context(Repeat(self._counters.look, 0.5))
            entered.enter_context(Repeat(self._look_at_probes, 0.05))
            self._exit = entered.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit.__exit__(kind, error, trace)

    @property
    def now(self) -> float:
        """Seconds since the stage was made."""
        return time.monotonic() - self.origin

    def switch_on(self, name: str, firmware: str, nic: str) -> Actor:
        """Switch a known station on; returns at once."""
        known = next(station for station in self.lab.site.stations if station.name == name)
        when = self.now
        machine = self.lab.start_station(name, firmware=firmware, nic=nic)
        servers = order(known.mac, self.lab.site.servers)
        kind = f"{'UEFI' if firmware == 'uefi' else 'BIOS'}, {nic}"
        actor = Actor(known, machine, kind, ProbeLog(machine.probe_file), servers)
        actor.moments.append(Moment("on", when))
        self.actors[name] = actor
        return actor

    def wait_reading(self, actors: Iterable[Actor], deadline: float) -> None:
        """Wait until each has a login and its probe reads. Raises DeadlinePassed, LabError."""
        end = Deadline(deadline)
        waiting = list(actors)
        while waiting:
            for actor in list(waiting):
                if self.logged_in(actor) and actor.probe.count > 5:
                    waiting.remove(actor)
                elif end.passed or not actor.machine.running:
                    actor.machine.wait_login(0.1)  # says why
                    raise DeadlinePassed(
                        f"{actor.known.name} reached its login, but its probe reads nothing"
                    )
            time.sleep(0.1)

    def wait_login(self, actor: Actor, deadline: float) -> None:
        """Wait until it offers its login. Raises DeadlinePassed, LabError."""
        end = Deadline(deadline)
        while not self.logged_in(actor):
            if end.passed or not actor.machine.running:
                actor.machine.wait_login(0.1)  # says why
            time.sleep(0.1)

    def logged_in(self, actor: Actor) -> bool:
        """Has it said that it offers a login? Notes the moment when it is seen first."""
        if any(moment.name == "login" for moment in actor.moments):
            return True
        if any(event.get("event") == "login" for event in actor.machine.events()):
            actor.moments.append(Moment("login", self.now))
            took = actor.machine.powered_on and time.monotonic() - actor.machine.powered_on
            self.say(f"{actor.known.name} ({actor.kind}) offers its login after {took:.0f} s")
            return True
        return False

    def busiest(self) -> tuple[Server, Server]:
        """The server that most stations on the stage put first, and the one after it."""
        votes = Counter(actor.order[0].name for actor in self.actors.values())
        ranked = sorted(self.lab.site.servers, key=lambda server: -votes[server.name])
        return ranked[0], ranked[1 % len(ranked)]

    def connected(self, server: Server) -> set[str]:
        """The addresses that have a connection to the server's block export."""
        shown = self.lab.server(server.name).sockets(
            "-Hnt", "state", "established", "( sport = :10809 )"
        )
        return {line.split()[3].rpartition(":")[0] for line in shown}

    def serving_since(self, server: Server) -> float:
        """When its block export began to listen, as its own systemd noted it (in its own uptime,
        which is asked for at the same time). Rather a little early than late. Raises HostError."""
        asked = self.now
        uptime, began = self.lab.server(server.name).host.run(["sh", "-c", _SINCE]).text.split()
        return asked - (float(uptime) - int(began) / 1e6)

    def wait_connected(self, actors: Sequence[Actor], deadline: float) -> float:
        """Wait until each has a connection to every server and gets its blocks from its first
        one; returns how long that took. The latter because a server that was cut off does not
        know for a while that its connections are dead."""
        wanted = {str(actor.known.address) for actor in actors}
        begun = time.monotonic()
        before = [self._from_first(actor) for actor in actors]
        wait_for(
            "every station to read from its first server",
            lambda: all(
                self._from_first(actor) > sent for actor, sent in zip(actors, before, strict=True)
            ),
            Deadline(deadline),
        )
        wait_for(
            "every station to be connected to every server",
            lambda: all(wanted <= self.connected(server) for server in self.lab.site.servers),
            Deadline(deadline),
            every=0.2,
        )
        return time.monotonic() - begun

    def _from_first(self, actor: Actor) -> int:
        return self._counters.now(str(actor.known.address), str(actor.order[0].stations))

    def blocks_to(self, actor: Actor) -> int:
        """Bytes of blocks that all servers have sent to a station."""
        return self._counters.now(str(actor.known.address))

    @contextmanager
    def fault(
        self, name: str, shown: str, targets: Sequence[Server], **options: float
    ) -> Iterator[None]:
        """Inject, and heal at the end of the context. Targets are hit in the given order and
        healed in the reverse one."""
        began = self.now
        hit: list[Server] = []
        try:
            for server in targets:
                hit.append(server)
                self.lab.inject(name, server.name, **options)
            yield
        finally:
            ended = self.now
            for server in reversed(hit):
                self.lab.heal(server.name)
            names = "+".join(server.name for server in targets)
            self.faults.append(Fault(shown, names, Window(began, ended)))

    @contextmanager
    def guests(self, count: int, *, series: int, over: float = 3.0) -> Iterator[GuestLoad]:
        """``count`` DHCP clients that no server knows, switched on over ``over`` seconds."""
        with GuestLoad(self.lab, count, series, over) as load:
            yield load

    def rows(self) -> tuple[Row, ...]:
        """All stations with what was seen of them."""
        names = {str(server.stations): server.name for server in self.lab.site.servers}
        return tuple(self._row(actor, names) for actor in self.actors.values())

    def _row(self, actor: Actor, names: dict[str, str]) -> Row:
        samples = [
            (when, {names[address]: sent for address, sent in counts.items() if address in names})
            for when, counts in self._counters.of(str(actor.known.address), self.origin)
        ]
        served: tuple[Served, ...] = served_windows(samples, least=4096)
        return Row(
            actor.known.name,
            actor.kind,
            tuple(server.name for server in actor.order),
            actor.probe.reads(self.origin),
            served,
            tuple(actor.moments),
        )

    def _look_at_probes(self) -> None:
        for actor in list(self.actors.values()):
            actor.probe.look()


class GuestLoad:
    """A DHCP load that runs in a thread of its own, as a context."""

    def __init__(self, lab: Lab, count: int, series: int, over: float) -> None:
        self._macs = [f"52:54:00:9d:{series:02x}:{index:02x}" for index in range(count)]
        self._lab, self._series, self._over = lab, series, over
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failed: list[Exception] = []
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        self._load = self._exit.enter_context(clients(self._lab, self._macs, self._series))
        self._load.schedule("boot", over=self._over)
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._load.run(0.2)
        except Exception as error:
            self._failed.append(error)

    def finish(self, deadline: float) -> Outcome:
        """Give those who still wait ``deadline`` seconds; what came of it all."""
        end = Deadline(deadline)
        while not end.passed and not self._load.served and not self._failed:
            time.sleep(0.05)
        self._stop.set()
        self._thread.join(5)
        if self._failed:
            raise self._failed[0]
        return self._load.outcome()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(5)
        self._exit.__exit__(kind, error, trace)
