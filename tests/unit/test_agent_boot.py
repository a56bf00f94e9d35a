"""The agent's boot scripts: who gets which, what is written, and that strangers leave nothing."""

from __future__ import annotations

import re
import tracemalloc
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

import pytest

from ets.agent.boot import Boot, Now
from ets.agent.place import Place, Ports, Tree
from ets.cluster.bootscript import BootImage
from ets.cluster.newcomers import Newcomer
from ets.site.load import parse
from ets.site.model import Image

PAIR = Path(__file__).parents[2] / "examples" / "pair.toml"
IMAGE = BootImage("console", "ab" * 32, "cd" * 32, 1234)
NOW = Now({"console": IMAGE})
KNOWN, STRANGER = "52:54:00:77:00:01", "52:54:00:99:00:01"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    site = parse(PAIR.read_bytes())
    return Place(site, site.server("alpha"), b"", Tree.below(tmp_path), Ports())


def without_guests(place: Place) -> Place:
    site = replace(place.site, defaults=replace(place.site.defaults, guests=False))
    return replace(place, site=site)


def test_a_known_station_and_a_guest_boot(place: Place) -> None:
    boot = Boot(place)
    assert ":ws01:" in boot.script(KNOWN, NOW)
    assert ":guest-525400990001:" in boot.script(STRANGER, NOW)


def test_every_server_gives_the_same_script(place: Place) -> None:
    beta = replace(place, me=place.site.server("beta"))
    for mac in (KNOWN, STRANGER):
        assert Boot(place).script(mac, NOW) == Boot(beta).script(mac, NOW)


def test_a_lost_server_goes_to_the_end_and_a_drained_one_away(place: Place) -> None:
    boot = Boot(place)
    first, second = (server.name for server in boot.order(KNOWN, NOW))
    lost = boot.order(KNOWN, Now(NOW.images, lost={first}))
    assert [server.name for server in lost] == [second, first]
    drained = boot.order(KNOWN, Now(NOW.images, drained={first}))
    assert [server.name for server in drained] == [second]


def test_a_stranger_where_guests_are_not_allowed_is_told_so(place: Place) -> None:
    boot = Boot(without_guests(place))
    script = boot.script(STRANGER, NOW)
    assert "unknown at site pair" in script
    assert "kernel" not in script
    assert "kernel" in boot.script(KNOWN, NOW)
    assert "kernel" not in boot.default(NOW)


def test_without_an_image_the_screen_says_what_to_do(place: Place) -> None:
    script = Boot(place).script(KNOWN, Now({}))
    assert "ets image publish" in script
    assert script.splitlines()[-1] == "goto again"


def test_files_are_written_changed_and_removed(place: Place) -> None:
    boot = Boot(place)
    booting = len(place.site.stations) + 1
    count = booting + sum(1 for server in place.site.servers if server.mac)
    assert boot.write_files(NOW) == count
    assert boot.write_files(NOW) == 0
    assert boot.write_files(Now(NOW.images, lost={"beta"})) == 0
    assert Boot(place).write_files(NOW) == 0
    old = place.tree.boot / "52-54-00-00-00-00.ipxe"
    old.write_text("#!ipxe\n")
    other = place.tree.boot / "README"
    other.write_text("mine")
    assert boot.write_files(Now({"console": replace(IMAGE, digest="ef" * 32)})) == booting + 1
    assert not old.exists()
    assert other.exists()
    names = {path.name for path in place.tree.boot.glob("*.ipxe")}
    assert {"default.ipxe", "52-54-00-77-00-01.ipxe"} <= names
    assert len(names) == count


def test_a_file_is_named_by_a_mac_or_not_at_all(place: Place) -> None:
    boot = Boot(place)
    assert boot.mac_of("52-54-00-77-00-01.ipxe") == KNOWN
    for name in ("default.ipxe", "52-54-00-77-00-01", "..%2f..ipxe", ".ipxe", "x" * 10_000):
        assert boot.mac_of(name) is None


