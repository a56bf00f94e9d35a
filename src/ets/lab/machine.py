"""A server as a QEMU machine with disks of its own, which are blank in the beginning: what becomes
a server by joining, and then boots from its disk.

The machine has a kernel of its own, so what is done to it is done as to a real one: cables are
pulled at its cards, a hang stops its processor, and a kill leaves its kernel alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ets.errors import EtsError, HostError, InputError, LabError
from ets.host.deadline import Deadline, wait_for
from ets.lab import qemu
from ets.lab.cgroup import Cgroup
from ets.lab.guest import GuestHost
from ets.lab.kvm import accelerator
from ets.lab.qemu import NICS, Firmware, Nic, Qemu
from ets.lab.server import LabServer
from ets.lab.topology import Topology
from ets.site.model import Role, Server, Site

#: ``net``: the network before the disks, at every boot; ``once``: only now, as whoever presses
#: the key for it does, and the disks from the next reset on
Boot = Literal["disk", "net", "once"]

GIB = 1 << 30

# Every process but this shell and init, which systemd's own handler stops for good when it is told
# that it crashed: so nothing is started again. $1: seconds to stand still before.
_KILL = r"""
cd /sys/fs/cgroup
echo $$ >cgroup.procs
kill -SEGV 1
groups=$(for group in */; do [ "$group" = init.scope/ ] || echo "$group"; done)
for group in $groups; do echo 1 >"${group}cgroup.freeze"; done
sleep "$1"
for group in $groups; do echo 1 >"${group}cgroup.kill"; done
"""


@dataclass(frozen=True, slots=True)
class MachineOptions:
    """How a server's machine is built. ``disks`` are their sizes in bytes (files that take no
    room until they are written), ``memory`` is in MiB."""

    firmware: Firmware = "bios"
    nic: Nic = "virtio"
    memory: int = 1536
    processors: int = 2
    disks: tuple[int, ...] = (8 * GIB,)

    def __post_init__(self) -> None:
        if self.firmware not in ("bios", "uefi"):
            raise InputError(f"firmware {self.firmware!r} is unknown", hint="bios or uefi")
        if self.nic not in NICS:
            raise InputError(f"network card {self.nic!r} is unknown", hint=", ".join(NICS))


class MachineServer(LabServer):
    """One server in a QEMU machine. ``directory`` keeps its disks, ``run`` what is of one
    power-on."""

    #: seconds; the whole of firmware, boot loader, kernel and systemd, emulated
    BOOT = 300.0

    def __init__(
        self,
        site: Site,
        server: Server,
        topology: Topology,
        directory: Path,
        run: Path,
        cgroup: Cgroup,
    ) -> None:
        super().__init__(site, server, topology)
        self.directory = directory
        self.machine = Qemu(f"server {server.name}", run, cgroup, topology.net)

    @property
    def options(self) -> MachineOptions:
        """As it was started last."""
        with contextlib.suppress(FileNotFoundError):
            kept: dict[str, Any] = json.loads((self.directory / "options.json").read_text())
            return MachineOptions(**{**kept, "disks": tuple(kept["disks"])})
        return MachineOptions()

    @property
    def disks(self) -> list[Path]:
        """The files behind its disks, as it sees them: the first is /dev/vda."""
        count = len(self.options.disks)
        return [self.directory / f"disk{index}.img" for index in range(count)]

    def start(self, boot: Boot = "disk", **changes: Any) -> None:
        """Switch it on; returns at once. ``changes`` are of ``MachineOptions``, and stay.

        Disks that it has keep what is on them. Raises InputError, LabError when it is on.
        """
        if self.machine.running and not self._killed.exists():
            raise LabError(f"server {self.name} is on already")
        self.power_off()
        options = dataclasses.replace(self.options, **changes)
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "options.json").write_text(json.dumps(dataclasses.asdict(options)))
        for path, size in zip(self.disks, options.disks, strict=True):
            with path.open("ab") as file:
                if file.tell() < size:
                    file.truncate(size)
        self.machine.power_on(lambda: self._command(options, boot))
        if boot == "once":
            # The firmware reads its order again at the next reset.
            self.machine.qmp.execute(
                "qom-set", path="/machine/peripheral/disk0", property="bootindex", value=0
            )

    @property
    def host(self) -> GuestHost:
        """The running server as a ``Host``. Raises HostError when it is not running."""
        if not self.running:
            raise HostError(f"{self.name} is not running")
        return GuestHost(self.name, self.machine.directory / "agent")

    @property
    def running(self) -> bool:
        """True while it has processes, also stopped ones."""
        return self.machine.running and not self._killed.exists()

    @property
    def frozen(self) -> bool:
        """True between ``freeze`` and ``thaw``."""
        return self.running and not self.machine.qmp.execute("query-status")["running"]

    def switch_on(self) -> None:
        """Boot it from its disk, as it was built."""
        self.start()

    def wait_booted(self, deadline: float) -> None:
        """Wait until systemd on its disk is done, and its guest agent answers."""

        def booted() -> bool:
            if not self.machine.running:
                raise LabError(f"server {self.name} went off: {self.machine.tail()}")
            with contextlib.suppress(EtsError):
                ask = ["systemctl", "is-system-running"]
                state = self.host.run(ask, deadline=3, check=False).text.strip()
                return state in ("running", "degraded")
            return False

        end = Deadline(deadline)
        self.machine.explained(
            lambda: wait_for(f"server {self.name} to boot", booted, end, every=0.5)
        )

    def freeze(self) -> None:
        """Its processor stops: not even its kernel answers any more."""
        self.machine.qmp.execute("stop")

    def thaw(self) -> None:
        """It goes on."""
        if self.running:
            self.machine.qmp.execute("cont")

    def kill(self, stands_still: float = 0.0) -> None:
        """SIGKILL for every process but its init, which is stopped for good."""
        self.thaw()
        # It kills the guest agent, too: nobody will tell how it ended.
        start = 'setsid sh -c "$1" sh "$2" >/dev/null 2>&1 &'
        self.host.run(["sh", "-c", start, "sh", _KILL, str(stands_still)])
        time.sleep(stands_still)
        wait_for(f"{self.name} to be dead", lambda: not self._answers(), Deadline(20))
        self._killed.touch()

    def power_off(self) -> None:
        """The plug is pulled: what it would still say cannot leave it."""
        self.machine.cut_power()
        for role in self.topology.roles(self.server):
            self.topology.unplug_tap(self.topology.port(self.server, role))

    def set_cable(self, roles: Sequence[Role], *, plugged: bool) -> None:
        """Its cards lose their carrier, or get it."""
        if self.machine.running:
            for role in roles:
                self.machine.qmp.execute("set_link", name=f"net-{role}", up=plugged)

    def shell(self, argv: Sequence[str]) -> list[str]:
        """``argv``, changed so that it runs there; without a terminal."""
        return self.host.wrap(argv)

    @property
    def _killed(self) -> Path:
        """There when all its processes were killed, and it was not switched on since."""
        return self.machine.directory / "killed"

    def _answers(self) -> bool:
        try:
            return self.host.run(["true"], deadline=0.5).status == 0
        except EtsError:
            return False

    def _command(self, options: MachineOptions, boot: Boot) -> list[str]:
        taps = {}
        for role in self.topology.roles(self.server):
            taps[role] = self.topology.port(self.server, role)
            self.topology.plug_tap(taps[role], role)
        cards = [(role, tap, self.topology.mac(self.server, role)) for role, tap in taps.items()]
        files = self.machine.directory
        variables = self.directory / "vars.fd"
        return command(self.name, options, boot, cards, self.disks, files, variables, accelerator())


def command(
    name: str,
    options: MachineOptions,
    boot: Boot,
    cards: Sequence[tuple[Role, str, str]],
    disks: Sequence[Path],
    directory: Path,
    variables: Path,
    accel: str,
) -> list[str]:
    """The QEMU command line of a server. ``cards`` are network, tap and MAC; the machine boots
    from the stations' one, whose ROM a BIOS needs for it."""
    argv = qemu.base(name, directory, accel, memory=options.memory, processors=options.processors)
    argv += ["-boot", "reboot-timeout=3000"]
    first, second = (1, 100) if boot == "disk" else (100, 1)
    for index, disk in enumerate(disks):
        drive = f"file={disk},format=raw,if=none,id=drive{index},cache=unsafe,discard=unmap"
        device = f"virtio-blk-pci,drive=drive{index},id=disk{index},serial=lab-{name}-{index}"
        argv += ["-drive", drive, "-device", f"{device},bootindex={first + index}"]
    for role, tap, mac in cards:
        card = f"{NICS[options.nic]},netdev=net-{role},mac={mac}"
        if role == "stations":
            card += f",bootindex={second}"
        if role != "stations" or options.firmware == "uefi":
            card += ",romfile="
        argv += [*qemu.tap(f"net-{role}", tap), "-device", card]
    argv += ["-chardev", f"socket,id=agent,path={directory}/agent,server=on,wait=off"]
    argv += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
    if options.firmware == "uefi":
        argv += qemu.uefi(variables)
    return argv
