"""Says "I am here" on every network twice a second, and hears the peers say it.

A socket is bound to each of this server's addresses, also before the address is there
(IP_FREEBIND): a cable that comes later is no error. Whatever is not a heartbeat of a peer is
counted by reason and dropped; nothing is kept of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ets.agent.place import Place
from ets.cluster.heartbeat import (
    MAC_BYTES,
    MAX_BODY,
    Gate,
    Heartbeat,
    Link,
    Refused,
    decode,
    encode,
)
from ets.cluster.view import Decision, View, decide, links
from ets.errors import AgentError
from ets.site.model import Server

#: datagrams read in one go before the loop gets its turn
BURST = 64


@dataclass(frozen=True, slots=True)
class News:
    """What goes into the next heartbeat beside the sender's name."""

    records: str
    condition: str
    load: float


@dataclass(slots=True)
class Heard:
    """The last heartbeat of a peer, when it came (loop time) and how far its clock is off (s)."""

    beat: Heartbeat
    at: float
    skew: float


class Heartbeats:
    """The sockets, what was heard, and the verdicts."""

    def __init__(
        self,
        place: Place,
        start: int,
        *,
        news: Callable[[], News],
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._place = place
        self._start = start
        self._counter = 0
        self._news = news
        self._monotonic = monotonic
        self._wall = wall
        self._gate = Gate([peer.name for peer in place.peers])
        self._sockets: dict[Link, socket.socket] = {}
        self._since = monotonic()
        self._at: dict[str, dict[Link, float | None]] = {
            peer.name: dict.fromkeys(links(place.me, peer)) for peer in place.peers
        }
        self.last: dict[str, Heard] = {}
        #: datagrams by what became of them: accepted, sent, or why refused
        self.counts: Counter[str] = Counter()

    def open(self) -> None:
        """Bind and listen. Raises AgentError when a port is taken."""
        loop = asyncio.get_running_loop()
        for link in ("lan", "stations"):
            address = self._place.me.addresses.get(link)
            if address is None:
                continue
            sock = bind_udp(str(address), self._place.ports.heartbeat)
            self._sockets[link] = sock
            loop.add_reader(sock.fileno(), self._read, link, sock)

    def close(self) -> None:
        """Stop listening."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets.values():
            loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()

    def beat(self) -> None:
        """Send one heartbeat to every peer on every network; what cannot be sent is counted."""
        news = self._news()
        for link, sock in self._sockets.items():
            self._counter += 1
            beat = Heartbeat(
                server=self._place.me.name,
                link=link,
                start=self._start,
                counter=self._counter,
                site=self._place.site.digest,
                records=news.records,
                condition=news.condition,
                load=round(news.load, 2),
                wall=round(self._wall(), 3),
            )
            datagram = encode(beat, self._place.secret)
            for peer in self._place.peers:
                self._send(sock, datagram, peer, link)

    def decisions(self) -> dict[str, Decision]:
        """The verdict on every peer, now."""
        now = self._monotonic()
        return {
            peer: decide(View(peer, heard, self._since), now) for peer, heard in self._at.items()
        }

    def ages(self, peer: str) -> dict[Link, float | None]:
        """Seconds since ``peer`` was heard, by network; None where it never was."""
        now = self._monotonic()
        return {
            link: None if at is None else now - at for link, at in self._at.get(peer, {}).items()
        }

    def _send(self, sock: socket.socket, datagram: bytes, peer: Server, link: Link) -> None:
        address = peer.addresses.get(link)
        if address is None:
            return
        try:
            sock.sendto(datagram, (str(address), self._place.ports.heartbeat))
            self.counts["sent"] += 1
        except OSError:
            self.counts["not sent"] += 1

    def _read(self, link: Link, sock: socket.socket) -> None:
        for _ in range(BURST):
            try:
                datagram = sock.recv(MAC_BYTES + MAX_BODY + 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # a peer's port is closed: said by ICMP, and heard of as silence
                self.counts["refused by peer"] += 1
                continue
            try:
                beat = decode(datagram, self._place.secret)
                self._gate.admit(beat, link)
            except Refused as reason:
                self.counts[str(reason)] += 1
                continue
            self._accept(beat, link)

    def _accept(self, beat: Heartbeat, link: Link) -> None:
        self.counts["accepted"] += 1
        now = self._monotonic()
        with contextlib.suppress(KeyError):
            self._at[beat.server][link] = now
            self.last[beat.server] = Heard(beat, now, beat.wall - self._wall())


def bind_udp(address: str, port: int) -> socket.socket:
    """A non-blocking UDP socket on an address that may come later.

    Raises AgentError when the port is taken.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        free_bind(sock)
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        raise port_error(error, "UDP", address, port) from error
    return sock


def free_bind(sock: socket.socket) -> None:
    """Allow binding to an address that this machine does not have yet (ip(7), IP_FREEBIND)."""
    sock.setsockopt(socket.SOL_IP, 15, 1)


def port_error(error: OSError, kind: str, address: str, port: int) -> AgentError:
    """What to say when a port cannot be had."""
    return AgentError(
        f"cannot listen on {kind} {address}:{port}: {error.strerror}",
        hint=f"see who has it: ss -lnp 'sport = :{port}' (is another agent running?)",
    )
