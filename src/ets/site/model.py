"""What a site is, after parsing: frozen, complete, and free of contradictions.

Nothing here reads the site file (``ets.site.load`` does) and nothing here is half-valid: a
``Site`` exists only when ``ets.site.check`` found no problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

Role = Literal["lan", "stations", "compute"]
ROLES: tuple[Role, ...] = ("lan", "stations", "compute")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with a site file.

    ``where`` is the path of the key (``servers[1].stations``) or a file position
    (``line 12, column 3``); ``value`` what stands there, as written; ``allowed`` what may stand
    there or what to do next.
    """

    where: str
    message: str
    value: str = ""
    allowed: str = ""


@dataclass(frozen=True, slots=True, order=True)
class AddressRange:
    """Addresses from ``first`` to ``last``, both included."""

    first: IPv4Address
    last: IPv4Address

    def __len__(self) -> int:
        return int(self.last) - int(self.first) + 1

    def __contains__(self, address: IPv4Address) -> bool:
        return self.first <= address <= self.last

    def __iter__(self) -> Iterator[IPv4Address]:
        return map(IPv4Address, range(int(self.first), int(self.last) + 1))

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def overlaps(self, other: AddressRange) -> bool:
        """True when at least one address lies in both."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class Network:
    """One of a server's three sides. ``interface`` is the NIC's name on every server.

    ``known`` is the range from which stations without an address of their own get one, ``guests``
    the range for unknown MACs; both are set on the stations' network only and either may be None.
    """

    role: Role
    interface: str
    subnet: IPv4Network
    gateway: IPv4Address | None = None
    known: AddressRange | None = None
    guests: AddressRange | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """A terminal server. ``weight`` is its share of the stations relative to the others' (> 0).

    ``mac`` is its card on the stations' network (lower case with colons), None when the file does
    not say: what netboots with it may become this server without being asked its name.
    """

    name: str
    addresses: Mapping[Role, IPv4Address]
    weight: float = 1.0
    mac: str | None = None

    @property
    def stations(self) -> IPv4Address:
        """Its address on the stations' network, which every server has."""
        return self.addresses["stations"]

    @property
    def peering(self) -> IPv4Address:
        """Where its peers reach it: the LAN address, or the stations' one where there is no LAN."""
        return self.addresses.get("lan", self.addresses["stations"])


@dataclass(frozen=True, slots=True)
class Station:
    """A known diskless workstation. ``mac`` is lower case with colons.

    ``address`` is always set: given in the file, or computed from the MAC (``ets.site.pools``).
    """

    mac: str
    name: str
    address: IPv4Address
    image: str


@dataclass(frozen=True, slots=True)
class StationDefaults:
    """What holds for stations that say nothing else. ``lease`` is in seconds.

    ``order`` overrides nothing: the order of servers is always computed from the MAC.
    """

    image: str
    guests: bool = True
    lease: int = 3600
    kernel_args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file copied into an image: ``source`` relative to the site file, ``target`` absolute."""

    source: str
    target: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Image:
    """The recipe of an image: for stations, or (``role``) the one that installs new servers.

    ``source`` is ``recipe`` (a fresh Debian tree from ``suite`` and ``packages``) or ``server``
    (this server's own tree, as LTSP does it). ``kernel`` is a Debian package name.
    ``scripts`` run inside the tree, in order, as root, without a network. ``seal`` puts dm-verity
    below squashfs in the station too. ``compression`` is a zstd level, 1 to 22.
    """

    name: str
    source: Literal["recipe", "server"] = "recipe"
    suite: str = "bookworm"
    kernel: str = "linux-image-amd64"
    packages: tuple[str, ...] = ()
    files: tuple[ImageFile, ...] = ()
    scripts: tuple[str, ...] = ()
    ltsp_conf: str | None = None
    seal: bool = False
    compression: int = 3
    role: Literal["station", "installer"] = "station"


@dataclass(frozen=True, slots=True)
class CloneRules:
    """How servers are copied: ``exclude`` are absolute paths that are left out with everything
    below, ``layout`` and ``mirror`` (on two disks) are of a new server's disk."""

    exclude: tuple[str, ...] = ()
    layout: Literal["plain", "lvm", "btrfs"] = "plain"
    mirror: bool = False


@dataclass(frozen=True, slots=True)
class Site:
    """A whole site. ``digest`` is the sha256 (hex) of the site file's bytes.

    ``stations`` are in the file's order, ``servers`` too; neither order means anything but the
    order in which guests' slices are cut and things are listed.
    """

    name: str
    domain: str
    timezone: str
    networks: Mapping[Role, Network]
    servers: tuple[Server, ...]
    stations: tuple[Station, ...]
    defaults: StationDefaults
    images: Mapping[str, Image]
    dns: tuple[IPv4Address, ...] = ()
    time: tuple[str, ...] = ()
    clone: CloneRules = CloneRules()
    digest: str = field(default="", compare=False)

    def server(self, name: str) -> Server:
        """The server of that name. Raises KeyError when there is none."""
        for server in self.servers:
            if server.name == name:
                return server
        raise KeyError(name)

    def peers(self, name: str) -> tuple[Server, ...]:
        """All servers but the named one."""
        return tuple(server for server in self.servers if server.name != name)

    def station(self, mac: str) -> Station | None:
        """The known station with that MAC (lower case, colons), or None for a guest."""
        return next((station for station in self.stations if station.mac == mac), None)

    @property
    def installer(self) -> Image | None:
        """The image that installs new servers, when the site has one."""
        return next((i for i in self.images.values() if i.role == "installer"), None)

    @property
    def stations_net(self) -> Network:
        """The stations' network, which every site has."""
        return self.networks["stations"]
