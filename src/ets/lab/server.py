"""A server of the lab: what a sysadmin would have done by hand (name, addresses, site file, keys,
images), and then the same ``ets apply`` as on a real server."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ets import paths
from ets.errors import DeadlinePassed
from ets.host import pki
from ets.host.deadline import Deadline, wait_for
from ets.host.run import run
from ets.lab.cgroup import Cgroup
from ets.lab.container import Container, ContainerHost
from ets.lab.progress import Event, Events, silent
from ets.lab.topology import Topology
from ets.lab.tree import checkout
from ets.site.model import Server, Site

_LAUNCHER = '#!/bin/sh\nPYTHONPATH=/opt/ets/lib exec /usr/bin/python3 -m ets "$@"\n'

# seconds; generous, because stations may keep both processors busy while a server starts
BOOT = 60.0
APPLY = 180.0
PROBES = 60.0


class LabServer:
    """One server. ``server`` is what the site file says of it."""

    def __init__(
        self,
        lab: str,
        site: Site,
        server: Server,
        topology: Topology,
        layers: Sequence[Path],
        directory: Path,
        cgroup: Cgroup,
    ) -> None:
        self.site = site
        self.server = server
        self.topology = topology
        self._lab = lab
        net = topology.namespace(server)
        self.container = Container(
            f"ets-{lab}-{server.name}", server.name, layers, directory, cgroup, net
        )

    @property
    def name(self) -> str:
        """Its name in the site file."""
        return self.server.name

    @property
    def host(self) -> ContainerHost:
        """The running server as a ``Host``. Raises HostError when it is not running."""
        return ContainerHost(self.container)

    @property
    def files(self) -> Path:
        """The root directory as seen from here: of the running server, else what it has written
        (its overlay's upper directory)."""
        if self.container.running:
            return Path(f"/proc/{self.container.leader}/root")
        return self.container.upper

    def prepare(self, site_file: Path, authority: Path, images: Path | None) -> None:
        """Lay out its disk. ``authority`` holds the site's CA and secret, ``images`` an image
        store, of which the server gets a copy of its own (a damaged block stays its own)."""
        self.container.prepare()
        self._write_identity()
        self._write(paths.SITE_FILE.as_posix(), site_file.read_bytes())
        lock = site_file.with_name(paths.SITE_LOCK.name)
        if lock.exists():
            self._write(paths.SITE_LOCK.as_posix(), lock.read_bytes())
        self._write(paths.SERVER_NAME.as_posix(), f"{self.name}\n".encode())
        own = self._place(paths.PKI.as_posix())
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        pki.issue(authority, self.name, self.server.addresses.values(), own)
        secret = pki.read_secret(authority / paths.SITE_SECRET.name).hex()
        pki.write_secret(own / paths.SITE_SECRET.name, secret)
        self._install_ets()
        if images is not None:
            self.copy_images(images)

    def copy_images(self, images: Path) -> None:
        """Replace its image store by a copy of ``images``, hard links kept within."""
        store = self._place(paths.IMAGES.as_posix())
        shutil.rmtree(store, ignore_errors=True)
        store.parent.mkdir(parents=True, exist_ok=True)
        run(["cp", "--archive", "--reflink=never", str(images), str(store)], deadline=300)

    def plug(self) -> None:
        """Give it its network, unless it has it."""
        if not self.topology.namespace(self.server).exists:
            self.topology.plug_server(self.server)

    def boot(self, deadline: float = BOOT) -> None:
        """Start it and wait until systemd is done. Raises LabError, DeadlinePassed."""
        self.plug()
        self.container.start()
        self.container.wait_booted(Deadline(deadline))

    def boot_again(self, deadline: float = BOOT) -> None:
        """Boot it unless it runs, and wait until it has booted: what heals a loss."""
        if self.container.running:
            self.container.wait_booted(Deadline(deadline))
        else:
            self.boot(deadline)

    def apply(self, events: Events = silent) -> None:
        """Make it what the site file asks of it, with its own ``ets apply``, and wait until its
        services answer. Does nothing in a source tree that has no ``ets apply``."""
        if find_spec("ets.cli.apply") is None:
            return
        events(Event(self.name, "ets apply"))
        self.host.run(["ets", "apply", "--yes"], deadline=APPLY)
        self.wait_answering(events)

    def wait_answering(self, events: Events = silent, deadline: float = PROBES) -> None:
        """Wait until ``ets verify`` on the server finds nothing wrong. Raises DeadlinePassed with
        what it found last."""
        events(Event(self.name, "waiting for its services"))
        last = ""

        def verified() -> bool:
            nonlocal last
            done = self.host.run(["ets", "verify"], check=False, deadline=30)
            last = done.text + done.stderr.decode(errors="replace")
            return done.status == 0

        try:
            wait_for(f"the services of {self.name}", verified, Deadline(deadline), every=0.3)
        except DeadlinePassed as error:
            raise DeadlinePassed(f"{error.message}\n{last}") from error

    def status(self) -> str:
        """``up``, ``frozen`` or ``down``."""
        if not self.container.running:
            return "down"
        return "frozen" if self.container.cgroup.frozen else "up"

    def _write_identity(self) -> None:
        seed = f"{self._lab}/{self.site.name}/{self.name}".encode()
        self._write("/etc/machine-id", hashlib.sha256(seed).hexdigest()[:32].encode() + b"\n")
        self._write("/etc/hostname", f"{self.name}\n".encode())
        lines = ["127.0.0.1 localhost", f"127.0.1.1 {self.name}.{self.site.domain} {self.name}"]
        lines += [f"{peer.peering} {peer.name}" for peer in self.site.peers(self.name)]
        self._write("/etc/hosts", "\n".join(lines).encode() + b"\n")

    def _install_ets(self) -> None:
        source = checkout() / "src/ets"
        target = self._place(f"{paths.LIB}/lib/ets")
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target)
        self._write(paths.COMMAND.as_posix(), _LAUNCHER.encode(), mode=0o755)

    def _write(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        target = self._place(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(mode)

    def _place(self, path: str) -> Path:
        return self.container.upper / path.lstrip("/")


def make_authority(directory: Path, site: Site) -> None:
    """The site's CA and secret, as every site has; well when they are there."""
    if not (directory / "ca.crt").exists():
        pki.make_ca(directory, site.name)
        pki.write_secret(directory / paths.SITE_SECRET.name, pki.new_secret())
