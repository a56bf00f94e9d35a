"""A server of the lab: what every kind of one can be asked and made to suffer.

``ets.lab.nspawn`` is a container that the lab lays out itself; ``ets.lab.machine`` is a QEMU
machine that begins with blank disks. Faults and drills know only what is here.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec

from ets.errors import CommandFailed, DeadlinePassed, EtsError
from ets.host.deadline import Deadline, wait_for
from ets.host.transport import Host
from ets.lab.progress import Event, Events, silent
from ets.lab.topology import Topology
from ets.site.model import Role, Server, Site

# seconds; generous, because stations may keep both processors busy while a server starts
APPLY = 180.0
PROBES = 60.0


class LabServer(ABC):
    """One server. ``server`` is what the site file says of it."""

    #: seconds that booting may take
    BOOT = 60.0

    def __init__(self, site: Site, server: Server, topology: Topology) -> None:
        self.site = site
        self.server = server
        self.topology = topology

    @property
    def name(self) -> str:
        """Its name in the site file."""
        return self.server.name

    @property
    @abstractmethod
    def host(self) -> Host:
        """The running server as a ``Host``. Raises HostError when it is not running."""

    @property
    @abstractmethod
    def running(self) -> bool:
        """True while it has processes, also stopped ones."""

    @property
    @abstractmethod
    def frozen(self) -> bool:
        """True between ``freeze`` and ``thaw``."""

    @abstractmethod
    def switch_on(self) -> None:
        """Plug it in and let it boot from its disk; returns at once. Raises LabError when it is
        on."""

    @abstractmethod
    def wait_booted(self, deadline: float) -> None:
        """Wait until systemd is done. Raises LabError when it goes off, DeadlinePassed."""

    @abstractmethod
    def freeze(self) -> None:
        """Everything on it stands still where it is."""

    @abstractmethod
    def thaw(self) -> None:
        """Everything goes on; well when nothing stood still."""

    @abstractmethod
    def kill(self, stands_still: float = 0.0) -> None:
        """SIGKILL for every process, after all have stood still for so many seconds. Its kernel
        lives on and answers with resets."""

    @abstractmethod
    def power_off(self) -> None:
        """Off at once, and nobody hears of it. Well when it is off."""

    @abstractmethod
    def set_cable(self, roles: Sequence[Role], *, plugged: bool) -> None:
        """Pull or plug its cables to some networks; well when it is off."""

    @abstractmethod
    def shell(self, argv: Sequence[str]) -> list[str]:
        """``argv``, changed so that it runs there. Raises HostError when it is not running."""

    def sockets(self, *words: str) -> list[str]:
        """What ``ss`` prints there, a line each; nothing when it cannot be asked."""
        try:
            return self.host.run(["ss", *words], deadline=5).text.splitlines()
        except EtsError:
            return []

    def boot(self, deadline: float | None = None) -> None:
        """Switch it on and wait until systemd is done. Raises LabError, DeadlinePassed."""
        self.switch_on()
        self.wait_booted(deadline or self.BOOT)

    def boot_again(self, deadline: float | None = None) -> None:
        """Boot it unless it runs, and wait until it has booted: what heals a loss."""
        if not self.running:
            self.switch_on()
        self.wait_booted(deadline or self.BOOT)

    def apply(self, events: Events = silent) -> None:
        """Make it what the site file asks of it, with its own ``ets apply``, and wait until its
        services answer. Does nothing in a source tree that has no ``ets apply``."""
        if find_spec("ets.cli.apply") is None:
            return
        events(Event(self.name, "ets apply"))
        self.host.run(["ets", "apply", "--yes"], deadline=APPLY)
        self.wait_answering(events)

    def wait_answering(self, events: Events = silent, deadline: float = PROBES) -> None:
        """Wait until ``ets verify`` on the server finds nothing wrong. Raises DeadlinePassed with
        what it found last."""
        events(Event(self.name, "waiting for its services"))
        last = ""

        def verified() -> bool:
            nonlocal last
            done = self.host.run(["ets", "verify"], check=False, deadline=30)
            last = done.text + done.stderr.decode(errors="replace")
            return done.status == 0

        try:
            wait_for(f"the services of {self.name}", verified, Deadline(deadline), every=0.3)
        except DeadlinePassed as error:
            raise DeadlinePassed(f"{error.message}\n{last}") from error

    def status(self) -> str:
        """``up``, ``frozen`` or ``down``."""
        if not self.running:
            return "down"
        return "frozen" if self.frozen else "up"

    def program(self, module: str, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run a module of ETS there, with the library that it has; returns what it prints.
        Raises CommandFailed."""
        argv = ["env", "PYTHONPATH=/opt/ets/lib", "python3", "-m", module, *arguments]
        done = self.host.run(argv, stdin=stdin, check=False, deadline=120)
        if done.status != 0:
            said = done.stderr.decode(errors="replace")
            raise CommandFailed(shlex.join(argv), done.status, said)
        return done.stdout
