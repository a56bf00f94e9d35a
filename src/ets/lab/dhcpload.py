"""Many DHCP clients in one process: raw frames over one interface, a MAC per client.

Each client behaves as a boot ROM does: DISCOVER, the first OFFER, REQUEST, ACK; without an answer
it asks again after 1, 2, 4, 8, 10, 10 … seconds (iPXE's timers), and begins anew when a server
that made an offer does not acknowledge it. A bound client can renew (unicast, RFC 2131 §4.4.5),
rebind (broadcast) or boot again. ``Load`` counts what a site must never show: one address with
two clients, and clients that nobody served.
"""

from __future__ import annotations

import errno
import random
import select
import socket
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Literal

from ets.errors import LabError
from ets.lab.dhcpwire import (
    ACK,
    BROADCAST,
    DISCOVER,
    NAK,
    NOBODY,
    OFFER,
    REQUEST,
    Answer,
    frame,
    message,
    packet_socket,
    parse,
)

#: seconds until the next try, the last one repeated (iPXE, src/config/dhcp.h)
BACKOFF = (1.0, 2.0, 4.0, 8.0, 10.0)
#: an offer that is not acknowledged after this many requests is given up
REQUESTS = 2
State = Literal["idle", "selecting", "requesting", "bound", "renewing", "rebinding"]


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a client waited for what it wanted (``boot``, ``renew``, ``rebind``), and who
    served it in the end. ``offer`` is the time to the first offer (boot only)."""

    mac: bytes
    kind: str
    seconds: float
    server: IPv4Address
    offer: float = 0.0


@dataclass
class Client:
    """One client: what it holds and what it waits for. Pure but for its ``random``: the caller
    gives the time (seconds) and sends what comes back."""

    mac: bytes
    random: random.Random
    state: State = "idle"
    address: IPv4Address = NOBODY
    server: IPv4Address = NOBODY
    server_mac: bytes = BROADCAST
    due: float = float("inf")
    waits: list[Wait] = field(default_factory=list)
    refused: int = 0
    _want: str = ""
    _since: float = 0.0
    _tries: int = 0
    _xid: int = 0
    _offered: float = 0.0
    _offer: Answer | None = None

    @property
    def waiting(self) -> bool:
        """Does it want something that it has not got?"""
        return self.state not in {"idle", "bound"}

    def boot(self, now: float) -> bytes:
        """Switched on (again): it knows no address."""
        self._want, self._since, self._offered = "boot", now, 0.0
        self.address = NOBODY
        return self._discover(now)

    def renew(self, now: float) -> bytes:
        """Ask the server that gave the address, by unicast."""
        return self._extend("renewing", "renew", now)

    def rebind(self, now: float) -> bytes:
        """Ask every server, by broadcast, to let it keep its address."""
        return self._extend("rebinding", "rebind", now)

    def tick(self, now: float) -> bytes | None:
        """What to send again now; None when nothing is due."""
        if now < self.due or not self.waiting:
            return None
        if self.state == "requesting" and self._tries >= REQUESTS:
            return self._discover(now)
        return self._again(now)

    def receive(self, now: float, answer: Answer) -> bytes | None:
        """Take a server's answer; returns what to send next."""
        if answer.xid != self._xid:
            return None
        if answer.kind == OFFER and self.state == "selecting":
            self._offered = self._offered or now - self._since
            self._offer = answer
            self.state, self._tries = "requesting", 0
            return self._again(now)
        if answer.kind == ACK and self.state in {"requesting", "renewing", "rebinding"}:
            self.address, self.server = answer.address, answer.server
            self.server_mac = answer.server_mac
            self.state, self.due = "bound", float("inf")
            self.waits.append(
                Wait(self.mac, self._want, now - self._since, answer.server, self._offered)
            )
        elif answer.kind == NAK and self.state in {"requesting", "renewing", "rebinding"}:
            self.refused += 1
            self.address = NOBODY
            return self._discover(now)
        return None

    def _extend(self, state: State, want: str, now: float) -> bytes:
        self._want, self._since, self._tries, self.state = want, now, 0, state
        self._xid = self.random.getrandbits(32)
        return self._again(now)

    def _discover(self, now: float) -> bytes:
        self.state, self._tries, self._offer = "selecting", 0, None
        self._xid = self.random.getrandbits(32)
        return self._again(now)

    def _again(self, now: float) -> bytes:
        pause = BACKOFF[min(self._tries, len(BACKOFF) - 1)]
        self.due = now + pause * self.random.uniform(0.9, 1.1)
        self._tries += 1
        secs = min(65535, int(now - self._since))
        if self.state == "selecting":
            return frame(message(DISCOVER, xid=self._xid, mac=self.mac, secs=secs), mac=self.mac)
        if self.state == "requesting" and self._offer is not None:
            asked = [(50, self._offer.address.packed), (54, self._offer.server.packed)]
            said = message(REQUEST, xid=self._xid, mac=self.mac, secs=secs, options=asked)
            return frame(said, mac=self.mac)
        said = message(REQUEST, xid=self._xid, mac=self.mac, secs=secs, holds=self.address)
        if self.state == "renewing":
            return frame(
                said, mac=self.mac, to_mac=self.server_mac, source=self.address, to=self.server
            )
        return frame(said, mac=self.mac, source=self.address)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a load. ``duplicates`` names each address and the MACs that held it at once;
    ``unserved`` the clients that still waited at the end."""

    clients: int
    waits: tuple[Wait, ...]
    unserved: tuple[str, ...]
    duplicates: tuple[tuple[IPv4Address, tuple[str, ...]], ...]
    refused: int

    @property
    def worst(self) -> float:
        """The longest wait of a client that was served in the end, in seconds; 0 without any."""
        return max((wait.seconds for wait in self.waits), default=0.0)

    @property
    def shares(self) -> dict[IPv4Address, int]:
        """How many times each server served."""
        return dict(Counter(wait.server for wait in self.waits))


class Load:
    """Runs clients over an interface; ``netns`` is the name of the namespace it lies in.

    Use as a context manager. Raises LabError when the interface cannot be opened.
    """

    def __init__(
        self, macs: Sequence[str], interface: str, *, netns: str | None = None, seed: int = 1
    ) -> None:
        self.random = random.Random(seed)  # noqa: S311 - transaction ids of a test load
        self.clients = {
            raw: Client(raw, self.random)
            for raw in (bytes.fromhex(mac.replace(":", "")) for mac in macs)
        }
        self._interface, self._netns = interface, netns
        self._socket: socket.socket | None = None
        self._later: list[tuple[float, str, bytes]] = []
        self._twice: dict[IPv4Address, set[bytes]] = {}

    def __enter__(self) -> Load:
        self._socket = packet_socket(self._interface, self._netns)
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def schedule(self, what: str, *, over: float, macs: Iterable[bytes] | None = None) -> None:
        """Let the clients (all, or ``macs``) ``boot``, ``renew`` or ``rebind``, spread evenly
        over the next ``over`` seconds."""
        chosen = list(self.clients if macs is None else macs)
        now = time.monotonic()
        self._later += [
            (now + over * index / max(1, len(chosen)), what, mac)
            for index, mac in enumerate(chosen)
        ]
        self._later.sort()

    def run(self, seconds: float, *, until_served: bool = False) -> None:
        """Send and receive for ``seconds``; with ``until_served`` end as soon as nobody waits."""
        if self._socket is None:
            raise LabError("a DHCP load runs only inside its with block")
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self._begin(now)
            for client in self.clients.values():
                if (again := client.tick(now)) is not None:
                    self._send(again)
            self._receive(min(0.02, end - now))
            if until_served and self.served:
                return

    @property
    def waiting(self) -> list[Client]:
        """The clients that want something and have not got it."""
        return [client for client in self.clients.values() if client.waiting]

    @property
    def served(self) -> bool:
        """Has everything that was scheduled been asked for and answered?"""
        return not self._later and not self.waiting

    def outcome(self) -> Outcome:
        """What came of it so far."""
        clients = self.clients.values()
        never = [client for client in clients if client.waiting]
        duplicates = {
            address: tuple(sorted(mac.hex(":") for mac in macs))
            for address, macs in self._twice.items()
        }
        return Outcome(
            len(self.clients),
            tuple(wait for client in clients for wait in client.waits),
            tuple(client.mac.hex(":") for client in never),
            tuple(sorted(duplicates.items())),
            sum(client.refused for client in clients),
        )

    def _begin(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            _, what, mac = self._later[0]
            client = self.clients[mac]
            if what == "boot":
                self._send(client.boot(now))
            elif client.state == "bound":
                self._send(client.renew(now) if what == "renew" else client.rebind(now))
            del self._later[0]  # only now: ``served`` may be asked by another thread

    def _send(self, data: bytes) -> None:
        if self._socket is not None:
            try:
                self._socket.send(data)
            except OSError as error:
                # a full queue or a link that is down for a moment: the client asks again
                if error.errno not in {errno.EAGAIN, errno.ENETDOWN, errno.ENOBUFS}:
                    raise LabError(f"cannot send on {self._interface}: {error.strerror}") from error

    def _receive(self, wait: float) -> None:
        wire = self._socket
        while wire is not None and select.select([wire], [], [], max(0.0, wait))[0]:
            wait = 0.0
            try:
                answer = parse(wire.recv(4096))
            except OSError:
                return  # the link went down under the read; frames are lost as on a real wire
            client = self.clients.get(answer.mac) if answer else None
            if answer is None or client is None:
                continue
            before = len(client.waits)
            if (reply := client.receive(time.monotonic(), answer)) is not None:
                self._send(reply)
            if len(client.waits) > before:
                self._hold(client)

    def _hold(self, client: Client) -> None:
        """A client was given an address: note everybody else that holds it now."""
        for other in self.clients.values():
            if other is not client and other.address == client.address:
                pair = self._twice.setdefault(client.address, set())
                pair.update((client.mac, other.mac))
