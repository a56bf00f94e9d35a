"""The script of the demo: what happens to a site with two servers, in which order.

``first`` is the server that most running stations use, ``second`` the other one. A step lasts as
long as its window; then the server is healed, and the next step begins when every running station
is connected to every server again. At the kill one more station is switched on: its server
returns only when that station has its root from the survivor, and it boots on through whatever
follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Target = Literal["first", "second", "all"]


@dataclass(frozen=True, slots=True)
class Step:
    """One fault. ``fault`` is its name in ``ets.lab.faults``, ``shown`` what a person calls it.

    ``promise`` is judged over the stretch from the fault's beginning to the next fault's:
    ``stall``: no read takes longer than ``limit`` seconds; ``slow``: 99 % of the reads do not;
    ``right``: nothing wrong is read; ``patient``: no read fails, and ``limit`` seconds after the
    first return all read again; ``addresses``: only what DHCP promises. ``guests`` so many DHCP
    clients that no server knows are switched on with the fault.
    """

    fault: str
    shown: str
    target: Target
    lasts: float
    says: str
    promise: Literal["stall", "slow", "right", "patient", "addresses"]
    limit: float = 0.0
    guests: int = 0


KILL = Step(
    "kill", "kill -9", "first", 5, "kill -9 of everything on {target}, with reads under way",
    "stall", 0.3, guests=40,
)  # fmt: skip
POWER_OFF = Step(
    "power-off", "power-off", "second", 4, "{target} loses its power: nobody says goodbye",
    "stall", 1.0,
)  # fmt: skip
CABLE = Step("cable", "cable", "first", 4, "somebody pulls {target}'s cable", "stall", 1.0)
HANG = Step("hang", "hang", "second", 4, "{target} hangs: all its programs stop", "stall", 1.0)
SLOW = Step("slow", "slow", "first", 6, "{target} takes 1.5 s longer for every read", "slow", 0.5)
CORRUPT = Step("corrupt-block", "bad image", "second", 5, "{target}'s image is damaged", "right")
PARTITION = Step(
    "partition", "partition", "first", 4,
    "meanwhile the servers cannot hear each other; stations hear both",
    "addresses", guests=40,
)  # fmt: skip
AWAY = Step("power-off", "all away", "all", 20, "{target} are away", "patient", 2.0)

#: while the stations boot, which takes the longest and must not care
BOOTING = (PARTITION,)
#: when all of them run
RUNNING = (KILL, POWER_OFF, CABLE, HANG, SLOW, CORRUPT, AWAY)

#: name, firmware and network card of the stations that are there from the beginning …
STATIONS = (
    ("ws01", "bios", "virtio"),
    ("ws02", "bios", "virtio"),
    ("ws03", "bios", "virtio"),
    ("ws04", "uefi", "virtio"),
)
#: … and of the one that is switched on at the moment of the kill
LATE = ("ws05", "bios", "virtio")
