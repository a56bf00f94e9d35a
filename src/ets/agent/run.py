"""``ets agent run``: the process. SIGTERM ends it, SIGHUP reads the site file again."""

from __future__ import annotations

import asyncio
import gc
import signal
import ssl

import structlog

from ets.agent import place as places
from ets.agent.core import Agent
from ets.agent.notify import Notifier
from ets.agent.place import Ports, Tree
from ets.errors import EtsError

log = structlog.get_logger("ets.agent")


def run(tree: Tree | None = None, ports: Ports | None = None) -> None:
    """Run until SIGTERM. Raises EtsError when the agent cannot start."""
    asyncio.run(serve(tree or Tree(), ports or Ports()))


async def serve(tree: Tree, ports: Ports) -> None:
    """As ``run``, in a loop that is there already."""
    notify = Notifier()
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    agent = Agent(places.read(tree, ports))
    await agent.start()
    # What was imported stays for good: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    notify("READY=1", f"STATUS=server {agent.place.me.name} of site {agent.place.site.name}")
    alive = asyncio.create_task(_alive(notify))
    try:
        while not stop.is_set():
            await _either(stop, reload)
            if reload.is_set() and not stop.is_set():
                reload.clear()
                agent = await _again(agent, tree, ports, notify)
    finally:
        notify("STOPPING=1")
        alive.cancel()
        await agent.stop()
        log.info("stopped")


async def _again(old: Agent, tree: Tree, ports: Ports, notify: Notifier) -> Agent:
    """An agent for the site file as it is now; the old one when that file is no good."""
    notify("RELOADING=1")
    try:
        place = places.read(tree, ports)
        places.tls(tree.pki, ssl.PROTOCOL_TLS_CLIENT)
    except EtsError as error:
        log.warning("the site as it was stays", why=error.message)
        old.state.alarm(f"reading the site file again failed: {error.message}")
        notify("READY=1")
        return old
    await old.stop()
    new = Agent(place)
    await new.start()
    notify("READY=1", f"STATUS=server {place.me.name} of site {place.site.name}")
    return new


async def _either(*events: asyncio.Event) -> None:
    """Wait for the first of several events."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _alive(notify: Notifier) -> None:
    """Tell systemd's watchdog that the loop turns."""
    while notify.every is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(notify.every)
