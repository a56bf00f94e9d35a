"""The helper against real nbdkit servers that die, hang, vanish, crawl and lie.

Every read is compared byte by byte in Station; a wrong byte or an error fails the test at its end.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from tests.rootd.reader import Station

from _rootrig import BLOCK, Image, Rig, make_image, now
from ets.host.deadline import Deadline, wait_for

pytestmark = pytest.mark.root

Start = Callable[..., Station]


def under_fault(station: Station, inject: Callable[[], None], seconds: float = 1.5) -> float:
    """The longest read that was under way from the fault on, with four readers at work."""
    station.load()
    time.sleep(0.7)
    began = now()
    inject()
    time.sleep(seconds)
    return station.longest(began)


def test_every_byte_of_data_and_tree(pair: Rig, start: Start, image: Image) -> None:
    with start(pair, "--with-tree") as station:
        station.read(0, len(station.data))
        station.read_some(200)
        station.read(image.size - 512, 1024)  # the last data and the first tree block
        assert station.send(3, 0, 0).result(10) >= 0  # a flush
        assert station.stats()["wrong"] == 0


def test_trees_of_any_height(tmp_path: Path, start: Start) -> None:
    with Rig(tmp_path, 1) as rig:
        rig.servers[0].start()
        for blocks in (1, 2, 128, 129, 16385):
            small = make_image(tmp_path / "small.img", blocks)
            rig.servers[0].give(small)
            with start(rig, "--with-tree", of=small) as station:
                station.read(0, len(station.data))


def test_killed_with_reads_in_flight(pair: Rig, start: Start) -> None:
    for server in pair.servers:
        server.restart(delay_ms=20)
    with start(pair) as station:
        assert under_fault(station, pair.servers[0].kill) <= 0.3
        pair.servers[0].start()
        station.wait_state(0, "up")


def test_hanging(pair: Rig, start: Start) -> None:
    with start(pair) as station:
        assert under_fault(station, pair.servers[0].stop) <= 1
        began = now()
        time.sleep(0.5)
        assert station.longest(began) <= 0.3, "only the first reads may pay for a hanging server"
        pair.servers[0].resume()


def test_powered_off(pair: Rig, start: Start) -> None:
    def power_off() -> None:
        pair.servers[0].unplug()
        pair.servers[0].kill()

    with start(pair) as station:
        assert under_fault(station, power_off, 2) <= 1
        station.wait_state(0, "connecting")
        pair.servers[0].plug()
        pair.servers[0].start()
        station.wait_state(0, "up")


def test_slow(pair: Rig, start: Start) -> None:
    with start(pair) as station:
        under_fault(station, lambda: pair.servers[0].restart(delay_ms=1500), 3)
        quick = [read.took < 0.5 for read in station.done]
        assert sum(quick) / len(quick) > 0.99


def test_returns_to_its_own_order(pair: Rig, start: Start) -> None:
    with start(pair) as station:
        under_fault(station, pair.servers[0].stop, 1)
        pair.servers[0].resume()
        wait_for("its own order", lambda: first_leads(station), Deadline(10))


def first_leads(station: Station) -> bool:
    """Does the first server get most reads just now?"""
    before = station.stats()["servers"]
    after = station.stats()["servers"]
    first, second = (after[i]["reads"] - before[i]["reads"] for i in (0, 1))
    return bool(first > 2 * second)


def test_corrupt_server_is_avoided(pair: Rig, start: Start, image: Image) -> None:
    bad = pair.servers[0].exports / image.roothash
    flip(bad, [block * BLOCK + 77 for block in range(0, image.blocks, 40)])
    with start(pair) as station:
        station.read(0, image.size)
        stats = station.stats()
        assert stats["servers"][0]["wrong"] >= 1
        assert stats["servers"][0]["state"] == "avoided"
        assert stats["servers"][1]["wrong"] == 0
        assert "sent a wrong block" in station.log


def test_corrupt_tree(pair: Rig, start: Start, image: Image) -> None:
    bad = pair.servers[0].exports / image.roothash
    flip(bad, range(image.size, bad.stat().st_size, 1000))
    with start(pair, "--with-tree") as station:
        station.read(0, len(station.data))
        assert station.stats()["servers"][0]["wrong"] >= 1


def test_corrupt_only_server_gives_no_wrong_byte(
    tmp_path: Path, start: Start, image: Image
) -> None:
    with Rig(tmp_path, 1) as rig:
        copy = rig.servers[0].give(image)
        flip(copy, [100])
        rig.servers[0].start()
        with start(rig) as station:
            station.read(BLOCK, BLOCK)
            wanted = station.send(0, 0, BLOCK)
            time.sleep(2)
            assert not wanted.done(), "a wrong block was handed on"
            flip(copy, [100])  # mended: the same read, still waiting, is answered
            assert wanted.result(5) > 2


def test_server_that_cannot_read_its_disk(pair: Rig, start: Start, image: Image) -> None:
    with start(pair) as station:
        station.read_some(20)
        (pair.servers[0].exports / image.roothash).open("r+b").truncate(image.size // 2)
        station.read(0, image.size)  # nbdkit answers with an error, or a short image


def test_server_without_the_image_and_one_cut_off(pair: Rig, start: Start, image: Image) -> None:
    missing, cut = (server.exports / image.roothash for server in pair.servers)
    kept = missing.rename(missing.with_suffix(".away"))
    whole = cut.read_bytes()
    cut.write_bytes(whole[:-1])
    with start(pair) as station:
        wanted = station.send(0, 0, BLOCK)
        time.sleep(1.5)
        assert [station.state(i) for i in (0, 1)] == ["refused", "refused"]
        assert not wanted.done()
        kept.rename(missing)
        assert wanted.result(6) > 1, "a server that gets the image is used without a restart"


def test_all_away_then_one_returns(pair: Rig, start: Start) -> None:
    with start(pair) as station:
        station.load()
        time.sleep(1)
        for server in pair.servers:
            server.unplug()
            server.kill()
        time.sleep(5)
        done = len(station.done)
        pair.servers[1].plug()
        pair.servers[1].start()
        returned = now()
        while len(station.done) == done:
            assert now() < returned + 2, "reads resume too late"
            time.sleep(0.01)
        station.unload()


def test_five_servers_four_lost(tmp_path: Path, start: Start, image: Image) -> None:
    with Rig(tmp_path, 5) as rig:
        for server in rig.servers:
            server.give(image)
            server.start()
        with start(rig) as station:
            station.load()
            for number, server in enumerate(rig.servers[:4]):
                (server.kill, server.stop, server.unplug, server.kill)[number]()
                time.sleep(0.5)
            began = now()
            time.sleep(1)
            assert station.longest(began) <= 1
            assert station.stats()["servers"][4]["reads"] > 0


@pytest.mark.parametrize(
    ("seed", "seconds"), [(1, 5), pytest.param(2, 120, marks=pytest.mark.slow)]
)
def test_faults_in_random_order(
    seed: int, seconds: float, tmp_path: Path, start: Start, image: Image
) -> None:
    choice = random.Random(seed)
    with Rig(tmp_path, 3) as rig:
        for server in rig.servers:
            server.give(image)
            server.start()
        with start(rig, "--with-tree") as station:
            station.load(6, seed)
            end = now() + seconds
            while now() < end:
                something(choice, rig, image, station)
                time.sleep(choice.uniform(0, 0.5))
            for server in rig.servers:  # everything is well again
                server.resume()
                server.plug()
                server.give(image)
                server.restart()
            returned = now()
            time.sleep(2.5)
            assert station.longest(returned + 2) < 2
            station.unload()
            assert len(station.done) > 100


def something(choice: random.Random, rig: Rig, image: Image, station: Station) -> None:
    """One fault, or one repair."""
    server = choice.choice(rig.servers)
    copy = server.exports / image.roothash
    faults: list[Callable[[], object]] = [
        server.kill,
        server.stop,
        server.resume,
        server.unplug,
        server.plug,
        server.restart,
        lambda: server.restart(delay_ms=choice.choice([5, 100, 1500])),
        lambda: flip(copy, [choice.randrange(copy.stat().st_size) for _ in range(50)]),
        lambda: server.give(image),
        lambda: copy.write_bytes(station.data[: choice.randrange(len(station.data))]),
    ]
    choice.choice(faults)()


def flip(path: Path, offsets: Iterable[int]) -> None:
    """Changes one bit at each offset, in place: a server's disk has gone bad."""
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 0x10]))
