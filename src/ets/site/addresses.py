"""What can be wrong with the addresses in a site file: networks, ranges, and who has which.

Pure, and as ``ets.site.check`` says: None is passed over, for it is already reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations

from ets.site.model import ROLES, AddressRange, Problem, Role
from ets.site.pools import assign_known
from ets.site.positions import show
from ets.site.schema import NetworkTable, ServerTable, SiteFile, StationTable


@dataclass(frozen=True, slots=True)
class Use:
    """An address and who has it."""

    where: str
    address: IPv4Address
    who: str


def networks(file: SiteFile) -> dict[Role, NetworkTable]:
    """The networks that the file has."""
    if file.networks is None:
        return {}
    found = {role: getattr(file.networks, role) for role in ROLES}
    return {role: network for role, network in found.items() if network is not None}


def servers(file: SiteFile) -> Iterator[tuple[str, ServerTable]]:
    """The servers, each with its path."""
    for index, server in enumerate(file.servers or ()):
        yield f"servers[{index}]", server


def known(file: SiteFile) -> Iterator[tuple[str, StationTable]]:
    """The known stations, each with its path."""
    for index, station in enumerate((file.stations and file.stations.known) or ()):
        yield f"stations.known[{index}]", station


def uses(file: SiteFile, role: Role) -> Iterator[Use]:
    """All addresses that the file gives to somebody on one network."""
    network = networks(file).get(role)
    if network and network.gateway:
        yield Use(f"networks.{role}.gateway", network.gateway, f"the gateway of networks.{role}")
    for where, server in servers(file):
        address: IPv4Address | None = getattr(server, role)
        if address:
            yield Use(f"{where}.{role}", address, f"server {server.name or where}")
    if role == "stations":
        for where, station in known(file):
            if station.address:
                who = f"station {station.name or where}"
                yield Use(f"{where}.address", station.address, who)


def subnets(file: SiteFile) -> Iterator[Problem]:
    """Networks across each other, and interfaces that cannot be theirs."""
    found = networks(file)
    for (one, first), (two, second) in combinations(found.items(), 2):
        if first.subnet and second.subnet and first.subnet.overlaps(second.subnet):
            yield Problem(
                f"networks.{two}.subnet",
                f"overlaps networks.{one} ({first.subnet})",
                show(str(second.subnet)),
                "networks without a common address",
            )
        if first.interface and first.interface == second.interface:
            yield Problem(
                f"networks.{two}.interface",
                f"is also the interface of networks.{one}",
                show(second.interface),
                "an interface of its own for each network",
            )
    for role, network in found.items():
        if network.interface == "lo":
            yield Problem(f"networks.{role}.interface", "is the loopback", '"lo"', "a network card")


def placed(file: SiteFile) -> Iterator[Problem]:
    """Addresses outside their network, or that no host can have."""
    found = networks(file)
    for role in ROLES:
        network = found.get(role)
        subnet = network.subnet if network else None
        for use in uses(file, role):
            if file.networks is not None and network is None:
                message = f"is on a network that the site has not: networks.{role} is missing"
                yield Problem(use.where, message, show(str(use.address)), f"add [networks.{role}]")
            elif subnet:
                yield from _in_subnet(use, subnet, f"networks.{role}")


def _in_subnet(use: Use, subnet: IPv4Network, name: str) -> Iterator[Problem]:
    allowed = f"{subnet[1]} to {subnet[-2]}"
    if use.address not in subnet:
        yield Problem(use.where, f"is outside {name} ({subnet})", show(str(use.address)), allowed)
    elif use.address in {subnet.network_address, subnet.broadcast_address}:
        kind = "network" if use.address == subnet.network_address else "broadcast"
        yield Problem(
            use.where, f"is the {kind} address of {name}", show(str(use.address)), allowed
        )


def twice(file: SiteFile) -> Iterator[Problem]:
    """Addresses with two owners."""
    for role in ROLES:
        owner: dict[IPv4Address, Use] = {}
        for use in uses(file, role):
            first = owner.setdefault(use.address, use)
            if first is not use:
                message = f"is used twice: {first.who} has it too ({first.where})"
                yield Problem(use.where, message, show(str(use.address)), "an address of its own")


def pools(file: SiteFile) -> Iterator[tuple[str, AddressRange]]:
    """The two ranges of the stations' network, as far as they are there."""
    network = file.networks.stations if file.networks else None
    if network and network.known:
        yield "known", network.known
    if network and network.guests:
        yield "guests", network.guests


