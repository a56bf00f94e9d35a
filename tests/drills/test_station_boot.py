"""A station boots the pair's image to its login and outlives its servers, without a whole lab."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.drills.station_rig import ADDRESS, MAC, SERVERS, Rig

from ets.errors import DeadlinePassed
from ets.host.deadline import Deadline, wait_for
from ets.image import build as builder
from ets.image.store import Store
from ets.site.load import read

pytestmark = [pytest.mark.root, pytest.mark.drill, pytest.mark.timeout(600)]

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def image() -> tuple[Store, str]:
    cache = builder.cache_directory()
    digest = builder.ensure(read(EXAMPLES / "pair.toml"), "console", cache, base=EXAMPLES)
    return Store(cache / "images"), digest


def test_a_station_boots_reports_and_outlives_its_servers(
    image: tuple[Store, str], tmp_path: Path
) -> None:
    with Rig(*image, tmp_path) as rig:
        first, second = (rig.serve(address) for address in SERVERS)
        services = rig.services(lease=12)
        rig.boot(rig.command_line)
        assert rig.await_login()["event"] == "login"
        rig.await_console("ws01 login:", 60)

        rig.await_reads(20)
        assert rig.wrong_reads() == []

        _reports_are_right(rig)
        _lease_is_renewed(rig)

        # The DHCP server dies and the lease runs out: the address stays, the root hangs on it.
        services.kill()
        first.kill()
        rig.await_reads(200)
        assert rig.wrong_reads() == []

        # Nobody is left for a while, then one comes back.
        second.kill()
        second.wait()
        with pytest.raises(DeadlinePassed):
            rig.await_reads(20, seconds=8)
        rig.serve(SERVERS[1])
        rig.await_reads(20)
        assert rig.wrong_reads() == []
        assert "I/O error" not in rig.said()


def _reports_are_right(rig: Rig) -> None:
    def enough() -> bool:
        posts = rig.records("post")
        return all(sum(p["server"] == server for p in posts) >= 2 for server in SERVERS)

    wait_for("two reports to each server", enough, Deadline(60))
    last = rig.records("post")[-1]
    report = json.loads(last["body"])
    assert last["path"] == "/api/station/report"
    assert (report["mac"], report["name"]) == (MAC, "ws01")
    assert (report["digest"], report["root"]) == (rig.digest, rig.manifest.roothash)
    assert report["uptime"] > 5
    assert report["reads"] > 0
    assert report["wrong"] == 0
    assert [server["address"].split(":")[0] for server in report["servers"]] == list(SERVERS)
    assert {server["state"] for server in report["servers"]} == {"up"}


def _lease_is_renewed(rig: Rig) -> None:
    """First asked for from nowhere, then renewed from the address itself, as the same client."""

    def renewed() -> bool:
        return any(
            record["kind"] == "request" and record["ciaddr"] == ADDRESS
            for record in rig.records("dhcp")
        )

    wait_for("the lease to be renewed", renewed, Deadline(60))
    assert {record["id"] for record in rig.records("dhcp")} == {"01" + MAC.replace(":", "")}


def test_a_wrong_command_line_and_a_missing_card_are_named_on_the_console(
    image: tuple[Store, str], tmp_path: Path
) -> None:
    with Rig(*image, tmp_path) as rig:
        station = rig.boot(f"quiet ets.servers={SERVERS[0]} {rig.address_words}")
        rig.await_console("the kernel command line lacks ets.servers=, ets.root= or ets.blocks=")
        rig.await_console("run 'ets status' there", 1)
        assert station.poll() is None
        station.kill()
        station.wait()
        rig.boot(f"quiet {rig.command_line}", mac="52:54:00:00:00:09")
        rig.await_console(f"no network card with MAC {MAC.replace(':', '-')} found yet")


def test_a_station_whose_servers_are_all_away_waits_and_says_so(
    image: tuple[Store, str], tmp_path: Path
) -> None:
    with Rig(*image, tmp_path) as rig:
        rig.boot(rig.command_line)
        rig.await_console("ets: asking")
        rig.await_console("ets-rootd: ")
        for address in SERVERS:
            rig.serve(address)
        rig.await_console("root device /dev/nbd0 is ready")


@pytest.mark.slow
def test_a_sealed_station_reads_through_dm_verity(image: tuple[Store, str], tmp_path: Path) -> None:
    with Rig(*image, tmp_path) as rig:
        for address in SERVERS:
            rig.serve(address)
        rig.boot(f"{rig.command_line} ets.seal=1")
        rig.await_login()
        assert "root device /dev/mapper/ets-root is ready" in rig.said()
        assert "device-mapper: verity: sha256" in rig.said()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_debians_usual_kernel_boots_sealed_on_an_e1000_card(tmp_path: Path) -> None:
    cache = builder.cache_directory()
    digest = builder.ensure(read(EXAMPLES / "campus.toml"), "console", cache, base=EXAMPLES)
    store = Store(cache / "images")
    assert store.manifest(digest).seal
    with Rig(store, digest, tmp_path) as rig:
        for address in SERVERS:
            rig.serve(address)
        rig.boot(f"{rig.command_line} ets.seal=1", card="e1000", memory=768)
        rig.await_login(400)
        assert "e1000" in rig.said()
        assert "root device /dev/mapper/ets-root is ready" in rig.said()


@pytest.mark.slow
def test_the_same_image_boots_as_plain_ltsp_from_one_server(
    image: tuple[Store, str], tmp_path: Path
) -> None:
    """What the measurements compare with: Debian's nbd-client and LTSP alone."""
    with Rig(*image, tmp_path) as rig:
        rig.serve(SERVERS[0])
        rig.boot(
            f"nbdroot={SERVERS[0]},{rig.manifest.roothash},nbd0 root=/dev/nbd0 "
            f"net.ifnames=0 {rig.address_words}"
        )
        rig.await_login()
        assert "ets-rootd" not in rig.said()
        rig.await_reads(20)
        assert rig.wrong_reads() == []
