"""A whole site on this machine: bring it up, act on it, take it down without a trace."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from ets import services
from ets.errors import InputError, LabError
from ets.lab import bare_metal, faults
from ets.lab.cgroup import lab_group
from ets.lab.machine import MachineServer
from ets.lab.nspawn import ContainerServer, make_authority
from ets.lab.progress import Event, Events, silent
from ets.lab.server import LabServer
from ets.lab.state import RUN, LabState, Owner, all_labs, boot_id, check_name
from ets.lab.station import LabStation, StationOptions
from ets.lab.topology import Namespace, Topology
from ets.lab.tree import cache_directory, locked, server_layers
from ets.lab.wire import Capture
from ets.site import load
from ets.site.model import Server, Site

T = TypeVar("T")

#: program and the Debian package that has it
_NEEDED = (
    ("ip", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux"), ("unshare", "util-linux"),
    ("systemd-nspawn", "systemd-container"), ("mmdebstrap", "mmdebstrap"),
    ("qemu-system-x86_64", "qemu-system-x86"),
)  # fmt: skip


class Lab:
    """One lab that is up. Made by ``Lab.up`` or ``Lab.attach``."""

    def __init__(self, state: LabState, events: Events = silent) -> None:
        self.state = state
        self.site: Site = load.parse(Path(state.site).read_bytes(), state.site)
        self.topology = Topology(state.name, self.site)
        self.events = one_at_a_time(events)
        self._bookkeeping = threading.Lock()
        self.servers = {server.name: self._server(server) for server in self.site.servers}
        self.stations = {
            name: self._station(name, StationOptions(**options))
            for name, options in state.stations.items()
        }

    @classmethod
    def up(
        cls,
        site_file: Path,
        *,
        name: str = "lab",
        images: Path | None = None,
        apply: bool = True,
        events: Events = silent,
        cache: Path | None = None,
        blank: Collection[str] = (),
        packages: Collection[str] = (),
    ) -> Lab:
        """Bring up the servers of a site and wait until their services answer.

        ``images`` is an image store that every server gets a copy of; without ``apply`` servers
        are booted and nothing more. ``blank`` are the names of servers that are machines with
        blank disks, switched off (``machine``); then the others have what can be copied to a
        disk: a kernel, and addresses that they set themselves. ``packages`` are further Debian
        packages that the containers have.

        The calling process owns the lab: it goes with ``down``, with the end of the context, or,
        after SIGKILL, with the next start of any lab. Raises SiteError, LabError (also when a lab
        of that name is up), HostError.
        """
        site = load.read(site_file)
        check_name(name)
        for lost in blank:
            _named({server.name: server for server in site.servers}, lost, "server")
        check_machine()
        cache = cache or cache_directory()
        clean(events)
        state = _claim(name, site_file, cache)
        state.blank = list(blank)
        wanted = {*packages_of(site, cloneable=bool(blank)), *packages}
        try:
            state.layers = [str(path) for path in server_layers(wanted, cache, events)]
            state.save()
            lab = cls(state, events)
            lab._start_servers(site_file, images, apply=apply)
        except BaseException:
            remove(state)
            raise
        state.phase = "up"
        state.save()
        return lab

    @classmethod
    def attach(cls, name: str = "lab", events: Events = silent) -> Lab:
        """The lab of that name, brought up by another process. Raises LabError when there is
        none, or when what is there is a remainder."""
        state = LabState.load(name)
        if state.stale:
            raise LabError(
                f"lab {name!r} was left behind by a process that was killed",
                hint=f"ets lab down --name {name} removes it",
            )
        return cls(state, events)

    def detach(self) -> None:
        """Leave the lab running when this process ends."""
        self.state.owner = None
        self.state.save()

    def down(self) -> None:
        """Remove everything of the lab; well when it is down."""
        for station in self.stations.values():
            station.close()
        remove(self.state)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.state.owner is not None:
            self.down()

    def server(self, name: str) -> LabServer:
        """A server by name. Raises InputError when the site has none of that name."""
        return _named(self.servers, name, "server")

    def machine(self, name: str) -> MachineServer:
        """A server that is a machine with disks of its own. Raises InputError when the server of
        that name is none."""
        server = self.server(name)
        if not isinstance(server, MachineServer):
            raise InputError(f"server {name} is a container", hint="Lab.up(…, blank=[NAME])")
        return server

    def burn(self, name: str) -> MachineServer:
        """Lose a server with all that it had: a machine with blank disks, switched off, stands in
        its place. Raises InputError when the site has none of that name."""
        lost = self.server(name)
        lost.power_off()
        lab_group(self.state.name).child(name).remove()
        shutil.rmtree(Path(self.state.directory) / "servers" / name, ignore_errors=True)
        self.state.faults.pop(name, None)
        self.state.blank = sorted({*self.state.blank, name})
        self.state.save()
        self.servers[name] = self._server(lost.server)
        return self.machine(name)

    def station(self, name: str) -> LabStation:
        """A station that was started. Raises InputError when none of that name was."""
        return _named(self.stations, name, "started station")

    def start_station(self, name: str, **options: Any) -> LabStation:
        """Switch a station on; ``options`` are those of ``StationOptions``.

        ``name`` is a known station's, or a new name for a guest (whose MAC follows from it unless
        ``mac`` is given). Raises InputError, LabError.
        """
        known = {station.name: station.mac for station in self.site.stations}
        if name in known:
            options.setdefault("mac", known[name])
        with self._bookkeeping:
            station = self._station(name, StationOptions(**options))
            self.state.stations[name] = station.options.record()
            self.state.save()
            self.stations[name] = station
        station.start()
        return station

    def inject(self, fault: str, target: str, **options: Any) -> None:
        """Inject a fault by name (``ets.lab.faults.names()``) into a server.

        Raises InputError when there is no such fault or server, LabError when the server has that
        fault already.
        """
        chosen = faults.get(fault)
        server = self.server(target)
        present = self.state.faults.setdefault(target, {})
        if fault in present:
            raise LabError(f"{target} has the fault {fault} already", hint=f"ets lab heal {target}")
        # written first: a fault that was interrupted half-way can be healed, too
        present[fault] = {}
        self.state.save()
        present[fault] = chosen.inject(server, **options)
        self.state.save()
        self.events(Event(target, f"fault {fault}"))

    def heal(self, target: str | None = None) -> list[str]:
        """Heal all faults of a server (None: of all servers); returns ``target: fault`` for each.

        A server that was killed or lost its power is booted again with the disk that it had.
        """
        targets = list(self.state.faults) if target is None else [self.server(target).name]
        healed = []
        for name in targets:
            # the last one first: a server that was cut off and then killed boots without a cable
            for fault, memory in reversed(list(self.state.faults.get(name, {}).items())):
                faults.get(fault).heal(self.server(name), memory)
                del self.state.faults[name][fault]
                self.state.save()
                healed.append(f"{name}: {fault}")
                self.events(Event(name, f"healed {fault}"))
        return healed

    def dhcp_capture(self) -> Capture:
        """Record the DHCP packets on the stations' network, as a context."""
        return Capture(self.topology.net, "br-stations")

    def _server(self, server: Server) -> LabServer:
        directory = Path(self.state.directory) / "servers" / server.name
        group = lab_group(self.state.name).child(server.name)
        if server.name in self.state.blank:
            run = self.state.run / "servers" / server.name
            return MachineServer(self.site, server, self.topology, directory, run, group)
        layers = [Path(layer) for layer in self.state.layers]
        return ContainerServer(
            self.state.name, self.site, server, self.topology, layers, directory, group
        )

    def _station(self, name: str, options: StationOptions) -> LabStation:
        directory = self.state.run / "stations" / name
        index = (
            list(self.state.stations).index(name)
            if name in self.state.stations
            else len(self.state.stations)
        )
        group = lab_group(self.state.name).child(f"station-{name}")
        return LabStation(name, options, f"tap{index}", directory, group, self.topology)

    def _start_servers(self, site_file: Path, images: Path | None, *, apply: bool) -> None:
        authority = Path(self.state.directory) / "authority"
        make_authority(authority, self.site)
        self.topology.make()

        def start(server: ContainerServer) -> None:
            self.events(Event(server.name, "laying out its disk"))
            server.prepare(site_file, authority, images, cloneable=bool(self.state.blank))
            self.events(Event(server.name, "booting"))
            server.boot()
            if apply:
                server.apply(self.events)
            self.events(Event(server.name, "up", 1.0))

        laid_out = [s for s in self.servers.values() if isinstance(s, ContainerServer)]
        each(start, laid_out, lab_group(self.state.name).kill)


