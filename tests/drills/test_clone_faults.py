"""What goes wrong while a server is made, and when one is lost: nothing of it ends in half a server
that is in service, and nobody's data is written over."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.drills.lab_tools import PAIR, lab_name, leftovers

from ets import paths
from ets.errors import EtsError
from ets.host.deadline import Deadline, wait_for
from ets.host.transport import Host
from ets.lab.drills.join import INSTALL, SERVICE, join, state, wait_in_service
from ets.lab.drills.material import Material, gather
from ets.lab.lab import Lab
from ets.lab.machine import GIB, MachineServer

pytestmark = [
    pytest.mark.drill, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(5400),
]  # fmt: skip

#: seconds for a machine under emulation to boot the installer, with another one beside it
BOOT = 240.0


@pytest.fixture(scope="module")
def material() -> Material:
    return gather(PAIR, lambda _: None, cloneable=True)


@pytest.fixture
def lab(material: Material) -> Iterator[Lab]:
    name = lab_name("cf")
    with Lab.up(PAIR, name=name, images=material.images, blank=["beta"]) as up:
        yield up
    assert leftovers(name) == []


def open_join(lab: Lab, *options: str) -> None:
    lab.server("alpha").host.run(["ets", "join", "beta", "--unattended", "--no-wait", *options])


def failure(machine: MachineServer, deadline: float = BOOT) -> str:
    """What the installer says when it fails."""
    return str(machine.machine.wait_event("failed", deadline)["text"])


def progress(machine: MachineServer, share: float, deadline: float = INSTALL) -> None:
    """Wait until that share of everything is copied."""

    def far() -> bool:
        done = [event.get("done") or 0.0 for event in machine.machine.events()]
        return max(map(float, done), default=0.0) >= share

    wait_for(f"{share:.0%} of the copy", far, Deadline(deadline), every=0.3)


def disk_of(machine: MachineServer, size: int) -> Path:
    """The file of its disk, made beforehand so that a test can put something on it."""
    machine.directory.mkdir(parents=True, exist_ok=True)
    path = machine.directory / "disk0.img"
    with path.open("ab") as file:
        file.truncate(size)
    return path


def test_disks_that_do_not_do_and_a_primary_that_dies(lab: Lab) -> None:
    machine = lab.machine("beta")
    open_join(lab)

    # too small: said before the first byte
    disk = disk_of(machine, GIB)
    machine.start(boot="once", disks=(GIB,))
    assert "too small" in failure(machine)
    machine.power_off()
    assert disk.stat().st_blocks == 0, "something was written to it"

    # somebody's data: not touched until it is said
    disk.unlink()
    disk = disk_of(machine, 8 * GIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-L", "theses", disk], check=True)
    before = subprocess.check_output(["sha256sum", disk])
    machine.start(boot="once", disks=(8 * GIB,))
    said = failure(machine)
    assert "theses" in said
    assert "ext4" in said
    machine.power_off()
    assert subprocess.check_output(["sha256sum", disk]) == before
    alpha = lab.server("alpha")
    alpha.host.run(["ets", "join", "--cancel", "beta"])
    open_join(lab, "--erase")

    # the primary dies in the middle: said, and the next try goes on
    machine.start(boot="once")
    progress(machine, 0.3)
    lab.inject("kill", "alpha")
    assert "primary" in failure(machine) or "alpha" in failure(machine)
    assert not any(event.get("event") == "installed" for event in machine.machine.events())
    count = len(machine.machine.events())
    lab.heal("alpha")

    def first_after() -> float:
        done = [event.get("done") for event in machine.machine.events()[count:]]
        return float(next((share for share in done if share), 0.0))

    wait_for("the copy to go on", first_after, Deadline(INSTALL), every=0.3)
    machine.machine.wait_event("installed", INSTALL)
    machine.wait_booted(SERVICE)
    wait_in_service(machine, alpha.host, "beta")


def switch_on(machine: MachineServer, primary: Host) -> None:
    """As whoever stands there does it: from the network until it was installed."""
    installed = state(primary, "beta") in ("copied", "done")
    machine.start(boot="disk" if installed else "once")


def test_power_lost_at_twenty_moments(lab: Lab) -> None:
    """Each next run goes on or starts clean; in between nothing is in service."""
    choice = random.Random(20)
    machine, alpha = lab.machine("beta"), lab.server("alpha").host
    open_join(lab)
    cuts: list[str] = []
    for _ in range(20):
        switch_on(machine, alpha)
        begun = time.monotonic()
        wait = choice.uniform(35, 110)
        while time.monotonic() - begun < wait:
            time.sleep(1)
        cuts.append(state(alpha, "beta"))
        joining = cuts[-1] != "done"
        machine.power_off()
        shown = alpha.run(["ets", "status", "--json"]).text
        assert not joining or '"in service", "name": "beta"' not in shown
        if not joining:
            break
    switch_on(machine, alpha)
    machine.wait_booted(INSTALL + SERVICE)
    wait_in_service(machine, alpha, "beta")
    assert {"copying"} <= set(cuts), cuts


def old_certificate(lab: Lab, name: str, into: Path) -> None:
    """What a thief of the lost server's disk has."""
    for path in (paths.SERVER_CERT, paths.SERVER_KEY, paths.CA_CERT):
        content = lab.server(name).host.read(str(path))
        assert content is not None
        (into / path.name).write_bytes(content)


