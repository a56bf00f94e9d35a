"""Boot scripts: rendered on request, and written to files that nginx serves without the agent.

Nothing is kept per MAC: a script is made from the site, the records and the verdicts each time it
is asked for, so a hundred thousand strangers cost a hundred thousand renderings and no memory.

The files take no verdict into account: they are for the time when nobody here judges, and are so
written only when an image is published or the site changes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ets.agent.place import Place
from ets.cluster import bootscript
from ets.cluster.bootscript import BootImage, Source
from ets.cluster.mac import hyphens, parse
from ets.cluster.newcomers import Newcomer, for_anybody, of_card
from ets.cluster.view import boot_order
from ets.host.atomic import remove_durably, write_atomic
from ets.site.model import Server, Station

SUFFIX = ".ipxe"


@dataclass(frozen=True, slots=True)
class Now:
    """What boot scripts depend on beside the site: published images by name, servers, and the
    joins that are open."""

    images: Mapping[str, BootImage]
    drained: Collection[str] = ()
    lost: Collection[str] = ()
    newcomers: Sequence[Newcomer] = ()


class Boot:
    """The boot scripts of one site, as this server gives them."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._stations = {station.mac: station for station in place.site.stations}
        self._servers = {server.mac: server for server in place.site.servers if server.mac}
        self._written: dict[str, str] = {}

    def mac_of(self, file: str) -> str | None:
        """The MAC in a script's file name, or None for a name that is none."""
        return parse(file.removesuffix(SUFFIX)) if file.endswith(SUFFIX) else None

    def order(self, mac: str, now: Now) -> tuple[Server, ...]:
        """The servers of a station in its order."""
        return boot_order(mac, self._place.site.servers, drained=now.drained, lost=now.lost)

    def script(self, mac: str, now: Now) -> str:
        """The script of whichever station has ``mac``."""
        own = of_card(now.newcomers, mac)
        if own is not None and own.boots == "install":
            return self._install(mac, [own], now)
        server = self._servers.get(mac)
        if own is not None or server is not None:
            return bootscript.local_disk(own.name if own else server.name if server else "")
        offered = for_anybody(now.newcomers)
        if offered and mac not in self._stations:
            script = self._install(mac, offered, now)
            return bootscript.choice(offered, script, self._station_script(mac, now))
        return self._station_script(mac, now)

    def _station_script(self, mac: str, now: Now) -> str:
        station = self._stations.get(mac)
        sources = self._sources(self.order(mac, now))
        if station is None and not self._place.site.defaults.guests:
            return bootscript.refuse(sources, mac=mac, reason=self._stranger())
        return self._render(station, mac, sources, now)

    def default(self, now: Now) -> str:
        """The script for who has no file of its own: this server first, then the others."""
        servers = sorted(self._place.site.servers, key=lambda server: server != self._place.me)
        serving = [server for server in servers if server.name not in now.drained] or servers
        if not self._place.site.defaults.guests:
            return bootscript.refuse(self._sources(serving), mac=None, reason=self._stranger())
        return self._render(None, None, self._sources(serving), now)

    def write_files(self, now: Now) -> int:
        """Write the scripts that changed, remove those of stations that are no more; how many.

        Slow (it waits for the disk): not for the loop. Raises HostError.
        """
        calm = Now(now.images, now.drained)
        wanted = {
            hyphens(mac) + SUFFIX: self.script(mac, calm)
            for mac in (*self._stations, *self._servers)
        }
        wanted["default" + SUFFIX] = self.default(calm)
        changed = 0
        directory = self._place.tree.boot
        for name, text in wanted.items():
            if self._written.get(name) != text:
                changed += self._write(name, text)
        old = directory.glob("*" + SUFFIX) if directory.is_dir() else ()
        for path in [path for path in old if path.name not in wanted]:
            remove_durably(path)
            self._written.pop(path.name, None)
            changed += 1
        return changed

    def _write(self, name: str, text: str) -> bool:
        path = self._place.tree.boot / name
        try:
            same = path.read_bytes() == text.encode()
        except OSError:
            same = False
        if not same:
            write_atomic(path, text.encode())
        self._written[name] = text
        return not same

    def _render(
        self, station: Station | None, mac: str | None, sources: list[Source], now: Now
    ) -> str:
        defaults = self._place.site.defaults
        wanted = station.image if station else defaults.image
        image = now.images.get(wanted)
        if image is None:
            reason = f"image {wanted} is not ready: publish one (ets image publish), see ets status"
            return bootscript.refuse(sources, mac=mac, reason=reason)
        name = station.name if station else bootscript.guest_name(mac) if mac else "guest"
        return bootscript.boot(
            sources,
            image,
            mac=mac,
            name=name,
            dns=self._place.site.dns,
            kernel_args=defaults.kernel_args,
        )

    def _install(self, mac: str, newcomers: Sequence[Newcomer], now: Now) -> str:
        """The installer's script. Who is being made is nobody to boot from."""
        made = {one.name for one in newcomers}
        sources = self._sources([s for s in self.order(mac, now) if s.name not in made])
        wanted = self._place.site.installer
        image = now.images.get(wanted.name) if wanted else None
        if image is None:
            named = f"image {wanted.name}" if wanted else "an image with the role installer"
            reason = f"a server may join, but {named} is not ready: ets image build and publish"
            return bootscript.refuse(sources, mac=mac, reason=reason)
        return bootscript.installer(
            sources,
            image,
            mac=mac,
            newcomers=newcomers,
            dns=self._place.site.dns,
            kernel_args=self._place.site.defaults.kernel_args,
        )

    def _sources(self, servers: Collection[Server]) -> list[Source]:
        ports = self._place.ports
        return [Source(s.name, s.stations, http=ports.http, nbd=ports.nbd) for s in servers]

    def _stranger(self) -> str:
        return f"unknown at site {self._place.site.name}: add this MAC to the site file"
