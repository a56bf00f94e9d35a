"""Kea's control socket (Kea 2.2 administrator's manual, §18): one JSON command, one answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from ipaddress import IPv4Address
from pathlib import Path

from ets.cluster.guests import Lease
from ets.cluster.mac import parse
from ets.errors import AgentError

DEADLINE = 5.0
MAX_ANSWER = 64_000_000
#: results of a command: 0 well, 3 well but nothing found
WELL, EMPTY = 0, 3
#: a lease's state while the client may use it
ASSIGNED = 0


class KeaError(AgentError):
    """Kea did not answer, or refused."""


class Kea:
    """Kea behind its socket. Every call opens a connection of its own, as Kea wants it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def command(self, name: str, arguments: object = None) -> dict[str, object]:
        """Run a command; its ``arguments`` (empty when it found nothing).

        Raises KeaError when Kea is away, hangs for ``DEADLINE`` seconds, or refuses.
        """
        request: dict[str, object] = {"command": name}
        if arguments is not None:
            request["arguments"] = arguments
        try:
            async with asyncio.timeout(DEADLINE):
                answer = await self._exchange(json.dumps(request).encode())
        except TimeoutError as error:
            raise KeaError(
                f"Kea did not answer {name} within {DEADLINE:g} s",
                hint="systemctl status kea-dhcp4-server; it may hang or have stopped",
            ) from error
        except (OSError, ValueError, asyncio.LimitOverrunError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise KeaError(
                f"Kea is not to be reached at {self.path}: {why}",
                hint="systemctl status kea-dhcp4-server says why it does not run",
            ) from error
        return _result(name, answer)

    async def leases(self) -> tuple[Lease, ...]:
        """The addresses that clients may use now, by Kea. Raises KeaError."""
        answer = await self.command("lease4-get-all")
        rows = answer.get("leases", [])
        if not isinstance(rows, list):
            raise KeaError("Kea's list of leases is no list")
        return tuple(lease for row in rows if (lease := _lease(row)) is not None)

    async def life(self) -> tuple[int, int, int]:
        """Kea's process id, seconds since it started, seconds since it was last configured."""
        answer = await self.command("status-get")
        pid, uptime, reload = (answer.get(name) for name in ("pid", "uptime", "reload"))
        if not (isinstance(pid, int) and isinstance(uptime, int) and isinstance(reload, int)):
            raise KeaError("Kea's status-get answers something unknown")
        return pid, uptime, reload

    async def _exchange(self, request: bytes) -> object:
        reader, writer = await asyncio.open_unix_connection(str(self.path), limit=2**20)
        try:
            writer.write(request)
            await writer.drain()
            chunks: list[bytes] = []
            size = 0
            while chunk := await reader.read(2**18):
                chunks.append(chunk)
                size += len(chunk)
                if size > MAX_ANSWER:
                    raise ValueError("its answer does not end")
            return json.loads(b"".join(chunks))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _result(name: str, answer: object) -> dict[str, object]:
    if isinstance(answer, list) and answer:
        answer = answer[0]
    if not isinstance(answer, dict) or answer.get("result") not in (WELL, EMPTY):
        text = answer.get("text") if isinstance(answer, dict) else answer
        raise KeaError(
            f"Kea refused {name}: {str(text)[:1000]}",
            hint="run ets check, then ets plan: the configuration may be of another version",
        )
    arguments = answer.get("arguments", {})
    return arguments if isinstance(arguments, dict) else {}


def _lease(row: object) -> Lease | None:
    if not isinstance(row, dict) or row.get("state") != ASSIGNED:
        return None
    mac, address = row.get("hw-address"), row.get("ip-address")
    start, length = row.get("cltt"), row.get("valid-lft")
    if not (isinstance(mac, str) and isinstance(address, str)):
        return None
    if not (isinstance(start, int) and isinstance(length, int)):
        return None
    parsed = parse(mac)
    with contextlib.suppress(ValueError):
        return None if parsed is None else Lease(parsed, IPv4Address(address), start, length)
    return None
