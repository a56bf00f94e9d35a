"""A blank machine joins for real: it boots from the network, copies the primary that is being
written to, starts from its own disk, and is a server like the other one."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.drills.lab_tools import PAIR, ask, bystander, image_read, lab_name, leftovers

from ets import paths
from ets.host.deadline import Deadline, wait_for
from ets.lab.drills.join import Joined, join, load_on, write_load
from ets.lab.drills.material import Material, gather
from ets.lab.lab import Lab
from ets.lab.qemu import Firmware

pytestmark = [pytest.mark.drill, pytest.mark.root, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def material() -> Material:
    return gather(PAIR, lambda _: None, cloneable=True)


def joined(material: Material, firmware: Firmware) -> Iterator[tuple[Lab, Joined]]:
    """A pair whose second server was made from the first one, under write load."""
    name = lab_name("jo")
    with (
        Lab.up(PAIR, name=name, images=material.images, blank=["beta"]) as lab,
        write_load(lab.server("alpha").host),
    ):
        yield lab, join(lab, "beta", source="alpha", firmware=firmware)
    assert leftovers(name) == []


def the_copy_is_right(lab: Lab) -> None:
    """What was being written is sound, what makes a server is its own, and all answers."""
    alpha, beta = lab.server("alpha").host, lab.server("beta").host
    load = load_on(lab.server("beta"))
    assert load["whole"], load
    assert (load["wal"], load["delete"]) == ("ok", "ok")
    assert load["lines"] > 100
    assert beta.run(["hostname"]).text == "beta\n"
    assert beta.read("/etc/machine-id") != alpha.read("/etc/machine-id")
    assert beta.run(["systemctl", "is-system-running"], check=False).text == "running\n"
    for address in lab.site.server("beta").addresses.values():
        alpha.run(["ping", "-c1", "-W3", str(address)])
    assert beta.run(["ets", "verify"], check=False, deadline=120).status == 0
    assert "/dev/vda" in beta.run(["findmnt", "-no", "SOURCE", "/"]).text
    for name in beta.names(f"{paths.IMAGES}/published"):
        assert beta.read(f"{paths.IMAGES}/published/{name}") == alpha.read(
            f"{paths.IMAGES}/published/{name}"
        )


class TestBios:
    """One join for all: it takes minutes."""

    @pytest.fixture(scope="class")
    @classmethod
    def pair(cls, material: Material) -> Iterator[tuple[Lab, Joined]]:
        yield from joined(material, "bios")

    @pytest.fixture(autouse=True)
    def _healed(self, pair: tuple[Lab, Joined]) -> Iterator[None]:
        yield
        pair[0].heal()

    def test_a_blank_machine_becomes_a_server(self, pair: tuple[Lab, Joined]) -> None:
        lab, how = pair
        the_copy_is_right(lab)
        assert list(how.stages) == ["installer", "installed", "booted", "in service"]

    def test_the_primary_never_stopped(self, pair: tuple[Lab, Joined]) -> None:
        lab, _ = pair
        before = load_on(lab.server("alpha"))
        time.sleep(1)
        after = load_on(lab.server("alpha"))
        assert after["lines"] > before["lines"]
        assert after["whole"]

    def test_stations_are_served_by_it(self, pair: tuple[Lab, Joined], material: Material) -> None:
        lab, _ = pair
        beta = lab.site.server("beta")
        with bystander(lab, "10.77.0.99/22") as station:
            assert ask(station, beta.stations) == "answers"
            image = image_read(station, beta.stations, material.manifest.roothash)
            assert image == material.root.read_bytes()

    @pytest.mark.parametrize("fault", ["hang", "cable", "partition", "slow", "disk-full"])
    def test_faults_hit_it_and_heal(self, pair: tuple[Lab, Joined], fault: str) -> None:
        lab, _ = pair
        beta = lab.site.server("beta")
        silent = {"hang": True, "cable": True}.get(fault, False)
        with bystander(lab, "10.77.0.99/22") as station:
            lab.inject(fault, "beta")
            if fault != "slow":
                assert (ask(station, beta.stations) != "answers") == silent
            if fault == "partition":
                ping = ["ping", "-c1", "-W1", str(beta.peering)]
                assert lab.server("alpha").host.run(ping, check=False).status != 0
            lab.heal("beta")
            wait_for("it", lambda: ask(station, beta.stations) == "answers", Deadline(60))

    def test_damage_is_its_own(self, pair: tuple[Lab, Joined], material: Material) -> None:
        lab, _ = pair
        good = material.root.read_bytes()
        with bystander(lab, "10.77.0.99/22") as station:
            lab.inject("corrupt-block", "beta", every=64)
            export = material.manifest.roothash
            assert image_read(station, lab.site.server("beta").stations, export) != good
            assert image_read(station, lab.site.server("alpha").stations, export) == good

    def test_a_kill_resets_and_it_comes_back(self, pair: tuple[Lab, Joined]) -> None:
        lab, _ = pair
        beta = lab.site.server("beta")
        with bystander(lab, "10.77.0.99/22") as station:
            lab.inject("kill", "beta", in_flight=0.1)
            assert lab.server("beta").status() == "down"
            assert ask(station, beta.stations) == "refused"
            lab.heal("beta")
            lab.server("beta").wait_answering(deadline=120)
            assert ask(station, beta.stations) == "answers"


@pytest.mark.slow
def test_a_uefi_machine_becomes_a_server(material: Material) -> None:
    for lab, _ in joined(material, "uefi"):
        the_copy_is_right(lab)
        lab.inject("power-off", "beta")
        lab.heal("beta")
        lab.server("beta").wait_answering(deadline=120)
