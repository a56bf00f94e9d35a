"""What a blank machine is made of, and which of its disks a server may go on.

``inventory`` looks, ``parse_disks`` and ``choose`` decide. Invariant of ``choose``: a disk that
holds anything at all is only ever chosen when erasing was allowed *and* there is no doubt which
disk is meant: it was named, or no other disk could be. A disk that is in use, that can be pulled
out, or that is too small for what is to be copied is never chosen.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ets.errors import CloneError, DeadlinePassed, HostError
from ets.host.transport import Host

#: names of GPT partitions of ours: an installation that is under way, and one that ended well
UNFINISHED = "ets-root"
FINISHED = "ets-server"
OURS = frozenset({"ets-bios", "ets-esp", UNFINISHED})

#: kinds of block devices that lsblk calls disks and that nobody installs on
_NO_DISKS = ("loop", "ram", "zram", "nbd", "fd", "sr", "md", "dm-", "mtd")

# Prints how many of the bytes at sixteen places from the start to the end of a disk are not zero;
# ends badly, with dd's words, when one of these places cannot be read.
_SAMPLE = (
    "each() { for n in $(seq 0 15); do "
    'dd if="$1" bs=1M skip=$(($2 * n / 15)) count=1 status=none || return 1; done; }; '
    'each "$@" >/dev/null || exit 1; each "$@" | tr -d "\\000" | wc -c'
)


@dataclass(frozen=True, slots=True)
class Filesystem:
    """One file system of the new server, for its fstab: ``uuid`` as blkid prints it."""

    mount: str
    uuid: str
    type: str
    options: str = "defaults"


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk. ``size`` in bytes, ``sector`` the logical one's; ``holds`` and ``busy`` say in words
    what was found on it and what uses it now; ``names`` are its GPT partitions' names; ``fault``
    says why it cannot be read, where it cannot."""

    path: str
    size: int
    model: str = ""
    serial: str = ""
    transport: str = ""
    rotational: bool = False
    removable: bool = False
    readonly: bool = False
    sector: int = 512
    holds: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    fault: str = ""

    @property
    def unfinished(self) -> bool:
        """True when nothing but an installation of ours lies there that did not come to its end."""
        return UNFINISHED in self.names and OURS.issuperset(self.names)

    @property
    def installed(self) -> bool:
        """True when nothing but a server lies there that an installation of ours has made."""
        return FINISHED in self.names and {*OURS, FINISHED}.issuperset(self.names)

    @property
    def blank(self) -> bool:
        """True when writing to it destroys nothing of anybody's."""
        return not self.holds or self.unfinished

    @property
    def words(self) -> str:
        """For a person: ``/dev/vda (8.6 GB, QEMU HARDDISK, serial 4711)``."""
        about = [size_words(self.size), self.model, self.serial and f"serial {self.serial}"]
        return f"{self.path} ({', '.join(part for part in about if part)})"


@dataclass(frozen=True, slots=True)
class Nic:
    """A network card: ``speed`` in Mbit/s when it is known."""

    name: str
    mac: str
    up: bool
    addresses: tuple[str, ...] = ()
    speed: int | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What was found in a machine. ``memory`` in bytes."""

    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]
    memory: int
    firmware: Literal["bios", "uefi"]
    processors: int = 1
    product: str = ""

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Choice:
    """The disks that a server goes on, and why these. ``erases`` says what is lost thereby."""

    disks: tuple[Disk, ...]
    reason: str
    erases: tuple[str, ...] = ()


def size_words(size: int) -> str:
    """A size as on a disk's label: decimal, two digits that count."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 1000 or unit == "PB":
            break
        value /= 1000
    return f"{value:.1f} {unit}" if value < 100 and unit != "B" else f"{value:.0f} {unit}"


