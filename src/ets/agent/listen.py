"""HTTP listeners for several small applications in one loop, on uvicorn's protocol.

uvicorn's own ``Server`` wakes ten times a second for each listener and waits a minute for a TLS
handshake; an agent at rest should sleep, and should not hold what strangers leave half open. So
the protocol is used, and the listening is done here. Bounds: ``MAX_CONNECTIONS`` at a time per
listener, ``IDLE`` seconds for a request to come whole; with TLS, where every connection costs
a quarter of a megabyte before it has said who it is, ``HANDSHAKE`` seconds for it, ``PER_PEER``
connections from each address of a peer and ``STRANGERS`` from all other addresses together.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from ets.agent.heartbeats import free_bind, port_error
from ets.errors import AgentError

MAX_CONNECTIONS = 128
HANDSHAKE = 5.0
PER_PEER = 16
STRANGERS = 8
IDLE = 10.0
MAX_HEADERS = 16384

Admit = Callable[[asyncio.Transport], bool]
Ended = Callable[[], object]


class Bounded(H11Protocol):
    """A connection that is refused when there are too many, and closed when nothing comes."""

    def __init__(self, *, admit: Admit, ended: Ended, **given: Any) -> None:
        super().__init__(**given)
        self._admit = admit
        self._ended = ended
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS or not self._admit(transport):
            transport.abort()
            return
        self._idle = self.loop.call_later(IDLE, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._idle is not None:
            self._idle.cancel()
        super().connection_lost(exc)
        self._ended()

    def _look(self) -> None:
        """Close unless a request is being answered, or uvicorn waits for the next one itself."""
        answering = self.cycle is not None and not self.cycle.response_complete
        body_missing = answering and self.cycle.more_body
        if self.timeout_keep_alive_task is None and (not answering or body_missing):
            self.transport.abort()
            return
        self._idle = self.loop.call_later(IDLE, self._look)


class Listener:
    """One application on one socket."""

    def __init__(self, app: ASGIApp, *, keep_alive: int = 5, admit: Admit = lambda _: True) -> None:
        self._config = Config(
            app,
            http=Bounded,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=keep_alive,
            h11_max_incomplete_event_size=MAX_HEADERS,
        )
        self._config.load()
        self._state = ServerState()
        self._admit = admit
        self._server: asyncio.Server | None = None
        self._gate: Gate | None = None
        self._path: Path | None = None

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._state.connections)

    async def tcp(self, address: str, port: int) -> None:
        """Listen on TCP. Raises AgentError when the port is taken."""
        sock = _bind(address, port)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, sock=sock, backlog=MAX_CONNECTIONS)

    async def tls(
        self, address: str, port: int, context: ssl.SSLContext, peers: Collection[str]
    ) -> None:
        """Listen on TCP with TLS; ``peers`` are the addresses that are expected to come.

        Raises AgentError when the port is taken.
        """
        self._gate = Gate(_bind(address, port), context, frozenset(peers), self._protocol)

    def renew(self, context: ssl.SSLContext) -> None:
        """Take TLS connections under ``context`` from now on, and end those that are there: they
        were admitted under another one. Does nothing without TLS."""
        if self._gate is None:
            return
        self._gate.context = context
        for connection in list(self._state.connections):
            connection.transport.abort()

    async def unix(self, path: Path) -> None:
        """Listen on a unix socket that root alone may use. Raises AgentError when another agent
        listens there, or the directory cannot be written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            await _take(path)
            mask = os.umask(0o177)
            try:
                self._server = await asyncio.get_running_loop().create_unix_server(
                    self._protocol, path=str(path), backlog=MAX_CONNECTIONS
                )
            finally:
                os.umask(mask)
            self._path = path
        except OSError as error:
            raise AgentError(
                f"cannot listen on {path}: {error.strerror}", hint=f"look at ls -ld {path.parent}"
            ) from error

    async def close(self) -> None:
        """Stop listening; requests being answered get half a second."""
        if self._gate is not None:
            await self._gate.close()
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        for connection in list(self._state.connections):
            connection.shutdown()
        for _ in range(10):
            if not self._state.connections:
                break
            await asyncio.sleep(0.05)
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in list(self._state.tasks):
            task.cancel()

    def _protocol(self, ended: Ended = lambda: None) -> asyncio.Protocol:
        return Bounded(
            ended=ended,
            config=self._config,
            server_state=self._state,
            app_state={},
            admit=self._admit,
        )


class Gate:
    """Accepts TLS connections, few at a time from who is no peer."""

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        peers: frozenset[str],
        protocol: Callable[[Ended], asyncio.Protocol],
    ) -> None:
        sock.listen(MAX_CONNECTIONS)
        sock.setblocking(False)
        self._sock = sock
        self.context = context
        self._peers = peers
        self._protocol = protocol
        self._open: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    async def close(self) -> None:
        """Stop accepting, and end what is open."""
        tasks = [self._accepting, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._sock.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, (address, *_) = await loop.sock_accept(self._sock)
            except OSError:  # out of descriptors, or gone before it was accepted
                await asyncio.sleep(0.1)
                continue
            kind = address if address in self._peers else ""
            if self._open[kind] >= (PER_PEER if kind else STRANGERS):
                sock.close()
                continue
            self._open[kind] += 1
            task = asyncio.create_task(self._serve(sock, kind))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket, kind: str) -> None:
        """One connection, from its handshake to its end."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        try:
            with contextlib.suppress(OSError, ssl.SSLError):
                await loop.connect_accepted_socket(
                    lambda: self._protocol(ended.set),
                    sock,
                    ssl=self.context,
                    ssl_handshake_timeout=HANDSHAKE,
                )
                await ended.wait()
        finally:
            self._open[kind] -= 1


async def _take(path: Path) -> None:
    """Remove a socket that a killed agent left; raise AgentError when one listens there."""
    with contextlib.suppress(FileNotFoundError):
        try:
            _, writer = await asyncio.open_unix_connection(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        writer.close()
        raise AgentError(
            f"another agent listens on {path}", hint="systemctl status ets-agent shows it"
        )


def _bind(address: str, port: int) -> socket.socket:
    """A TCP socket on an address that may come later. Raises AgentError when it is taken."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free_bind(sock)
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        raise port_error(error, "TCP", address, port) from error
    return sock


def named_peer(names: Collection[str]) -> Admit:
    """Admits TLS connections whose certificate carries the name of a server of the site."""

    def admit(transport: asyncio.Transport) -> bool:
        certificate = transport.get_extra_info("peercert") or {}
        found = {name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS"}
        return not found.isdisjoint(names)

    return admit
