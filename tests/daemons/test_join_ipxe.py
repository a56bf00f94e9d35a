"""QEMU's own iPXE and a join: who boots the installer, by its card, by a key, or not at all."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.daemons.agents import Net
from tests.daemons.test_agent_ipxe import Site
from tests.unit.image_store import make_image

from ets.clone.joins import Joins
from ets.clone.states import Join
from ets.host.deadline import Deadline, wait_for
from ets.image.publish import publish
from ets.image.store import Store

pytestmark = [pytest.mark.daemons, pytest.mark.root, pytest.mark.slow]

CARD = "52:54:00:99:00:01"


class Machine:
    """A blank machine that boots from the network, with a keyboard."""

    def __init__(self, site: Site, place: Path) -> None:
        self._monitor = place / "monitor"
        self._monitor.unlink(missing_ok=True)
        space = site.net.switch
        space.run("ip", "tuntap", "add", "blank", "mode", "tap")
        space.run("ip", "link", "set", "blank", "master", "stations", "up")
        self._process = space.start(
            "qemu-system-x86_64", "-machine", "pc", "-accel", "tcg,tb-size=64", "-m", "128",
            "-display", "none", "-boot", "n", "-no-reboot",
            "-monitor", f"unix:{self._monitor},server,nowait",
            "-netdev", "tap,id=n,ifname=blank,script=no,downscript=no",
            "-device", f"e1000,netdev=n,mac={CARD}",
            log=place / "qemu.log",
        )  # fmt: skip
        wait_for("its monitor", self._monitor.exists, Deadline(30))

    def press(self, key: str) -> None:
        """Press a key on its keyboard."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(10)
            monitor.connect(str(self._monitor))
            said = b""
            while said.count(b"(qemu)") < 1:
                said += monitor.recv(4096)
            monitor.sendall(f"sendkey {key}\n".encode())
            while said.count(b"(qemu)") < 2:
                said += monitor.recv(4096)

    def off(self, site: Site) -> None:
        """Switch it off."""
        self._process.kill()
        self._process.wait(10)
        site.net.switch.run("ip", "link", "delete", "blank", check=False)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Net(tmp_path) as net:
        yield Site(net)


def publish_both(site: Site) -> dict[str, str]:
    """A station's image and an installer, on both servers; their digests by name."""
    store = Store(site.net["alpha"].tree.images)
    found = {}
    for name in ("console", "installer"):
        found[name] = make_image(store, content=name.encode(), name=name)
        publish(store, name, found[name])

    def ready(name: str) -> bool:
        rows = site.net["beta"].status()["images"]
        return any(row["name"] == name and row["here"] and row["equal"] for row in rows)

    for name in found:
        wait_for(f"image {name} on both", lambda name=name: ready(name), Deadline(60))  # type: ignore[misc]
    return found


def kernels(site: Site) -> set[str]:
    """The digests of the images whose kernels were fetched."""
    text = ""
    for web in site.web.values():
        text += web._host.run("cat", f"{web._root}/var/log/nginx/s.log", check=False).text
    uris = (line.split()[1] for line in text.splitlines())
    return {uri.split("/")[2] for uri in uris if uri.endswith("/vmlinuz")}


def opened(site: Site, tmp_path: Path, mac: str | None) -> None:
    """A join of beta, taken by alpha; beta itself goes on here, to serve."""
    alpha = site.net["alpha"]
    shutil.copy(tmp_path / "ca" / "ca.key", alpha.tree.pki)
    me = site.net.site.server("alpha")
    join = Join("beta", "", 0.0, time.time() + 3600, mac=mac)
    Joins(alpha.tree.joins, alpha.tree.pki).open(site.net.site, me, join)
    path = f"/boot/{CARD.replace(':', '-')}.ipxe"
    for host in site.net.hosts.values():
        wait_for(
            "the offer",
            lambda host=host: b"ets.join" in host.http("GET", path)[1],  # type: ignore[misc]
            Deadline(30),
        )


def test_its_card_boots_the_installer(site: Site, tmp_path: Path) -> None:
    images = publish_both(site)
    opened(site, tmp_path, CARD)
    Machine(site, tmp_path)
    wait_for("a kernel", lambda: kernels(site), Deadline(180))
    assert kernels(site) == {images["installer"]}


def test_any_machine_may_be_told_to_by_a_key_and_is_a_workstation_otherwise(
    site: Site, tmp_path: Path
) -> None:
    images = publish_both(site)
    opened(site, tmp_path, None)
    machine = Machine(site, tmp_path)
    wait_for("a kernel", lambda: kernels(site), Deadline(180))
    assert kernels(site) == {images["console"]}
    machine.off(site)
    machine = Machine(site, tmp_path)

    def installing() -> bool:
        machine.press("j")
        return images["installer"] in kernels(site)

    wait_for("the installer's kernel", installing, Deadline(180), every=1.0)
