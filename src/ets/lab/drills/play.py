"""Plays the pair's script on a stage, and notes what the verdict needs."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field

from ets.errors import DeadlinePassed
from ets.host.deadline import Deadline, wait_for
from ets.lab.dhcpload import Outcome
from ets.lab.drills.pair import AWAY, BOOTING, KILL, LATE, RUNNING, STATIONS, Step
from ets.lab.drills.reports import wrong_blocks
from ets.lab.drills.stage import Actor, Stage

#: seconds; under TCG, with both processors shared by four stations
BOOT = 600.0
#: to be connected again after a server came back
AGAIN = 15.0
#: requests are certainly under way when a server is killed after having stood still so long
STANDS_STILL = 0.1
#: bytes of blocks after which a station has found, mounted and begun to use its root
HAS_ROOT = 2_000_000
#: what a client that nobody has answered yet may still take: the longest pause of its timers
DHCP_PATIENCE = 15.0


@dataclass
class Notes:
    """What was noted while the script was played. Times are the stage's.

    ``began`` and ``ended`` are the moments of each step by its shown name, ``noticed`` the wrong
    blocks that the stations refused, ``returned`` the first return after all were away.
    """

    running: tuple[str, ...] = ()
    began: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    noticed: int = 0
    guests: dict[str, Outcome] = field(default_factory=dict)
    quiet_dhcp: list[float] = field(default_factory=list)
    late_dhcp: float | None = None
    late_root: float | None = None
    late_booted: float | None = None
    returned: float | None = None
    shown_from: float = 0.0
    over: float = 0.0


class Play:
    """The script on a stage. ``run`` plays it; ``notes`` are complete even when it breaks off."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.notes = Notes()
        self._late: Actor | None = None
        self._running: list[Actor] = []
        self._series = 0

    def run(self, stations: int = len(STATIONS)) -> None:
        """Switch the stations on, wait for them, and play all steps. Raises EtsError."""
        stage = self.stage
        self._running = [stage.switch_on(*station) for station in STATIONS[:stations]]
        self.notes.running = tuple(actor.known.name for actor in self._running)
        self.notes.quiet_dhcp = [self._answered(actor) for actor in self._running]
        for step in BOOTING:
            self._step(step)
        stage.wait_reading(self._running, BOOT)
        stage.wait_connected(self._running, 4 * AGAIN)
        self.notes.shown_from = stage.now
        time.sleep(2)  # what undisturbed reading looks like
        for step in RUNNING:
            self._step(step)
            self._settle(step)
        self._late_offers_login()
        time.sleep(1)
        self.notes.over = stage.now
        # the stations report every 5 s; the damaged image was the only source of wrong blocks
        self.notes.noticed = wrong_blocks(stage.lab)

    def _step(self, step: Step) -> None:
        first, second = self.stage.busiest()
        targets = {"first": (first,), "second": (second,), "all": (second, first)}[step.target]
        names = " and ".join(server.name for server in targets)
        self.stage.say(step.says.format(target=names))
        with ExitStack() as during:
            load = None
            if step.guests:
                self._series += 1
                load = during.enter_context(self.stage.guests(step.guests, series=self._series))
            self.notes.began[step.shown] = self.stage.now
            if step is KILL:
                self._late = self.stage.switch_on(*LATE)
            options = {"in_flight": STANDS_STILL} if step is KILL else {}
            with self.stage.fault(step.fault, step.shown, targets, **options):
                time.sleep(step.lasts)
                if step is KILL:
                    self._late_has_root()
            if load is not None:
                self.notes.guests[step.shown] = load.finish(DHCP_PATIENCE)
        if step is AWAY:
            self.notes.returned = min(map(self.stage.serving_since, targets))
        self.notes.ended[step.shown] = self.stage.now

    def _settle(self, step: Step) -> None:
        """All stations are connected to all servers again; that is watched as part of the step."""
        try:
            took = self.stage.wait_connected(self._running, AGAIN)
            self.stage.say(f"mended; after {took:.1f} s all stations are connected to both again")
        except DeadlinePassed as error:
            # no promise, but what comes next may show it: then the reason stands here
            self.stage.say(f"mended, but {error.message}")
        time.sleep(0.5)
        self.notes.ended[step.shown] = self.stage.now

    def _answered(self, actor: Actor) -> float:
        """How long the station waited for its first DHCP answer, as soon as it has it."""
        return wait_for(
            f"a DHCP answer for {actor.known.name}",
            lambda: self.stage.wire.first_answer(actor.known.mac),
            Deadline(BOOT),
        )

    def _late_has_root(self) -> None:
        """The station that was switched on at the kill reads its root, while the server is still
        dead: address, boot script, kernel and root are the survivor's."""
        late = self._late
        if late is None:
            return
        wait_for(
            f"{late.known.name} to read its root",
            lambda: self.stage.blocks_to(late) > HAS_ROOT,
            Deadline(BOOT),
        )
        self.notes.late_root = self.stage.now
        self.notes.late_dhcp = self.stage.wire.first_answer(late.known.mac)
        self.stage.say(f"{late.known.name} has its root from the survivor alone and boots on")

    def _late_offers_login(self) -> None:
        late = self._late
        if late is not None:
            self.stage.wait_login(late, BOOT)
            self.notes.late_booted = self.stage.now
