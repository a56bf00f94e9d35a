"""What can be wrong with a site file whose keys have the right shape: meaning across fields.

Pure. Every function looks at one matter and yields what is wrong there; a key that is missing or
was refused for its shape is None here, is already reported, and is passed over. Paths in
``where`` are key paths; ``ets.site.load`` adds the lines.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from difflib import get_close_matches

from ets.site import addresses
from ets.site.addresses import known, networks, servers
from ets.site.model import Problem
from ets.site.positions import show, spell
from ets.site.schema import ImageTable, SiteFile


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


#: see ``ets.cluster.bootscript.guest_name``
_GUEST = re.compile("guest-[0-9a-f]{12}")


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
        elif _GUEST.fullmatch(name):
            message = "is the kind of name that guests are given"
            yield Problem(f"{where}.name", message, show(name), "another name")
        owner.setdefault(name, f"a {kind} ({where})")


def _macs(file: SiteFile) -> Iterator[Problem]:
    owner: dict[str, str] = {}
    cards = [("server", where, server.name, server.mac) for where, server in servers(file)]
    cards += [("station", where, station.name, station.mac) for where, station in known(file)]
    for kind, where, name, mac in cards:
        if mac is None:
            continue
        if mac in owner:
            message = f"is also the MAC of {owner[mac]}"
            yield Problem(f"{where}.mac", message, show(mac), "each network card once")
        owner.setdefault(mac, f"{kind} {name or '?'} ({where})")


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
    for name, image in file.images.items():
        if name not in used and image.role != "installer":
            yield Problem(
                spell(("images", name)),
                "no station uses this image",
                "",
                "name it in stations.image or a station's image, or remove it",
            )


def _installers(file: SiteFile) -> Iterator[Problem]:
    """An installer that stations would boot, and more than one of them."""
    found = [name for name, image in (file.images or {}).items() if image.role == "installer"]
    for name in found[1:]:
        message = f"is a second installer: {found[0]} is one already"
        yield Problem(spell(("images", name, "role")), message, '"installer"', "one installer")
    named = [(f"{where}.image", station.image) for where, station in known(file)]
    if file.stations:
        named.insert(0, ("stations.image", file.stations.image))
    for where, used in named:
        if used in found:
            message = "is the image that installs servers, not one for stations"
            yield Problem(where, message, show(used), 'an image with role = "station"')
    for name in found:
        image = (file.images or {})[name]
        if image.source == "server":
            message = "cannot be a server's tree: it installs one"
            yield Problem(spell(("images", name, "source")), message, '"server"', '"recipe"')


#: bytes that the kernel keeps of its command line (COMMAND_LINE_SIZE on x86 and arm64, less the
#: final zero); what is longer is cut off in silence
_COMMAND_LINE = 2047
#: of these ETS needs at most so many itself, and so many more for each server
_OWN, _PER_SERVER = 460, 16


def _command_line(file: SiteFile) -> Iterator[Problem]:
    arguments = (file.stations and file.stations.kernel_args) or []
    left = _COMMAND_LINE - _OWN - _PER_SERVER * len(file.servers or ())
    used = sum(len(argument) + 1 for argument in arguments)
    if used > left:
        message = f"are too long together: {used} characters"
        yield Problem("stations.kernel_args", message, show(arguments), f"at most {left}")


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


LOOKS: tuple[Callable[[SiteFile], Iterator[Problem]], ...] = (
    addresses.subnets,
    addresses.placed,
    addresses.twice,
    addresses.ranges,
    addresses.sizes,
    addresses.sources,
    _guests,
    _servers,
    _names,
    _macs,
    _images,
    _installers,
    _recipes,
    _command_line,
)