def choose(
    machine: Machine,
    *,
    room: int,
    disks: int = 1,
    wanted: Sequence[str] = (),
    erase: bool = False,
) -> Choice:
    """The ``disks`` disks of ``machine`` to install on, each with at least ``room`` bytes
    (``Layout.room`` says how many a server needs).

    ``wanted`` names disks (path, name or serial) and is obeyed or refused, never widened;
    ``erase`` allows to destroy what a disk holds. Raises CloneError that says of every disk why
    it is refused.
    """
    named = [_named(machine, want) for want in wanted]
    if len(set(named)) != len(named):
        raise CloneError("a disk was named twice", hint="a mirror needs two disks")
    among = tuple(named) or machine.disks
    refused = {d.path: _refusal(d, room, named=bool(named)) for d in among}
    fit = [d for d in among if refused[d.path] is None]
    blank = [d for d in fit if d.blank]
    full = [d for d in fit if not d.blank]
    if named and len(named) != disks:
        raise CloneError(
            f"{len(named)} disks were named, and this layout needs {disks}",
            hint="name as many disks as the layout needs: one, or two for a mirror",
        )
    if not erase:
        refused |= {d.path: f"holds data: {'; '.join(d.holds)}" for d in full}
        full = []
    lacking = disks - len(blank)
    if lacking > 0 and len(full) > lacking and not named:
        refused |= {d.path: f"holds data: {'; '.join(d.holds)}" for d in full}
        raise CloneError(
            f"several disks hold data and any could be meant to be erased:\n{_told(refused)}",
            hint="name the disk",
        )
    if len(fit) < disks or len(blank) + len(full) < disks:
        raise CloneError(_shortage(machine, among, refused, disks), hint=_hint(among, room, erase))
    if named:
        return _chosen(named, "named")
    order = [*sorted(blank, key=_preference), *sorted(full, key=_preference)]
    return _chosen(order[:disks], "the smallest that the server fits on, solid state first")


def _chosen(disks: Sequence[Disk], why: str) -> Choice:
    states = {True: "blank", False: "to be erased"}
    words = ", ".join(
        f"{d.words}, {'an unfinished installation' if d.unfinished else states[d.blank]}"
        for d in disks
    )
    erases = tuple(f"{d.path}: {'; '.join(d.holds)}" for d in disks if not d.blank)
    return Choice(tuple(disks), f"{words}: {why}", erases)


def _preference(disk: Disk) -> tuple[bool, int, str]:
    return disk.rotational, disk.size, disk.path


def _named(machine: Machine, want: str) -> Disk:
    for disk in machine.disks:
        if want in (disk.path, disk.path.removeprefix("/dev/"), disk.serial):
            return disk
    there = ", ".join(d.path for d in machine.disks) or "none"
    raise CloneError(f"there is no disk {want}", hint=f"the disks of this machine: {there}")


def _refusal(disk: Disk, room: int, *, named: bool) -> str | None:
    """Why ``disk`` can never be it, whatever may be erased; None when it can."""
    if disk.size == 0:
        return "has no medium"
    if disk.fault:
        return f"cannot be read: {disk.fault}"
    if disk.busy:
        return f"is in use: {'; '.join(disk.busy)}"
    if disk.readonly:
        return "is read-only"
    if disk.removable and not named:
        return "can be pulled out; name it if it is meant"
    if disk.size < room:
        return f"is too small: {size_words(room)} are needed"
    return None


def _told(refused: Mapping[str, str | None]) -> str:
    return "\n".join(f"  {path} {why}" for path, why in refused.items() if why)


def _shortage(
    machine: Machine, among: Sequence[Disk], refused: Mapping[str, str | None], disks: int
) -> str:
    if not machine.disks:
        return "this machine has no disk"
    wanted = "no disk" if disks == 1 else f"no {disks} disks"
    lines = {d.words: refused[d.path] for d in among}
    told = _told(lines)
    return f"{wanted} to install on" + (f":\n{told}" if told else f": there is {len(among)}")


def _hint(among: Sequence[Disk], room: int, erase: bool) -> str:
    if not erase and any(not d.blank and _refusal(d, room, named=True) is None for d in among):
        return "allow to erase what they hold if nobody needs it, or put in a blank disk"
    return f"put in a disk of at least {size_words(room)}"


def inventory(host: Host) -> Machine:
    """What ``host`` is made of; reads a little of every disk. Raises HostError."""
    listing = host.run(["lsblk", "--json", "--bytes", "-O"]).stdout
    disks = tuple(_sampled(host, disk) for disk in parse_disks(listing))
    links = host.run(["ip", "-json", "-details", "address"]).stdout
    nics = tuple(_with_speed(host, nic) for nic in parse_nics(links))
    memory = (host.read("/proc/meminfo") or b"").split()
    efi = host.look(["/sys/firmware/efi"])
    count = host.run(["nproc"]).text.strip()
    product = host.read("/sys/class/dmi/id/product_name") or b""
    return Machine(
        disks=disks,
        nics=nics,
        memory=int(memory[1]) * 1024 if len(memory) > 1 else 0,
        firmware="uefi" if efi else "bios",
        processors=int(count),
        product=product.decode(errors="replace").strip(),
    )


def parse_disks(listing: bytes) -> tuple[Disk, ...]:
    """The disks in what ``lsblk --json --bytes -O`` printed. Values are taken as older and newer
    versions of it write them: numbers and truths also as strings."""
    devices = json.loads(listing).get("blockdevices", [])
    return tuple(
        _disk(d)
        for d in devices
        if d.get("type") == "disk" and not str(d.get("name", "")).startswith(_NO_DISKS)
    )