def is_let_in(lab: Lab, server: str, keys: Path) -> bool:
    """Does the agent of ``server`` talk to who has these keys?"""
    host = lab.server(server).host
    for path in keys.iterdir():
        host.write(f"/root/thief/{path.name}", path.read_bytes(), mode=0o600)
    curl = (
        "import ssl,sys,http.client as h\n"
        "c=ssl.create_default_context(cafile='/root/thief/ca.crt')\n"
        "c.check_hostname=False\n"
        "c.load_cert_chain('/root/thief/server.crt','/root/thief/server.key')\n"
        "k=h.HTTPSConnection(sys.argv[1],int(sys.argv[2]),context=c,timeout=20)\n"
        "k.request('GET','/v1/records')\n"
        "sys.exit(k.getresponse().status!=200)\n"
    )
    address = str(lab.site.server(server).peering)
    done = host.run(
        ["python3", "-c", curl, address, str(paths.PORT_AGENT_PEERS)], check=False, deadline=60
    )
    return done.status == 0


def test_a_lost_server_and_then_the_primary_are_rebuilt(lab: Lab, tmp_path: Path) -> None:
    """Both servers burn down, one after the other, and come back from whichever is left."""
    join(lab, "beta", source="alpha")
    old_certificate(lab, "beta", tmp_path)
    wait_for("beta's keys to be good", lambda: is_let_in(lab, "alpha", tmp_path), Deadline(60))
    alpha = lab.server("alpha").host
    refused = alpha.run(["ets", "rebuild", "beta", "--unattended", "--no-wait"], check=False)
    assert refused.status == 1
    assert b"not lost" in refused.stderr

    lab.burn("beta")
    join(lab, "beta", source="alpha", command="rebuild")
    assert not is_let_in(lab, "alpha", tmp_path), "the burned server's keys are still good"

    # now the one that was the primary, from the copy of its copy
    alpha.run(["ets", "image", "rollback", "console"], check=False)
    beta = lab.server("beta").host
    records = beta.read(f"{paths.RUNTIME}/records.json")
    lab.burn("alpha")
    join(lab, "alpha", source="beta", command="rebuild", firmware="uefi")
    alpha = lab.server("alpha").host
    assert alpha.run(["hostname"]).text == "alpha\n"
    assert alpha.run(["ets", "verify"], check=False, deadline=180).status == 0
    assert records is not None

    def agree() -> bool:
        try:
            return alpha.read(f"{paths.RUNTIME}/records.json") == beta.read(
                f"{paths.RUNTIME}/records.json"
            )
        except EtsError:
            return False

    wait_for("both to hold the same records", agree, Deadline(120), every=1.0)
