"""A server as a container: the lab does what a sysadmin would have done by hand (name, addresses,
site file, keys, images), and then the same ``ets apply`` as on a real server."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from ets import paths
from ets.host import pki
from ets.host.deadline import Deadline
from ets.host.run import run
from ets.image.library import LAUNCHER
from ets.lab import bare_metal
from ets.lab.cgroup import Cgroup
from ets.lab.container import Container, ContainerHost
from ets.lab.server import LabServer
from ets.lab.topology import Topology
from ets.lab.tree import checkout
from ets.site.model import Role, Server, Site


class ContainerServer(LabServer):
    """One server in a container."""

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
        super().__init__(site, server, topology)
        self._lab = lab
        net = topology.namespace(server)
        self.container = Container(
            f"ets-{lab}-{server.name}", server.name, layers, directory, cgroup, net
        )

    @property
    def host(self) -> ContainerHost:
        """The running server as a ``Host``. Raises HostError when it is not running."""
        return ContainerHost(self.container)

    @property
    def running(self) -> bool:
        """True while it has processes, also stopped ones."""
        return self.container.running

    @property
    def frozen(self) -> bool:
        """True between ``freeze`` and ``thaw``."""
        return self.container.cgroup.frozen

    def switch_on(self) -> None:
        """Let it boot; returns at once."""
        if not self.topology.namespace(self.server).exists:
            self.topology.plug_server(self.server)
        self.container.start()

    def wait_booted(self, deadline: float) -> None:
        """Wait until systemd is done."""
        self.container.wait_booted(Deadline(deadline))

    def freeze(self) -> None:
        """The cgroup freezer stops all at once, also what is just being forked; SIGSTOP to one
        process after the other would not. The kernel still acknowledges packets."""
        self.container.cgroup.freeze()

    def thaw(self) -> None:
        """Let everything go on where it stood."""
        self.container.cgroup.thaw()

    def kill(self, stands_still: float = 0.0) -> None:
        """SIGKILL for every process."""
        if stands_still:
            self.freeze()
            time.sleep(stands_still)
        self.container.kill()

    def power_off(self) -> None:
        """Links first, so that what the dying kernel would send stays inside."""
        if self.topology.namespace(self.server).exists:
            self.set_cable(self.topology.roles(self.server), plugged=False)
        self.container.kill()
        # Its kernel's memory of connections goes with it.
        self.topology.unplug_server(self.server)

    def set_cable(self, roles: Sequence[Role], *, plugged: bool) -> None:
        """Both ends lose their carrier, or get it."""
        if self.topology.namespace(self.server).exists:
            self.topology.set_cable(self.server, roles, plugged=plugged)

    def shell(self, argv: Sequence[str]) -> list[str]:
        """``argv``, changed so that it runs there."""
        return self.container.entering(argv)

    def prepare(
        self, site_file: Path, authority: Path, images: Path | None, *, cloneable: bool = False
    ) -> None:
        """Lay out its disk. ``authority`` holds the site's CA and secret, ``images`` an image
        store, of which the server gets a copy of its own (a damaged block stays its own).
        ``cloneable``: with what a server on a disk of its own would have besides."""
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
        # any of them may have to take a newcomer, or rebuild a lost one
        shutil.copy2(authority / paths.CA_KEY.name, own)
        secret = pki.read_secret(authority / paths.SITE_SECRET.name).hex()
        pki.write_secret(own / paths.SITE_SECRET.name, secret)
        self._install_ets()
        if cloneable:
            bare_metal.lay_out(self.container.upper, self.site, self.server)
        if images is not None:
            self.copy_images(images)

    def copy_images(self, images: Path) -> None:
        """Replace its image store by a copy of ``images``, hard links kept within."""
        store = self._place(paths.IMAGES.as_posix())
        shutil.rmtree(store, ignore_errors=True)
        store.parent.mkdir(parents=True, exist_ok=True)
        run(["cp", "--archive", "--reflink=never", str(images), str(store)], deadline=300)

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
        self._write(paths.COMMAND.as_posix(), LAUNCHER.encode(), mode=0o755)

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
