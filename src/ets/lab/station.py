"""A station of the lab: a QEMU machine without a disk that boots from its network card."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from ets.errors import InputError, LabError
from ets.host.deadline import Deadline, wait_for
from ets.lab.cgroup import Cgroup
from ets.lab.kvm import accelerator
from ets.lab.qmp import Qmp
from ets.lab.topology import Topology, Traffic

OVMF = Path("/usr/share/OVMF")
NICS = {"virtio": "virtio-net-pci", "e1000": "e1000", "e1000e": "e1000e"}

T = TypeVar("T")

Nic = Literal["virtio", "e1000", "e1000e"]


@dataclass(frozen=True, slots=True)
class StationOptions:
    """How a station's machine is built.

    ``memory`` is in MiB. BIOS stations boot by iPXE in the card's ROM, UEFI ones by the
    firmware's own PXE (``rom``: by iPXE in the card's ROM) or HTTP boot (``http``). ``kernel`` with
    ``initrd`` and ``append`` skips firmware and network boot. ``probe`` adds the port on which the
    station's ``ets-probe`` writes its reads; ``mac`` is made from the station's name when empty.
    """

    firmware: Literal["bios", "uefi"] = "bios"
    nic: Nic = "virtio"
    memory: int = 512
    mac: str = ""
    probe: bool = True
    rom: bool = False
    http: bool = False
    kernel: str = ""
    initrd: str = ""
    append: str = ""

    def __post_init__(self) -> None:
        if self.firmware not in ("bios", "uefi"):
            raise InputError(f"firmware {self.firmware!r} is unknown", hint="bios or uefi")
        if self.nic not in NICS:
            raise InputError(f"network card {self.nic!r} is unknown", hint=", ".join(NICS))

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)


class LabStation:
    """One station. Its console, probe and events are files that grow while it runs."""

    def __init__(
        self,
        name: str,
        options: StationOptions,
        tap: str,
        directory: Path,
        cgroup: Cgroup,
        topology: Topology,
    ) -> None:
        self.name = name
        mac = options.mac or _guest_mac(name)
        self.options = dataclasses.replace(options, mac=mac.lower())
        self.directory = directory
        #: monotonic seconds of the last power-on; 0 in a process that attached to the lab
        self.powered_on = 0.0
        self._tap = tap
        self._cgroup = cgroup
        self._topology = topology
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def mac(self) -> str:
        """Its MAC address, lower case with colons."""
        return self.options.mac

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

    def start(self) -> None:
        """Power on; returns at once. Raises LabError when it is on."""
        if self.running:
            raise LabError(f"station {self.name} is on already")
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self._topology.plug_station(self._tap)
        self._cgroup.make()
        argv = command(self.name, self.options, self._tap, self.directory, accelerator())
        (self.directory / "command").write_text(" ".join(argv) + "\n")
        with (self.directory / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._topology.net.entering(self._cgroup.entering(argv)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.powered_on = time.monotonic()
        wait_for(f"station {self.name} to be switched on", self._is_on, Deadline(20))

    def stop(self) -> None:
        """Power off at once, as pulling the plug; well when it is off."""
        self._cgroup.remove()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process = None
        self._topology.unplug_station(self._tap)

    def close(self) -> None:
        """Power off, as the end of the lab."""
        self.stop()

    def events(self) -> list[dict[str, Any]]:
        """What the station has said on its event port since power-on, such as
        ``{"event": "login", "t": seconds since its kernel started, "wall": ...}``."""
        return list(_json_lines(self.directory / "event.jsonl"))

    def probe_lines(self) -> list[dict[str, Any]]:
        """What ``ets-probe`` has written since power-on, oldest first."""
        return list(_json_lines(self.probe_file))

    @property
    def probe_file(self) -> Path:
        """The file of ``probe_lines``; grows, one JSON object per line."""
        return self.directory / "probe.jsonl"

    def wait_event(self, event: str, deadline: float) -> dict[str, Any]:
        """Wait until the station says ``event``. Raises LabError when the machine ends,
        DeadlinePassed with the end of its console."""

        def said() -> dict[str, Any] | None:
            found = next((line for line in self.events() if line.get("event") == event), None)
            if found is None and not self.running:
                raise LabError(f"station {self.name} went off: {self._tail()}")
            return found

        what = f"station {self.name} to say {event}"
        return self._explained(lambda: wait_for(what, said, Deadline(deadline), every=0.1))

    def wait_login(self, deadline: float = 240) -> float:
        """Wait until somebody could log in; returns seconds since power-on."""
        self.wait_event("login", deadline)
        return time.monotonic() - self.powered_on

    def wait_console(self, text: str, deadline: float) -> float:
        """Wait for ``text`` on the serial line: for stages before there is anybody who could
        send an event. Returns seconds since power-on."""

        def shown() -> bool:
            if not self.running:
                raise LabError(f"station {self.name} went off: {self._tail()}")
            return text in self.console.read_text(errors="replace")

        what = f"{text!r} on the console of {self.name}"
        self._explained(lambda: wait_for(what, shown, Deadline(deadline), every=0.1))
        return time.monotonic() - self.powered_on

    def traffic(self) -> Traffic:
        """Bytes and packets since power-on."""
        return self._topology.traffic(self._tap)

    def _explained(self, wait: Callable[[], T]) -> T:
        try:
            return wait()
        except LabError:
            raise
        except Exception as error:
            error.add_note(f"end of the console of {self.name}:\n{self._tail()}")
            raise

    def _is_on(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            said = (self.directory / "qemu.log").read_text(errors="replace")
            raise LabError(f"QEMU for station {self.name} did not start: {said.strip()}")
        return (self.directory / "qmp").exists()

    def _tail(self) -> str:
        try:
            return self.console.read_bytes()[-1500:].decode(errors="replace")
        except OSError:
            return "(nothing)"


def command(name: str, options: StationOptions, tap: str, directory: Path, accel: str) -> list[str]:
    """The QEMU command line of a station."""
    card = f"{NICS[options.nic]},netdev=n0,mac={options.mac},bootindex=1"
    if options.firmware == "uefi" and not options.rom:
        card += ",romfile="
    line = f"socket,id=console,path={directory}/line,server=on,wait=off"
    line += f",logfile={directory}/console.log"
    argv = [
        "qemu-system-x86_64", "-name", f"{name},process={name}", "-nodefaults", "-no-user-config",
        "-machine", "q35,graphics=off", "-accel", accel, "-smp", "1",
        "-cpu", "host" if accel == "kvm" else "qemu64", "-m", str(options.memory),
        "-display", "none", "-vga", "none", "-rtc", "base=utc,clock=host",
        "-boot", "order=n,reboot-timeout=3000",
        "-netdev", f"tap,id=n0,ifname={tap},script=no,downscript=no,vhost=off", "-device", card,
        "-chardev", line,
        "-serial", "chardev:console",
        "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
        "-chardev", f"file,id=event,path={directory}/event.jsonl",
        "-device", "virtserialport,chardev=event,name=ets.event",
        "-qmp", f"unix:{directory}/qmp,server=on,wait=off",
    ]  # fmt: skip
    if options.probe:
        argv += ["-chardev", f"file,id=probe,path={directory}/probe.jsonl"]
        argv += ["-device", "virtserialport,chardev=probe,name=ets.probe"]
    if options.kernel:
        argv += ["-kernel", options.kernel, "-append", options.append]
        argv += ["-initrd", options.initrd] if options.initrd else []
    elif options.firmware == "uefi":
        variables = directory / "vars.fd"
        shutil.copy(OVMF / "OVMF_VARS_4M.fd", variables)
        code = OVMF / "OVMF_CODE_4M.fd"
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={code}"]
        argv += ["-drive", f"if=pflash,format=raw,file={variables}"]
        for protocol, wanted in (("IPv4", not options.http), ("IPv6", False)):
            knob = f"name=opt/org.tianocore/{protocol}PXESupport,string={'y' if wanted else 'n'}"
            argv += ["-fw_cfg", knob]
    return argv


def _guest_mac(name: str) -> str:
    """A locally administered MAC for a guest, the same for the same name."""
    digest = hashlib.sha256(name.encode()).digest()
    return "52:54:00:9e:" + digest[:2].hex(":")


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
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