def ranges(file: SiteFile) -> Iterator[Problem]:
    """Ranges outside their network, across each other, or over somebody's address."""
    subnet = file.networks.stations.subnet if file.networks and file.networks.stations else None
    found = dict(pools(file))
    for name, pool in found.items():
        where = f"networks.stations.{name}"
        if subnet:
            usable = AddressRange(subnet[1], subnet[-2])
            if pool.first not in usable or pool.last not in usable:
                message = f"is not inside networks.stations ({subnet})"
                yield Problem(where, message, show(str(pool)), f"a range within {usable}")
        for use in uses(file, "stations"):
            # a station's own address may lie in `known`: the others are given what is left
            is_station = use.where.startswith("stations.")
            if use.address in pool and not (is_station and name == "known"):
                message = f"lies in networks.stations.{name} ({pool}), which is handed out"
                yield Problem(use.where, message, show(str(use.address)), f"one outside {pool}")
    if len(found) == 2 and found["known"].overlaps(found["guests"]):
        yield Problem(
            "networks.stations.guests",
            f"overlaps networks.stations.known ({found['known']})",
            show(str(found["guests"])),
            "two ranges without a common address",
        )


def sizes(file: SiteFile) -> Iterator[Problem]:
    """Ranges that are too small for whom they serve."""
    found = dict(pools(file))
    without = sorted(
        {s.mac for _, s in known(file) if s.mac and "address" not in s.model_fields_set}
    )
    pool = found.get("known")
    network = file.networks.stations if file.networks else None
    if pool:
        taken = {use.address for use in uses(file, "stations")}
        left = len(without) - len(assign_known(without, pool, taken)) if len(pool) < 2**17 else 0
        if left:
            free = len(without) - left
            yield Problem(
                "networks.stations.known",
                f"is too small: {len(without)} stations have no address of their own, {free} free",
                show(str(pool)),
                f"at least {left} more addresses",
            )
    elif without and network and "known" not in network.model_fields_set:
        yield Problem(
            "networks.stations.known",
            f"is missing: {len(without)} known stations have no address of their own",
            "",
            "a range for them, or an address for each",
        )
    guests = found.get("guests")
    count = len(file.servers or ())
    if guests and len(guests) < count:
        yield Problem(
            "networks.stations.guests",
            f"is too small: {count} servers need at least one address each",
            show(str(guests)),
            f"at least {count} addresses",
        )


def sources(file: SiteFile) -> Iterator[Problem]:
    """Name and time servers: given twice, or at an address that is somebody else's."""
    lists = {
        "dns.servers": [str(address) for address in (file.dns and file.dns.servers) or ()],
        "time.servers": list((file.time and file.time.servers) or ()),
    }
    for key, entries in lists.items():
        for index, entry in enumerate(entries):
            where = f"{key}[{index}]"
            if entry in entries[:index]:
                yield Problem(where, "is given twice", show(entry), "each server once")
            # a time server may be a name; an address never has a letter
            elif entry.replace(".", "").isdigit():
                yield from _asked(file, where, IPv4Address(entry))


def _asked(file: SiteFile, where: str, address: IPv4Address) -> Iterator[Problem]:
    """What speaks against stations and servers asking ``address`` for names or the time."""
    ends = {end for n in networks(file).values() if n.subnet for end in (n.subnet[0], n.subnet[-1])}
    reasons = [
        f"is the address of station {station.name or path}"
        for path, station in known(file)
        if station.address == address
    ]
    reasons += ["is the network or broadcast address of a network"] if address in ends else []
    reasons += [
        f"lies in networks.stations.{name} ({pool}), which is handed out"
        for name, pool in pools(file)
        if address in pool
    ]
    for reason in reasons:
        yield Problem(where, reason, show(str(address)), "the address of a server")
