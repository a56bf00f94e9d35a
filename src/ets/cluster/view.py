"""Which peers are alive: decided from what was heard, never from what a peer says of another.

Invariant (a wrong verdict costs only balance): the verdict moves a server to the end of the lists
that stations are given, and shows in the status. It removes nobody from a list, takes over
nothing, and stops nothing; so two servers may disagree for as long as they like.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from ets.cluster.heartbeat import LINKS, Link
from ets.cluster.placement import Weighted, order
from ets.site.model import Server

#: seconds between two heartbeats, and how many must be missed on every network
BEAT = 0.5
MISSED = 4
LOST_AFTER = BEAT * MISSED

Verdict = Literal["alive", "lost", "unknown"]


@dataclass(frozen=True, slots=True)
class View:
    """What one server has heard of one peer. Times are seconds of one monotonic clock.

    ``heard`` has an entry for every network that both are on: when the last heartbeat came, None
    when none did. ``since`` is when listening began.
    """

    peer: str
    heard: Mapping[Link, float | None]
    since: float


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict on one peer, the networks on which it is heard, and why, in words.

    ``age`` is the seconds since it was last heard anywhere, None when it never was.
    """

    peer: str
    verdict: Verdict
    links: tuple[Link, ...]
    age: float | None
    reason: str


def links(mine: Server, peer: Server) -> tuple[Link, ...]:
    """The networks on which the two hear each other."""
    return tuple(link for link in LINKS if link in mine.addresses and link in peer.addresses)


def decide(view: View, now: float) -> Decision:
    """Alive when heard on any network within ``LOST_AFTER`` seconds; lost when listened for that
    long and heard on none; unknown before."""
    ages = {link: None if at is None else max(0.0, now - at) for link, at in view.heard.items()}
    heard = [age for age in ages.values() if age is not None]
    age = min(heard, default=None)
    good = tuple(link for link in LINKS if (a := ages.get(link)) is not None and a < LOST_AFTER)
    bad = tuple(link for link in LINKS if link in ages and link not in good)
    listening = max(0.0, now - view.since)
    if good:
        reason = f"alive on {_and(good)}"
        if bad:
            reason += "; " + ", ".join(_silence(link, ages[link]) for link in bad)
        return Decision(view.peer, "alive", good, age, reason)
    if listening < LOST_AFTER:
        reason = f"not heard yet, listening for {listening:.1f} s"
        return Decision(view.peer, "unknown", (), age, reason)
    told = ", ".join(_silence(link, ages[link]) for link in bad) or "no network in common"
    return Decision(view.peer, "lost", (), age, f"lost: {told}")


def _silence(link: Link, age: float | None) -> str:
    if age is None:
        return f"nothing on {link} ever"
    return f"nothing on {link} for {age:.1f} s"


def _and(names: Iterable[str]) -> str:
    return " and ".join(names)


S = TypeVar("S", bound=Weighted)


def boot_order(
    mac: str, servers: Collection[S], *, drained: Collection[str], lost: Collection[str]
) -> tuple[S, ...]:
    """The servers that the station ``mac`` is told, in its order.

    All servers in service, the lost ones last but never left out: who is lost here may be well
    there, or back in a second. Where all are drained, all are listed: a station that cannot boot
    helps nobody.
    """
    serving = [server for server in servers if server.name not in drained] or list(servers)
    placed = order(mac, serving)
    return tuple(sorted(placed, key=lambda server: server.name in lost))
