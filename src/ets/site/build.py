"""From a site file without problems to a ``Site``. Pure."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import TypeVar

from ets.site.addresses import networks
from ets.site.model import (
    ROLES,
    CloneRules,
    Image,
    ImageFile,
    Network,
    Role,
    Server,
    Site,
    Station,
    StationDefaults,
)
from ets.site.pools import assign_known
from ets.site.schema import (
    CloneTable,
    ImageTable,
    NetworkTable,
    ServerTable,
    SiteFile,
    StationsNetworkTable,
    StationsTable,
)

T = TypeVar("T")


def build(file: SiteFile, digest: str) -> Site:
    """The site that ``file`` describes. Raises ValueError when a key is missing after all, which
    ``ets.site.check`` and the required keys of ``ets.site.schema`` rule out."""
    if file.site is None or file.stations is None:
        raise ValueError("a table is missing")
    defaults = _defaults(file.stations)
    nets: dict[Role, Network] = {role: _network(role, n) for role, n in networks(file).items()}
    servers = tuple(_server(server) for server in file.servers or ())
    return Site(
        name=_given(file.site.name),
        domain=_given(file.site.domain),
        timezone=_given(file.site.timezone),
        networks=nets,
        servers=servers,
        stations=_stations(file.stations, nets["stations"], servers),
        defaults=defaults,
        images={name: _image(name, i) for name, i in (file.images or {}).items()},
        dns=tuple((file.dns and file.dns.servers) or ()),
        time=tuple((file.time and file.time.servers) or ()),
        clone=_clone(file.clone),
        digest=digest,
    )


def _given(value: T | None) -> T:
    if value is None:
        raise ValueError("a key is missing")
    return value


def _network(role: Role, table: NetworkTable) -> Network:
    network = Network(role, _given(table.interface), _given(table.subnet), table.gateway)
    if isinstance(table, StationsNetworkTable):
        return replace(network, known=table.known, guests=table.guests)
    return network


def _server(table: ServerTable) -> Server:
    found: dict[Role, IPv4Address | None] = {role: getattr(table, role) for role in ROLES}
    addresses = {role: address for role, address in found.items() if address is not None}
    return Server(_given(table.name), addresses, _given(table.weight), table.mac)


def _clone(table: CloneTable | None) -> CloneRules:
    if table is None:
        return CloneRules()
    return CloneRules(
        exclude=tuple(table.exclude or ()),
        layout=_given(table.layout),
        mirror=_given(table.mirror),
    )


def _defaults(table: StationsTable) -> StationDefaults:
    return StationDefaults(
        image=_given(table.image),
        guests=_given(table.guests),
        lease=_given(table.lease),
        kernel_args=tuple(table.kernel_args or ()),
    )


def _stations(
    table: StationsTable, network: Network, servers: tuple[Server, ...]
) -> tuple[Station, ...]:
    """The known stations, those without an address placed in the ``known`` range."""
    known = table.known or []
    taken = {station.address for station in known if station.address}
    taken |= {server.stations for server in servers}
    taken |= {network.gateway} if network.gateway else set()
    without = [_given(station.mac) for station in known if not station.address]
    placed = assign_known(without, network.known, taken) if network.known else {}
    return tuple(
        Station(
            mac=_given(station.mac),
            name=_given(station.name),
            address=station.address or placed[_given(station.mac)],
            image=station.image or _given(table.image),
        )
        for station in known
    )


def _image(name: str, table: ImageTable) -> Image:
    return Image(
        name=name,
        source=_given(table.source),
        suite=_given(table.suite),
        kernel=_given(table.kernel),
        packages=tuple(table.packages or ()),
        files=tuple(
            ImageFile(
                source=_given(file.source),
                target=_given(file.target),
                mode=0o644 if file.mode is None else file.mode,
            )
            for file in table.files or ()
        ),
        scripts=tuple(table.scripts or ()),
        ltsp_conf=table.ltsp_conf,
        seal=_given(table.seal),
        compression=_given(table.compression),
        role=_given(table.role),
    )
