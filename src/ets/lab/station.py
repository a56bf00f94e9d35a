"""A station of the lab: a QEMU machine without a disk that boots from its network card."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ets.errors import InputError
from ets.lab import qemu
from ets.lab.cgroup import Cgroup
from ets.lab.kvm import accelerator
from ets.lab.qemu import NICS, Firmware, Nic, Qemu, json_lines
from ets.lab.topology import Topology, Traffic


@dataclass(frozen=True, slots=True)
class StationOptions:
    """How a station's machine is built.

    ``memory`` is in MiB. BIOS stations boot by iPXE in the card's ROM, UEFI ones by the
    firmware's own PXE (``rom``: by iPXE in the card's ROM) or HTTP boot (``http``). ``kernel`` with
    ``initrd`` and ``append`` skips firmware and network boot. ``probe`` adds the port on which the
    station's ``ets-probe`` writes its reads; ``mac`` is made from the station's name when empty.
    """

    firmware: Firmware = "bios"
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


class LabStation(Qemu):
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
        super().__init__(f"station {name}", directory, cgroup, topology.net)
        self.name = name
        mac = options.mac or _guest_mac(name)
        self.options = dataclasses.replace(options, mac=mac.lower())
        self._tap = tap
        self._topology = topology

    @property
    def mac(self) -> str:
        """Its MAC address, lower case with colons."""
        return self.options.mac

    def start(self) -> None:
        """Power on; returns at once. Raises LabError when it is on."""

        def line() -> list[str]:
            self._topology.plug_tap(self._tap)
            return command(self.name, self.options, self._tap, self.directory, accelerator())

        self.power_on(line)

    def stop(self) -> None:
        """Power off at once, as pulling the plug; well when it is off."""
        self.cut_power()
        self._topology.unplug_tap(self._tap)

    def close(self) -> None:
        """Power off, as the end of the lab."""
        self.stop()

    def probe_lines(self) -> list[dict[str, Any]]:
        """What ``ets-probe`` has written since power-on, oldest first."""
        return list(json_lines(self.probe_file))

    @property
    def probe_file(self) -> Path:
        """The file of ``probe_lines``; grows, one JSON object per line."""
        return self.directory / "probe.jsonl"

    def wait_login(self, deadline: float = 240) -> float:
        """Wait until somebody could log in; returns seconds since power-on."""
        self.wait_event("login", deadline)
        return time.monotonic() - self.powered_on

    def traffic(self) -> Traffic:
        """Bytes and packets since power-on."""
        return self._topology.traffic(self._tap)


def command(name: str, options: StationOptions, tap: str, directory: Path, accel: str) -> list[str]:
    """The QEMU command line of a station."""
    card = f"{NICS[options.nic]},netdev=n0,mac={options.mac},bootindex=1"
    if options.firmware == "uefi" and not options.rom:
        card += ",romfile="
    argv = qemu.base(name, directory, accel, memory=options.memory)
    argv += ["-boot", "order=n,reboot-timeout=3000"]
    argv += [*qemu.tap("n0", tap), "-device", card]
    if options.probe:
        argv += ["-chardev", f"file,id=probe,path={directory}/probe.jsonl"]
        argv += ["-device", "virtserialport,chardev=probe,name=ets.probe"]
    if options.kernel:
        argv += ["-kernel", options.kernel, "-append", options.append]
        argv += ["-initrd", options.initrd] if options.initrd else []
    elif options.firmware == "uefi":
        argv += qemu.uefi(directory / "vars.fd", http=options.http)
    return argv


def _guest_mac(name: str) -> str:
    """A locally administered MAC for a guest, the same for the same name."""
    digest = hashlib.sha256(name.encode()).digest()
    return "52:54:00:9e:" + digest[:2].hex(":")