def test_strangers_leave_nothing_behind(place: Place) -> None:
    """A hundred thousand of them ask a real agent in tests/daemons/test_agent_hostile.py."""
    boot = Boot(place)

    def ask(first: int) -> None:
        for n in range(first, first + 2000):
            mac = f"52:54:00:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}"
            assert boot.script(mac, NOW).startswith("#!ipxe")

    ask(0)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        ask(10_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 50_000


INSTALLER = BootImage("installer", "12" * 32, "34" * 32, 99)
SERVER = "52:54:00:88:00:02"
ALPHA = IPv4Address("10.77.0.11")


def joining(place: Place) -> Place:
    """The pair with an installer, and a card for beta."""
    images = {**place.site.images, "installer": Image("installer", role="installer")}
    servers = tuple(
        replace(server, mac=SERVER if server.name == "beta" else None)
        for server in place.site.servers
    )
    return replace(place, site=replace(place.site, images=images, servers=servers))


def with_join(mac: str | None, boots: Literal["install", "disk"] = "install") -> Now:
    images = {"console": IMAGE, "installer": INSTALLER}
    return Now(images, newcomers=[Newcomer("beta", ALPHA, mac, boots)])


def test_the_card_of_a_join_boots_the_installer_and_then_its_disk(place: Place) -> None:
    boot = Boot(joining(place))
    for mac in (SERVER, STRANGER, KNOWN):
        script = boot.script(mac, with_join(mac))
        assert f"ets.digest={INSTALLER.digest}" in script
        assert "ets.join=10.77.0.11" in script
        # who is being made is nobody to boot from
        assert "10.77.0.12" not in script
        copied = boot.script(mac, with_join(mac, "disk"))
        assert "sanboot --no-describe --drive 0x80" in copied
        assert "kernel" not in copied
    assert ":ws02:" in boot.script("52:54:00:77:00:02", with_join(SERVER))


def test_a_servers_own_card_boots_its_disk_when_nothing_is_open(place: Place) -> None:
    boot = Boot(joining(place))
    assert "this is server beta" in boot.script(SERVER, NOW)
    boot.write_files(NOW)
    assert "sanboot" in (place.tree.boot / "52-54-00-88-00-02.ipxe").read_text()


def test_any_other_machine_is_asked_when_no_card_was_named(place: Place) -> None:
    boot = Boot(joining(place))
    script = boot.script(STRANGER, with_join(None))
    assert "press J within 5 s to install this machine as server beta" in script
    assert ":guest-525400990001:" in script
    assert "ets.join=10.77.0.11" in script
    labels = re.findall(r"^:(\w+)$", script, re.MULTILINE)
    assert len(set(labels)) == len(labels)
    assert set(re.findall(r"goto (\w+)", script)) <= set(labels)
    # both ways end in one that never ends
    guest, _, install = script.partition("\n:install\n")
    assert guest.endswith("goto station_again")
    assert install.endswith("goto install_again\n")
    # a workstation is not asked, and starts as ever
    assert "press J" not in boot.script(KNOWN, with_join(None))
    # what is copied already is nothing to offer
    assert "press J" not in boot.script(STRANGER, with_join(None, "disk"))


def test_without_an_installer_it_says_so(place: Place) -> None:
    now = Now({"console": IMAGE}, newcomers=[Newcomer("beta", ALPHA, STRANGER, "install")])
    for at in (place, joining(place)):
        script = Boot(at).script(STRANGER, now)
        assert "a server may join, but" in script
        assert "goto again" in script


def test_where_strangers_are_not_served_a_join_is_offered_all_the_same(place: Place) -> None:
    boot = Boot(without_guests(joining(place)))
    script = boot.script(STRANGER, with_join(None))
    assert "press J" in script
    assert "add this MAC to the site file" in script
