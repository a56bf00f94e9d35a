"""The agent's three applications: for stations (loopback, behind nginx), for peers (mutual TLS),
for this server's root (unix socket). All read-only but for stations' reports, which nobody obeys.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ets.agent import joins, metrics, status
from ets.agent.stations import MAX_BODY
from ets.audit import exchange
from ets.cluster import records
from ets.cluster.mac import parse
from ets.errors import AuditError
from ets.image.manifest import is_digest

if TYPE_CHECKING:
    from ets.agent.core import Agent

CHUNK = 2**18
#: seconds for a report's body to come
BODY = 5.0
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Api:
    """The handlers, over one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._sending = asyncio.Semaphore(4)

    def for_stations(self) -> Starlette:
        """What nginx passes on, and /metrics for this machine."""
        return Starlette(
            routes=[
                Route("/boot/{file}", self.boot),
                Route("/api/station/report", self.report, methods=["POST"]),
                Route("/api/station/about", self.about),
                Route("/api/station/{mac}", self.station),
                Route("/api/join/{what}", self.join, methods=["POST"]),
                Route("/metrics", self.metrics),
            ]
        )

    def for_peers(self) -> Starlette:
        """What the other servers of the site may ask."""
        return Starlette(
            routes=[
                Route("/v1/status", self.status),
                Route("/v1/records", self.records),
                Route("/v1/audit/facts", self.audit_facts),
                Route("/v1/audit/tree", self.audit_tree, methods=["POST"]),
                Route("/v1/images/{digest}/{file}", self.image),
                Route("/metrics", self.metrics),
            ]
        )

    def for_root(self) -> Starlette:
        """What ``ets status`` on this server asks."""
        return Starlette(
            routes=[
                Route("/v1/status", self.status),
                Route("/v1/joins", self.joins),
                Route("/metrics", self.metrics),
            ]
        )

    async def boot(self, request: Request) -> Response:
        """A boot script; 404 for a name that is no MAC."""
        agent = self._agent
        mac = agent.boot.mac_of(request.path_params["file"])
        if mac is None:
            agent.boot_counts["not a MAC"] += 1
            return PlainTextResponse("no such script\n", 404)
        agent.boot_counts["known" if agent.place.site.station(mac) else "stranger"] += 1
        return PlainTextResponse(agent.boot.script(mac, agent.now()))

    async def report(self, request: Request) -> Response:
        """A station's report: 204 when kept, else why not."""
        source = _source(request)
        stations = self._agent.stations
        if not stations.allow(source):
            return PlainTextResponse("too many\n", 429, headers={"retry-after": "5"})
        try:
            async with asyncio.timeout(BODY):
                body = await _body(request)
        except (TimeoutError, ClientDisconnect):
            return PlainTextResponse("incomplete\n", 408)
        why = stations.take(body, source)
        if why is None:
            return Response(status_code=204)
        return PlainTextResponse(why + "\n", 413 if why == "too long" else 400)

    async def about(self, _: Request) -> Response:
        """Which site and server this is."""
        place = self._agent.place
        return JSONResponse({"site": place.site.name, "server": place.me.name})

    async def station(self, request: Request) -> Response:
        """A station's servers in order, and its image: what its boot script says."""
        agent = self._agent
        mac = parse(request.path_params["mac"])
        if mac is None:
            return PlainTextResponse("not a MAC\n", 404)
        order = [str(server.stations) for server in agent.boot.order(mac, agent.now())]
        known = agent.place.site.station(mac)
        image = known.image if known else agent.place.site.defaults.image
        served = agent.images.boot_images().get(image)
        digest = None if served is None else served.digest
        return JSONResponse(
            {
                "mac": mac,
                "known": known is not None,
                "servers": order,
                "image": image,
                "digest": digest,
            }
        )

    async def join(self, request: Request) -> Response:
        """A newcomer's question: what is open, the terms, may I, and how far it is."""
        what = request.path_params["what"]
        if what not in {"open", "hello", "ask", "report"}:
            return PlainTextResponse("no such question\n", 404)
        try:
            async with asyncio.timeout(BODY):
                body = await _body(request, joins.MAX_BODY)
            answer = await self._agent.desk.answer(what, body, _source(request))
        except (TimeoutError, ClientDisconnect):
            return PlainTextResponse("incomplete\n", 408)
        except joins.Refused as refused:
            return PlainTextResponse(refused.text + "\n", refused.status)
        return JSONResponse(answer)

    async def joins(self, _: Request) -> Response:
        """The joins of this server, and who asks."""
        return JSONResponse(await asyncio.to_thread(self._agent.desk.document))

    async def metrics(self, _: Request) -> Response:
        """Prometheus metrics."""
        return Response(metrics.render(status.document(self._agent)), media_type=PROMETHEUS)

    async def status(self, _: Request) -> Response:
        """The status document."""
        return JSONResponse(status.document(self._agent))

    async def records(self, _: Request) -> Response:
        """The runtime records, and what this server says of itself."""
        agent = self._agent
        content = {
            "server": agent.place.me.name,
            "version": agent.state.version,
            "records": records.to_json(agent.state.held),
            "observed": status.observed(agent),
        }
        return Response(json.dumps(content), media_type="application/json")

    async def audit_facts(self, _: Request) -> Response:
        """This server's inventory."""
        try:
            return Response(await self._agent.audits.facts(), media_type="application/json")
        except AuditError as error:
            return PlainTextResponse(error.message + "\n", 503)

    async def audit_tree(self, request: Request) -> Response:
        """Nodes of this server's hash tree."""
        try:
            async with asyncio.timeout(BODY):
                question = exchange.asked(await _body(request, exchange.MAX_QUESTION))
        except (TimeoutError, ClientDisconnect):
            return PlainTextResponse("incomplete\n", 408)
        except AuditError as error:
            return PlainTextResponse(error.message + "\n", 400)
        try:
            return Response(await self._agent.audits.tree(question))
        except AuditError as error:
            return PlainTextResponse(error.message + "\n", 503)

    async def image(self, request: Request) -> Response:
        """A file of an image, whole. The receiver verifies it."""
        digest, file = request.path_params["digest"], request.path_params["file"]
        if not is_digest(digest):
            return PlainTextResponse("no such image\n", 404)
        path = await asyncio.to_thread(self._agent.images.file, digest, file)
        if path is None:
            return PlainTextResponse("no such image\n", 404)
        return StreamingResponse(self._chunks(str(path)), media_type="application/octet-stream")

    async def _chunks(self, path: str) -> AsyncIterator[bytes]:
        async with self._sending:
            file = await asyncio.to_thread(open, path, "rb")
            try:
                while chunk := await asyncio.to_thread(file.read, CHUNK):
                    yield chunk
            finally:
                file.close()


async def _body(request: Request, limit: int = MAX_BODY) -> bytes:
    """The body; when it is longer than ``limit``, a little more than that of it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            break
    return bytes(body)


def _source(request: Request) -> str:
    """The station's address: nginx's word for it, for only this machine reaches the listener."""
    told = request.headers.get("x-real-ip", "")
    try:
        return str(IPv4Address(told))
    except AddressValueError:
        return request.client.host if request.client else ""
