"""Do this server's services answer? Asked every few seconds, shown in the status, acted on by
nobody: restarting is systemd's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

from ets import services
from ets.agent.place import Place
from ets.plan.desired import Probe

EVERY = 5.0
#: programs cost more than connections: units are asked for every so many rounds, and so are the
#: probes that are programs while they fail; while they are well, much less often
SELDOM, RARELY = 3, 12
DEADLINE = 3.0


@dataclass(frozen=True, slots=True)
class Health:
    """A service: does it answer, and what is wrong if it does not. ``at`` is in seconds since
    1970."""

    name: str
    well: bool
    detail: str
    at: float


class Supervisor:
    """The services of one server."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._round = 0
        self._commands: dict[tuple[str, str], str] = {}
        self._units: dict[str, str] = {}
        self.health: tuple[Health, ...] = ()

    async def step(self) -> None:
        """Ask all services once."""
        number, self._round = self._round, self._round + 1
        site, me = self._place.site, self._place.me
        found = []
        if number % SELDOM == 0:
            units = [unit.name for unit in services.desired(site, me).units if unit.active]
            self._units = await _unit_states(units)
        for service in services.of(site, me):
            wrong = [await self._once(service.NAME, p, number) for p in service.probes(site, me)]
            names = {unit.name for unit in service.desired(site, me).units}
            wrong += [f"{n} is {s}" for n, s in self._units.items() if n in names and s != "active"]
            detail = "; ".join(text for text in wrong if text)
            found.append(Health(service.NAME, not detail, detail, time.time()))
        self.health = tuple(found)

    async def _once(self, service: str, probe: Probe, number: int) -> str:
        """What is wrong with one probe: asked now, or as it was when it is not its turn."""
        if probe.kind != "command":
            return await ask(probe)
        last = self._commands.get((service, probe.name))
        if last is None or number % (SELDOM if last else RARELY) == 0:
            last = self._commands[service, probe.name] = await ask(probe)
        return last


async def ask(probe: Probe) -> str:
    """What is wrong, in words; empty when it answers."""
    where = probe.path or f"{probe.address}:{probe.port}"
    try:
        async with asyncio.timeout(DEADLINE):
            return await _ask(probe)
    except TimeoutError:
        return f"{probe.name}: no answer from {where} within {DEADLINE:g} s"
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        return f"{probe.name}: {where}: {getattr(error, 'strerror', None) or error}"


async def _ask(probe: Probe) -> str:
    if probe.kind == "command":
        status, output = await run(probe.argv)
        said = output.strip().splitlines() or ["no word"]
        return "" if status == 0 else f"{probe.name}: status {status}: {said[-1][-200:]}"
    if probe.kind == "unix":
        _, writer = await asyncio.open_unix_connection(probe.path)
        return await _end(writer)
    reader, writer = await asyncio.open_connection(probe.address, probe.port)
    if probe.kind == "tcp":
        return await _end(writer)
    try:
        request = f"GET {probe.path} HTTP/1.0\r\nHost: {probe.address}\r\n\r\n"
        writer.write(request.encode())
        line = await reader.readline()
    finally:
        await _end(writer)
    words = line.split()
    good = len(words) > 1 and words[1] == str(probe.expect).encode()
    return "" if good else f"{probe.name}: {probe.path} answers {line[:40]!r}, not {probe.expect}"


async def _end(writer: asyncio.StreamWriter) -> str:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""


async def run(argv: tuple[str, ...], limit: int = 65536) -> tuple[int, str]:
    """Run a program without stopping the loop: its status and what it printed first."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output = b""
        while process.stdout and (chunk := await process.stdout.read(limit)):
            output = (output + chunk)[:limit]
        status = await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    return status, output.decode(errors="replace")


async def _unit_states(units: list[str]) -> dict[str, str]:
    """The ActiveState of units; nothing where there is no systemd."""
    if not units:
        return {}
    argv = ("systemctl", "show", "--property=Id,ActiveState", *units)
    try:
        async with asyncio.timeout(DEADLINE):
            status, output = await run(argv)
    except (OSError, TimeoutError):
        return {}
    if status != 0:
        return {}
    states: dict[str, str] = {}
    for block in output.split("\n\n"):
        pairs = dict(line.partition("=")[::2] for line in block.splitlines())
        if "Id" in pairs:
            states[pairs["Id"]] = pairs.get("ActiveState", "unknown")
    return states
