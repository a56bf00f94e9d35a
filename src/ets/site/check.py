"""What can be wrong with a site file whose keys have the right shape: meaning across fields.

Pure. Every function looks at one matter and yields what is wrong there; a key that is missing or
was refused for its shape is None here, is already reported, and is passed over. Paths in
``where`` are key paths; ``ets.site.load`` adds the lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations

from ets.site.model import ROLES, AddressRange, Problem, Role
from ets.site.pools import assign_known
from ets.site.positions import show, spell
from ets.site.schema import ImageTable, NetworkTable, ServerTable, SiteFile, StationTable


@dataclass(frozen=True, slots=True)
class Use:
    """An address and who has it."""

    where: str
    address: IPv4Address
    who: str


def problems(file: SiteFile, zones: Collection[str]) -> Iterator[Problem]:
    """Everything wrong with ``file``. ``zones`` are the time zones that exist; none: unknown."""
    yield from _zone(file, zones)
    for look in LOOKS:
        yield from look(file)


def nearest(word: str, known: Collection[str]) -> str:
    """The entry of ``known`` that ``word`` was most likely meant to be, or an empty string."""
    return next(iter(get_close_matches(word, list(known), n=1, cutoff=0.6)), "")


def choices(word: str, known: Collection[str], what: str) -> str:
    """What is allowed instead of ``word``, with the nearest first."""
    guess = nearest(word, known)
    listed = ", ".join(sorted(known)[:12]) + (", …" if len(known) > 12 else "")
    return (f"did you mean {guess}? " if guess else "") + f"{what}: {listed or 'none'}"


def _zone(file: SiteFile, zones: Collection[str]) -> Iterator[Problem]:
    zone = file.site.timezone if file.site else None
    if zone and zones and zone not in zones:
        guess = nearest(zone, zones)
        allowed = (
            f"did you mean {guess}?"
            if guess
            else "a zone of the tz database, such as Europe/Berlin"
        )
        yield Problem("site.timezone", "there is no such time zone", show(zone), allowed)


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


def _subnets(file: SiteFile) -> Iterator[Problem]:
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


def _placed(file: SiteFile) -> Iterator[Problem]:
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


def _twice(file: SiteFile) -> Iterator[Problem]:
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


def _ranges(file: SiteFile) -> Iterator[Problem]:
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


def _sizes(file: SiteFile) -> Iterator[Problem]:
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


def _guests(file: SiteFile) -> Iterator[Problem]:
    stations, network = file.stations, file.networks.stations if file.networks else None
    if stations is None:
        return
    given = network is not None and "guests" in network.model_fields_set
    if stations.guests and network and not given:
        allowed = "add networks.stations.guests, or set guests = false"
        yield Problem("stations.guests", "there is no range for guests", "true", allowed)
    if stations.guests is False and given:
        yield Problem(
            "networks.stations.guests",
            "is a range for guests, but stations.guests is false",
            show(str(network.guests)) if network and network.guests else "",
            "remove it, or set guests = true",
        )
    none_known = "known" not in stations.model_fields_set or stations.known == []
    if stations.guests is False and none_known:
        yield Problem("stations.known", "there is no station to serve", "", "a station, or guests")


def _servers(file: SiteFile) -> Iterator[Problem]:
    if file.servers is not None and not file.servers:
        yield Problem("servers", "there is no server", "[]", "at least one [[servers]]")
    if "lan" not in networks(file):
        return
    for where, server in servers(file):
        if "lan" not in server.model_fields_set:
            yield Problem(
                f"{where}.lan",
                "is missing: the site has a LAN",
                "",
                f"an address in networks.lan ({networks(file)['lan'].subnet or 'see there'})",
            )


def _names(file: SiteFile) -> Iterator[Problem]:
    """Two hosts with one name, and names that are no host's."""
    owner: dict[str, str] = {"localhost": "every host itself"}
    hosts = [("server", where, server.name) for where, server in servers(file)]
    hosts += [("station", where, station.name) for where, station in known(file)]
    for kind, where, name in hosts:
        if name is None:
            continue
        if name in owner:
            message = f"is also the name of {owner[name]}"
            yield Problem(f"{where}.name", message, show(name), "a name of its own for each host")
        elif name.isdigit():
            yield Problem(f"{where}.name", "is a number", show(name), "a name with a letter in it")
        owner.setdefault(name, f"a {kind} ({where})")


def _macs(file: SiteFile) -> Iterator[Problem]:
    owner: dict[str, str] = {}
    for where, station in known(file):
        if station.mac is None:
            continue
        if station.mac in owner:
            message = f"is also the MAC of {owner[station.mac]}"
            yield Problem(f"{where}.mac", message, show(station.mac), "each network card once")
        owner.setdefault(station.mac, f"station {station.name or '?'} ({where})")


def _images(file: SiteFile) -> Iterator[Problem]:
    """Images that nobody uses, and images that are not there."""
    if file.images is None or file.stations is None:
        return
    named = [(f"{where}.image", station.image) for where, station in known(file) if station.image]
    if file.stations.image:
        named.insert(0, ("stations.image", file.stations.image))
    for where, name in named:
        if name not in file.images:
            allowed = choices(name, file.images, "images of this site")
            yield Problem(where, "there is no such image", show(name), allowed)
    if file.stations.image is None:
        return
    used = {name for _, name in named}
    # a misspelt reference is one mistake, not two
    used |= {nearest(name, file.images) for name in used if name not in file.images}
    for name in file.images:
        if name not in used:
            yield Problem(
                spell(("images", name)),
                "no station uses this image",
                "",
                "name it in stations.image or a station's image, or remove it",
            )


#: directories that are empty in an image and filled when a station runs
_TRANSIENT = ("/proc", "/sys", "/dev", "/run", "/tmp")  # noqa: S108 - names in an image


def _recipes(file: SiteFile) -> Iterator[Problem]:
    for name, image in (file.images or {}).items():
        where = spell(("images", name))
        yield from _files(where, image)
        if image.source == "server":
            for key in ("suite", "packages", "kernel"):
                if key in image.model_fields_set:
                    message = 'has no meaning with source = "server"'
                    yield Problem(f"{where}.{key}", message, "", "remove it, or build a recipe")
        for package, count in Counter(image.packages or ()).items():
            if count > 1:
                message = "names a package more than once"
                yield Problem(f"{where}.packages", message, show(package), "each package once")


def _files(where: str, image: ImageTable) -> Iterator[Problem]:
    owner: dict[str, str] = {}
    targets = [(i, file.target) for i, file in enumerate(image.files or ()) if file.target]
    for index, target in targets:
        at = f"{where}.files[{index}].target"
        if target in owner:
            message = f"is also the target of {owner[target]}"
            yield Problem(at, message, show(target), "each target once")
        owner.setdefault(target, f"files[{index}]")
        for above in (other for _, other in targets if target.startswith(other + "/")):
            yield Problem(at, f"lies below {above}, which is a file", show(target), "another path")
        if target.startswith(tuple(f"{path}/" for path in _TRANSIENT)) or target in _TRANSIENT:
            message = "is a directory that is filled when a station runs"
            yield Problem(at, message, show(target), f"a path outside {', '.join(_TRANSIENT)}")


def _sources(file: SiteFile) -> Iterator[Problem]:
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


LOOKS: tuple[Callable[[SiteFile], Iterator[Problem]], ...] = (
    _subnets,
    _placed,
    _twice,
    _ranges,
    _sizes,
    _guests,
    _servers,
    _names,
    _macs,
    _images,
    _recipes,
    _sources,
)
