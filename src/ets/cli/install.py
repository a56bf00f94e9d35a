"""``ets install``: what the installer's image runs. Makes this machine a server."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from ets.clone.install import Install, wishes
from ets.errors import EtsError, InputError
from ets.host.local import LocalHost
from ets.host.run import run

_CMDLINE = Path("/proc/cmdline")
#: a service of the installer's image and of no server
_UNIT = Path("/usr/lib/systemd/system/ets-install.service")
_EVENTS = Path("/dev/virtio-ports/ets.event")
#: seconds between two tries, when the primary is away or somebody has to do something
_AGAIN = 15.0
_WIDTH = 78
_BANNER = """
ETS installer: this machine becomes a server, as a copy of a running one.
Its disks are only written to after it was let in, and never when they hold data, unless
the join was opened with --erase.
"""


class ConsoleScreen:
    """Lines on the consoles, the latest step in one that changes, and the same as events for
    whoever watches a virtual machine."""

    def __init__(self) -> None:
        self._shown = ""
        self._told = 0.0

    def say(self, text: str) -> None:
        """A line worth keeping."""
        self._clear()
        click.echo(text)
        self.event("say", text=text)

    def progress(self, text: str, done: float | None) -> None:
        """One line that changes, at most four times a second."""
        now = time.monotonic()
        if now - self._told < 0.25:
            return
        self._told = now
        share = "" if done is None else f"{done:4.0%}  "
        line = f"{share}{text}"[:_WIDTH]
        click.echo(f"\r{line:{len(self._shown)}}", nl=False)
        self._shown = line
        self.event("progress", text=text, done=done)

    def token(self) -> str | None:
        """The one question."""
        self._clear()
        click.echo(
            "\nThe join token that `ets join` shows on the primary; or only Enter, to be let in"
            "\nfrom there by the code that appears here then."
        )
        self.event("question", text="token")
        typed: str = click.prompt("token", default="", show_default=False, prompt_suffix="> ")
        return typed.strip() or None

    def event(self, event: str, **what: object) -> None:
        """A line of JSON; nothing where nobody listens."""
        line = json.dumps({"event": event, **what, "wall": time.time()})
        try:
            with _EVENTS.open("w") as port:
                port.write(line + "\n")
        except OSError:
            return

    def _clear(self) -> None:
        if self._shown:
            click.echo("\r" + " " * len(self._shown) + "\r", nl=False)
            self._shown = ""


@click.command(hidden=True)
def command() -> None:
    """Make this machine a server, as a copy of the one that it booted from.

    Runs in the installer's image alone: it erases disks.
    """
    if not _UNIT.exists():
        raise InputError(
            "this is no installer: ets install would make this machine another server",
            hint="boot the new machine from the network after `ets join NAME` on this one",
        )
    screen = ConsoleScreen()
    click.echo(_BANNER)
    while True:
        try:
            offer = Install(LocalHost(), screen, wishes(_CMDLINE.read_text())).run()
            break
        except EtsError as error:
            screen.say(f"\n{error}")
            screen.event("failed", text=error.message)
            click.echo(f"trying again in {_AGAIN:.0f} s")
            time.sleep(_AGAIN)
    screen.event("installed", text=offer.server)
    click.echo(f"\n{offer.server} starts from its own disk now.")
    run(["systemctl", "reboot"], deadline=60)