def parse_nics(listing: bytes) -> tuple[Nic, ...]:
    """The network cards (no bridges, tunnels, loops) in what ``ip -json -details address``
    printed."""
    return tuple(
        Nic(
            name=link["ifname"],
            mac=link["address"].lower(),
            up=link.get("operstate") == "UP",
            addresses=tuple(
                f"{a['local']}/{a['prefixlen']}"
                for a in link.get("addr_info", [])
                if a.get("scope") == "global"
            ),
        )
        for link in json.loads(listing)
        if link.get("link_type") == "ether" and "info_kind" not in link.get("linkinfo", {})
    )


def _disk(device: Mapping[str, Any]) -> Disk:
    below = list(_below(device))
    busy = tuple(_once(word for d in below for word in _busy(d)))
    return Disk(
        path=str(device.get("path") or f"/dev/{device['name']}"),
        size=int(device.get("size") or 0),
        model=_text(device, "model"),
        serial=_text(device, "serial"),
        transport=_text(device, "tran"),
        rotational=_true(device.get("rota")),
        removable=_true(device.get("rm")) or device.get("tran") == "usb",
        readonly=_true(device.get("ro")),
        sector=int(device.get("log-sec") or 512),
        holds=tuple(_once(word for d in below for word in _holds(d, device))) or busy,
        busy=busy,
        names=tuple(_once(_text(d, "partlabel") for d in below if d.get("type") == "part")),
    )


def _below(device: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield device
    for child in device.get("children") or ():
        yield from _below(child)


def _holds(device: Mapping[str, Any], disk: Mapping[str, Any]) -> Iterator[str]:
    """What there is on a device of the disk's tree, in words."""
    where = "" if device is disk else f" on {device.get('path') or device['name']}"
    label = _text(device, "label")
    if device is disk and device.get("pttype"):
        yield f"a partition table ({device['pttype']})"
    if _text(device, "partlabel") == FINISHED:
        yield f"an installed server{where}"
    if device.get("fstype"):
        yield f"{device['fstype']}{f' {label!r}' if label else ''}{where}"
    elif device is not disk:
        yield f"a {_kind(device)}{where}"


def _kind(device: Mapping[str, Any]) -> str:
    return {"part": "partition", "crypt": "decrypted volume", "lvm": "logical volume"}.get(
        str(device.get("type")), str(device.get("type"))
    )


def _busy(device: Mapping[str, Any]) -> Iterator[str]:
    points = device.get("mountpoints") or [device.get("mountpoint")]
    for point in points:
        if point:
            where = device.get("path") or device["name"]
            yield f"{where} is swap" if point == "[SWAP]" else f"{where} is mounted at {point}"


def _sampled(host: Host, disk: Disk) -> Disk:
    """``disk`` with what lsblk does not know: whether it can be read, signatures that contradict
    each other, and bytes that nobody's tools recognise."""
    if disk.size < 3 << 20:
        return disk
    argv = ["sh", "-c", _SAMPLE, "sh", disk.path, str((disk.size >> 20) - 1)]
    try:
        done = host.run(argv, check=False, deadline=180)
    except DeadlinePassed:
        return replace(disk, fault="it does not answer")
    if done.status != 0:
        said = done.stderr.decode(errors="replace").strip() or f"status {done.status}"
        return replace(disk, fault=said.splitlines()[0])
    if disk.holds:
        return disk
    found = []
    with contextlib.suppress(HostError, ValueError):
        signatures = json.loads(host.run(["wipefs", "--json", disk.path]).stdout or b"{}")
        found = [f"a signature of {s['type']}" for s in signatures.get("signatures", [])]
    if not found and done.text.strip() != "0":
        found = ["bytes of an unknown kind (it is not empty)"]
    return replace(disk, holds=tuple(_once(found)))


def _with_speed(host: Host, nic: Nic) -> Nic:
    with contextlib.suppress(HostError, ValueError):
        speed = int(host.read(f"/sys/class/net/{nic.name}/speed") or b"")
        if speed > 0:
            return replace(nic, speed=speed)
    return nic


def _text(device: Mapping[str, Any], key: str) -> str:
    return str(device.get(key) or "").strip()


def _true(value: object) -> bool:
    return value in (True, 1, "1", "true")


def _once(words: Iterator[str] | Sequence[str]) -> list[str]:
    return [word for word in dict.fromkeys(words) if word]