def one_at_a_time(events: Events) -> Events:
    """``events`` for several threads: servers start side by side."""
    lock = threading.Lock()

    def tell(event: Event) -> None:
        with lock:
            events(event)

    return tell


def each(
    act: Callable[[T], object], things: Iterable[T], abandon: Callable[[], object] = lambda: None
) -> None:
    """``act`` on all ``things`` at the same time; raises the first error when all have ended.

    ``abandon`` is called at the first error, or Ctrl-C: it makes the others end soon.
    """
    things = list(things)
    with ThreadPoolExecutor(max_workers=max(1, len(things))) as pool:
        try:
            for future in [pool.submit(act, thing) for thing in things]:
                future.result()
        except BaseException:
            abandon()
            raise


def packages_of(site: Site, *, cloneable: bool = False) -> tuple[str, ...]:
    """The packages that the services of any of the site's servers need; ``cloneable``: with what
    a server on a disk of its own has."""
    wanted: set[str] = set(bare_metal.PACKAGES) if cloneable else set()
    for server in site.servers:
        wanted.update(services.desired(site, server).packages)
    return tuple(sorted(wanted))


def check_machine() -> None:
    """Raises LabError when this machine cannot hold a lab: not root, or a program missing."""
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces and mounts, which needs root", hint="use sudo")
    missing = sorted({package for program, package in _NEEDED if shutil.which(program) is None})
    if missing:
        raise LabError(
            f"programs of these Debian packages are missing: {' '.join(missing)}",
            hint=f"apt install {' '.join(missing)} (./demo and ./test do so)",
        )


