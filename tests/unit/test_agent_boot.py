"""The agent's boot scripts: who gets which, what is written, and that strangers leave nothing."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from ets.agent.boot import Boot, Now
from ets.agent.place import Place, Ports, Tree
from ets.cluster.bootscript import BootImage
from ets.site.load import parse

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
