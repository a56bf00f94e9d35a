"""QEMU's own iPXE, real Kea, nginx and agents: boot scripts when servers or images are missing.

The kernel of these images is none, so no station gets further than asking (a BIOS iPXE runs any
file as a boot program); what it asks for, of whom and when, stands in nginx' logs.
That stations boot is shown by the lab.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.daemons.agents import AgentHost, Kea, Net
from tests.unit.image_store import make_image

from ets.cluster.placement import order
from ets.host.deadline import Deadline, wait_for
from ets.image.publish import publish
from ets.image.store import Store
from ets.services import http

pytestmark = [pytest.mark.daemons, pytest.mark.root, pytest.mark.slow]

MAC = "52:54:00:77:00:01"
SCRIPT = "/boot/52-54-00-77-00-01.ipxe"
_STAMPED = (
    "log_format stamped '$msec $request_uri $status'; access_log /var/log/nginx/s.log stamped;"
)


class Web:
    """nginx with its real configuration beside a server's Kea, and a log with exact times."""

    def __init__(self, host: AgentHost, kea: Kea, net: Net) -> None:
        self._host = host
        self._root = kea.root
        for directory in ("dev", "var/lib/ets"):
            source = "/dev" if directory == "dev" else str(host.root / directory)
            host.run("mkdir", "-p", f"{self._root}/{directory}")
            host.run("mount", "--rbind", source, f"{self._root}/{directory}")
        host.run("mkdir", "-p", f"{self._root}/var/log/nginx", f"{self._root}/var/lib/nginx")
        files = {file.path: file.content for file in http.desired(net.site, host.server).files}
        config = files[http.CONFIG].replace(b"server {", _STAMPED.encode() + b"\nserver {", 1)
        path = f"{self._root}{http.CONFIG}"
        host.run("sh", "-c", 'cat > "$1"', "sh", path, stdin=config)
        host.start(
            "nsenter", "--target", "1", "--pid", "--",
            "chroot", str(self._root), "nginx", "-g", "daemon off;",
            log=host.root / "nginx.log",
        )  # fmt: skip

    def asked(self) -> list[tuple[float, str, int]]:
        """When, for what, and how it was answered; a digest shortened to its file."""
        done = self._host.run("cat", f"{self._root}/var/log/nginx/s.log", check=False)
        rows = (line.split() for line in done.text.splitlines())
        return [(float(at), uri.rpartition("/")[2], int(status)) for at, uri, status in rows]

    def files(self) -> list[str]:
        """What was asked for."""
        return [file for _, file, _ in self.asked()]


class Site:
    """The pair with all that a station asks before its kernel."""

    def __init__(self, net: Net) -> None:
        self.net = net
        keas = {name: Kea(host, net.site) for name, host in net.hosts.items()}
        for kea in keas.values():
            kea.up()
        net.up()
        self.web = {name: Web(host, keas[name], net) for name, host in net.hosts.items()}
        for host in net.hosts.values():
            wait_for("Kea", lambda host=host: host.status()["dhcp"]["ready"], Deadline(60))  # type: ignore[misc]
        #: the servers in the order of the station
        self.first, self.second = (server.name for server in order(MAC, net.site.servers))

    def publish(self) -> str:
        """Publish an image and wait until both serve it."""
        store = Store(self.net[self.first].tree.images)
        digest = make_image(store)
        publish(store, "console", digest)
        for host in self.net.hosts.values():
            path = host.tree.boot / Path(SCRIPT).name
            wait_for("it", lambda p=path: digest in p.read_text(), Deadline(60))  # type: ignore[misc]
        return digest

    def power_off(self, name: str) -> None:
        """No cable, no agent."""
        for role in ("lan", "stations"):
            self.net.cable(name, role, "down")
        self.net[name].kill()

    def station(self) -> subprocess.Popen[bytes]:
        """Switch a station on; it ends with the switch's namespaces."""
        space = self.net.switch
        space.run("ip", "tuntap", "add", "station", "mode", "tap")
        space.run("ip", "link", "set", "station", "master", "stations", "up")
        return space.start(
            "qemu-system-x86_64", "-machine", "pc", "-accel", "tcg,tb-size=64", "-m", "128",
            "-display", "none", "-boot", "n", "-no-reboot",
            "-netdev", "tap,id=n,ifname=station,script=no,downscript=no",
            "-device", f"e1000,netdev=n,mac={MAC}",
            log=self.net.hosts[self.first].root / "qemu.log",
        )  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Net(tmp_path) as net:
        yield Site(net)


def test_a_dead_first_server_costs_two_seconds_even_without_agents(site: Site) -> None:
    """The survivor's agent is dead too: nginx serves the file, in which the dead one is first."""
    site.publish()
    site.power_off(site.first)
    site.net[site.second].kill()
    web = site.web[site.second]
    site.station()
    wait_for("the kernel to be fetched", lambda: "vmlinuz" in web.files(), Deadline(180))
    when = {file: at for at, file, status in reversed(web.asked()) if status == 200}
    assert 1.5 < when["vmlinuz"] - when[Path(SCRIPT).name] < 4.0
    wait_for("the initrd", lambda: "initrd.img" in web.files(), Deadline(30))
    when = {file: at for at, file, status in reversed(web.asked()) if status == 200}
    assert when["initrd.img"] - when["vmlinuz"] < 1.0


def test_without_kernels_it_goes_round_until_one_comes_back(site: Site) -> None:
    """Without agents, which would notice that the kernels are gone and take the image back."""
    digest = site.publish()
    for host in site.net.hosts.values():
        host.kill()
    kernels = [Store(h.tree.images).path(digest, "vmlinuz") for h in site.net.hosts.values()]
    for kernel in kernels:
        kernel.rename(kernel.with_name("away"))
    site.station()
    webs = site.web.values()

    def missed() -> bool:
        return all(sum(row[1:] == ("vmlinuz", 404) for row in w.asked()) >= 3 for w in webs)

    wait_for("three rounds", missed, Deadline(180))
    scripts = sum(web.files().count(Path(SCRIPT).name) for web in webs)
    assert scripts >= 3, "each round begins with a fresh script"
    kernels[1].with_name("away").rename(kernels[1])

    def sent() -> bool:
        return any(row[1:] == ("vmlinuz", 200) for web in webs for row in web.asked())

    wait_for("the kernel", sent, Deadline(60))


def test_a_server_known_to_be_lost_costs_nothing(site: Site) -> None:
    site.publish()
    site.power_off(site.first)
    survivor = site.net[site.second]
    site.net.wait_verdict(survivor, site.first, "lost")
    web = site.web[site.second]
    site.station()
    wait_for("the kernel to be fetched", lambda: "vmlinuz" in web.files(), Deadline(180))
    when = {file: at for at, file, status in reversed(web.asked()) if status == 200}
    assert when["vmlinuz"] - when[Path(SCRIPT).name] < 1.0


def test_a_station_waits_for_an_image_and_gets_it_when_it_comes(site: Site) -> None:
    """Nothing is published when it is switched on: it asks again until there is something."""
    site.station()
    webs = site.web.values()
    script = Path(SCRIPT).name

    def rounds() -> int:
        return sum(web.files().count(script) for web in webs)

    wait_for("a first script", rounds, Deadline(180))
    assert not any("vmlinuz" in web.files() for web in webs)
    site.publish()
    began = time.monotonic()
    wait_for("the kernel", lambda: any("vmlinuz" in web.files() for web in webs), Deadline(60))
    assert time.monotonic() - began < 40