def clean(events: Events = silent) -> list[str]:
    """Remove the labs whose owners were killed; returns their names."""
    removed = []
    for state in all_labs():
        if state.stale:
            events(Event(state.name, "removing what a killed run left behind"))
            remove(state)
            removed.append(state.name)
    return removed


def remove(state: LabState) -> None:
    """Take a lab down, whatever shape it is in. Nothing of it is left; well when it is gone."""
    with _locked():
        if not (state.run / "state.json").exists():
            return
        lab_group(state.name).remove()
        for name in _namespaces(state):
            Namespace(name).remove()
        shutil.rmtree(state.directory, ignore_errors=True)
        _remove_nspawn_leftovers(state.name)
        shutil.rmtree(state.run)
        with contextlib.suppress(OSError):
            lab_group(state.name).path.parent.rmdir()


def _claim(name: str, site_file: Path, cache: Path) -> LabState:
    """A state file for a new lab, before anything of it exists."""
    with _locked():
        if (RUN / name / "state.json").exists():
            raise LabError(
                f"lab {name!r} is up", hint=f"ets lab down --name {name}, or --name OTHER"
            )
        run = RUN / name
        run.mkdir(parents=True, exist_ok=True)
        shutil.copy(site_file, run / "site.toml")
        directory = cache / "labs" / name
        state = LabState(
            name, str(run / "site.toml"), str(directory), boot_id(), owner=Owner.this()
        )
        state.save()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    return state


def _namespaces(state: LabState) -> Iterator[str]:
    """The lab's namespaces, also when its site file cannot be read any more. Lab names have no
    hyphen, so no other lab's match."""
    for path in Path("/run/netns").glob(f"ets-{state.name}-*"):
        yield path.name


def _remove_nspawn_leftovers(lab: str) -> None:
    for path in Path("/run/systemd/nspawn").glob(f"*/ets-{lab}-*"):
        with contextlib.suppress(OSError):
            path.rmdir()


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    with locked(RUN / ".lock", lambda: None):
        yield


def _named(things: dict[str, T], name: str, what: str) -> T:
    try:
        return things[name]
    except KeyError:
        known = ", ".join(things) or "none"
        raise InputError(f"there is no {what} {name!r}", hint=f"there are: {known}") from None
