"""Exchanges runtime records with the peers, and fetches images from them, over mutual TLS.

An agent pulls: when a peer's heartbeat carries a fingerprint that is news, and every ``REFRESH``
seconds in any case. Nothing is pushed, so a peer that hangs costs one waiting task.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import structlog

from ets.agent.heartbeats import Heartbeats
from ets.agent.place import Place, tls
from ets.agent.state import State
from ets.cluster import records
from ets.cluster.records import Record
from ets.errors import AgentError, HostError
from ets.image.publish import Publication
from ets.site.model import Server

log = structlog.get_logger("ets.agent.peers")

STEP = 0.2
REFRESH = 15.0
#: seconds between two pulls for the same reason
SOON = 0.5
#: an answer is no fresher than this many seconds
FRESH = 2 * REFRESH
MAX_ANSWER = 16_000_000
TIMES = httpx.Timeout(3.0, connect=1.5)


@dataclass(slots=True)
class Known:
    """What is known of a peer beside its heartbeats. Times are loop seconds."""

    pulled: float | None = None
    version: str = ""
    condition: str = ""
    tried: float = -1e9
    trouble: str = "not asked yet"
    #: what it said of itself: services, images, alarms
    observed: dict[str, object] = field(default_factory=dict)


class Peers:
    """The peers' records and what they say of themselves."""

    def __init__(
        self,
        place: Place,
        state: State,
        heartbeats: Heartbeats,
        *,
        monotonic: Callable[[], float],
        on_change: Callable[[tuple[str, ...]], None],
    ) -> None:
        """Raises AgentError when the keys cannot be used."""
        self._place = place
        self._state = state
        self._heartbeats = heartbeats
        self._monotonic = monotonic
        self._on_change = on_change
        self._crl: Path | None = None
        self.client = self._connected()
        self.known = {peer.name: Known() for peer in place.peers}

    def url(self, peer: Server) -> str:
        """Where a peer's agent answers its peers."""
        return f"https://{peer.peering}:{self._place.ports.peers}"

    async def revoke(self, crl: Path | None) -> None:
        """From now on ask nobody whose certificate is on this list. Raises AgentError."""
        old, self._crl = self.client, crl
        self.client = self._connected()
        await old.aclose()

    def _connected(self) -> httpx.AsyncClient:
        context = tls(self._place.tree.pki, ssl.PROTOCOL_TLS_CLIENT, self._crl)
        context.check_hostname = True
        return httpx.AsyncClient(
            verify=context, timeout=TIMES, trust_env=False, follow_redirects=False
        )

    async def close(self) -> None:
        """End all connections."""
        await self.client.aclose()

    async def step(self, peer: Server) -> None:
        """Pull from ``peer`` when there is a reason to. Raises AgentError or HostError."""
        known, now = self.known[peer.name], self._monotonic()
        heard = self._heartbeats.last.get(peer.name)
        told = heard.beat.records if heard is not None else ""
        condition = heard.beat.condition if heard is not None else ""
        different = told not in ("", self._state.version, known.version)
        changed = condition != known.condition
        if now - known.tried < (SOON if different or changed else REFRESH):
            return
        known.tried = now
        try:
            await self._pull(peer, known)
            known.condition = condition
        except AgentError as error:
            if known.trouble != error.message:
                log.warning("peer", peer=peer.name, trouble=error.message)
            known.trouble = error.message

    def complete(self) -> bool:
        """True when every peer was asked since the start, or is lost: what we know is then all
        that can be known."""
        lost = {
            name for name, made in self._heartbeats.decisions().items() if made.verdict == "lost"
        }
        return all(k.pulled is not None or name in lost for name, k in self.known.items())

    def fresh(self) -> bool:
        """True when every peer was asked within the last ``FRESH`` seconds."""
        now = self._monotonic()
        return all(k.pulled is not None and now - k.pulled < FRESH for k in self.known.values())

    def publishes(self, peer: str, wanted: Publication) -> bool:
        """Did ``peer`` say that it publishes exactly that image?"""
        told = self.known[peer].observed.get("published")
        entry = told.get(wanted.name) if isinstance(told, dict) else None
        return isinstance(entry, dict) and entry.get("digest") == wanted.digest

    async def get(self, peer: Server, path: str, limit: int) -> bytes:
        """What ``peer`` answers. Raises AgentError when it does not, or says too much."""
        content = bytearray()
        try:
            async with (
                asyncio.timeout(30.0),
                self.client.stream("GET", self.url(peer) + path) as answer,
            ):
                if answer.status_code != 200:
                    raise AgentError(f"{peer.name} answers {answer.status_code} for {path}")
                async for chunk in answer.aiter_raw():
                    content += chunk
                    if len(content) > limit:
                        raise AgentError(f"{peer.name} answers more than {limit} bytes for {path}")
        except (httpx.HTTPError, ssl.SSLError, OSError, TimeoutError) as error:
            raise AgentError(
                f"the agent of {peer.name} does not answer at {self.url(peer)}:"
                f" {str(error) or type(error).__name__}",
                hint=f"on {peer.name}: systemctl status ets-agent",
            ) from error
        return bytes(content)

    async def _pull(self, peer: Server, known: Known) -> None:
        content = await self.get(peer, "/v1/records", MAX_ANSWER)
        incoming, version, observed = _answer(content, peer.name)
        try:
            changed = self._state.absorb(incoming)
        except HostError as error:
            raise AgentError(f"cannot keep what {peer.name} told: {error.message}") from error
        known.pulled, known.version, known.observed = self._monotonic(), version, observed
        known.trouble = ""
        if changed:
            self._on_change(changed)


def _answer(content: bytes, peer: str) -> tuple[list[Record], str, dict[str, object]]:
    """The records, their fingerprint and what ``peer`` says of itself. Raises AgentError."""
    try:
        document = json.loads(content)
        incoming = records.from_json(document["records"])
        name, version, observed = document["server"], document["version"], document["observed"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AgentError(f"{peer} answers something unusable: {error!r:.200}") from error
    if name != peer or not isinstance(observed, dict) or not isinstance(version, str):
        raise AgentError(f"{peer} answers as {name!r:.80}, or not as an agent does")
    return incoming, version[:64], observed
