"""A QEMU machine of the lab, whatever it is for: its process, console, events and control socket.

Its console and events are files that grow while it runs; sockets and files of one power-on lie in
``directory``, which is made anew at the next.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from ets.errors import LabError
from ets.host.deadline import Deadline, wait_for
from ets.lab.cgroup import Cgroup
from ets.lab.qmp import Qmp
from ets.lab.topology import Namespace

OVMF = Path("/usr/share/OVMF")
NICS = {"virtio": "virtio-net-pci", "e1000": "e1000", "e1000e": "e1000e"}

Firmware = Literal["bios", "uefi"]
Nic = Literal["virtio", "e1000", "e1000e"]
T = TypeVar("T")


class Qemu:
    """One machine. ``what`` is what a person calls it (``station ws01``)."""

    def __init__(self, what: str, directory: Path, cgroup: Cgroup, net: Namespace) -> None:
        self.what = what
        self.directory = directory
        #: monotonic seconds of the last power-on; 0 in a process that attached to the lab
        self.powered_on = 0.0
        self._cgroup = cgroup
        self._net = net
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def console(self) -> Path:
        """What came over its serial line since power-on."""
        return self.directory / "console.log"

    @property
    def line(self) -> Path:
        """Its serial line, a socket for one at a time (``ets.lab.console``)."""
        return self.directory / "line"

    @property
    def running(self) -> bool:
        """True while the machine is on."""
        return bool(self._cgroup.pids())

    @property
    def qmp(self) -> Qmp:
        """The machine's control socket."""
        return Qmp(self.directory / "qmp")

    def power_on(self, command: Callable[[], Sequence[str]]) -> None:
        """Start QEMU with what ``command`` gives, which is asked when ``directory`` is there.
        Raises LabError when the machine is on, or QEMU does not start."""
        if self.running:
            raise LabError(f"{self.what} is on already")
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self._cgroup.make()
        argv = list(command())
        (self.directory / "command").write_text(" ".join(argv) + "\n")
        with (self.directory / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._net.entering(self._cgroup.entering(argv)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.powered_on = time.monotonic()
        wait_for(f"{self.what} to be switched on", self._is_on, Deadline(20))

    def cut_power(self) -> None:
        """Off at once, as pulling the plug; well when it is off."""
        self._cgroup.remove()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process = None

    def events(self) -> list[dict[str, Any]]:
        """What the machine has said on its event port since power-on, such as
        ``{"event": "login", "t": seconds since its kernel started, "wall": ...}``."""
        return list(json_lines(self.directory / "event.jsonl"))

    def wait_event(self, event: str, deadline: float) -> dict[str, Any]:
        """Wait until the machine says ``event``. Raises LabError when it goes off,
        DeadlinePassed with the end of its console."""

        def said() -> dict[str, Any] | None:
            found = next((line for line in self.events() if line.get("event") == event), None)
            if found is None and not self.running:
                raise LabError(f"{self.what} went off: {self.tail()}")
            return found

        what = f"{self.what} to say {event}"
        return self.explained(lambda: wait_for(what, said, Deadline(deadline), every=0.1))

    def wait_console(self, text: str, deadline: float) -> float:
        """Wait for ``text`` on the serial line: for stages before there is anybody who could
        send an event. Returns seconds since power-on."""

        def shown() -> bool:
            if not self.running:
                raise LabError(f"{self.what} went off: {self.tail()}")
            return text in self.console.read_text(errors="replace")

        what = f"{text!r} on the console of {self.what}"
        self.explained(lambda: wait_for(what, shown, Deadline(deadline), every=0.1))
        return time.monotonic() - self.powered_on

    def explained(self, wait: Callable[[], T]) -> T:
        """What ``wait`` gives; an error of its carries the end of the console."""
        try:
            return wait()
        except LabError:
            raise
        except Exception as error:
            error.add_note(f"end of the console of {self.what}:\n{self.tail()}")
            raise

    def tail(self) -> str:
        """The end of its console."""
        try:
            return self.console.read_bytes()[-1500:].decode(errors="replace")
        except OSError:
            return "(nothing)"

    def _is_on(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            said = (self.directory / "qemu.log").read_text(errors="replace")
            raise LabError(f"QEMU for {self.what} did not start: {said.strip()}")
        return (self.directory / "qmp").exists()


def base(name: str, directory: Path, accel: str, *, memory: int, processors: int = 1) -> list[str]:
    """The part of QEMU's command line that all machines of the lab have. ``memory`` in MiB."""
    line = f"socket,id=console,path={directory}/line,server=on,wait=off"
    line += f",logfile={directory}/console.log"
    return [
        "qemu-system-x86_64", "-name", f"{name},process={name}", "-nodefaults", "-no-user-config",
        "-machine", "q35,graphics=off", "-accel", accel, "-smp", str(processors),
        "-cpu", "host" if accel == "kvm" else "qemu64", "-m", str(memory),
        "-display", "none", "-vga", "none", "-rtc", "base=utc,clock=host",
        "-chardev", line,
        "-serial", "chardev:console",
        "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
        "-chardev", f"file,id=event,path={directory}/event.jsonl",
        "-device", "virtserialport,chardev=event,name=ets.event",
        "-qmp", f"unix:{directory}/qmp,server=on,wait=off",
    ]  # fmt: skip


def tap(name: str, interface: str) -> list[str]:
    """A network backend ``name`` on the tap ``interface``."""
    return ["-netdev", f"tap,id={name},ifname={interface},script=no,downscript=no,vhost=off"]


def uefi(variables: Path, *, http: bool = False) -> list[str]:
    """The UEFI firmware, with its variables kept in ``variables`` (made when missing); it boots
    from the network by PXE, or by HTTP."""
    if not variables.exists():
        shutil.copy(OVMF / "OVMF_VARS_4M.fd", variables)
    code = OVMF / "OVMF_CODE_4M.fd"
    argv = ["-drive", f"if=pflash,format=raw,readonly=on,file={code}"]
    argv += ["-drive", f"if=pflash,format=raw,file={variables}"]
    for protocol, wanted in (("IPv4", not http), ("IPv6", False)):
        knob = f"name=opt/org.tianocore/{protocol}PXESupport,string={'y' if wanted else 'n'}"
        argv += ["-fw_cfg", knob]
    return argv


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file that is being written; those that are no JSON are left out."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                yield value
