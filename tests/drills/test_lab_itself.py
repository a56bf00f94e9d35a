"""The lab itself: it comes up, it goes without a trace, also when it was killed, two of them do
not see each other, and every fault does what its name says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.drills.lab_tools import (
    PAIR,
    ask,
    bystander,
    image_read,
    lab_name,
    leftovers,
    processes,
    tiny_store,
)

from ets import paths
from ets.errors import InputError, LabError
from ets.host.deadline import Deadline, wait_for
from ets.lab.lab import Lab, clean
from ets.lab.state import LabState

pytestmark = [pytest.mark.drill, pytest.mark.root]


def test_up_and_down_leaves_nothing() -> None:
    name = lab_name("ud")
    with Lab.up(PAIR, name=name, apply=False) as lab:
        for server in lab.servers.values():
            assert server.status() == "up"
            assert server.host.run(["hostname"]).text.strip() == server.name
            assert server.host.read("/etc/ets/server") == f"{server.name}\n".encode()
        alpha, beta = lab.server("alpha"), lab.server("beta")
        for address in beta.server.addresses.values():
            alpha.host.run(["ping", "-c1", "-W2", str(address)])
        assert alpha.host.read("/etc/machine-id") != beta.host.read("/etc/machine-id")
        assert (
            alpha.host.read(str(paths.SITE_SECRET)) == beta.host.read(str(paths.SITE_SECRET))
        ) is True
        assert list(processes(name))
        with pytest.raises(LabError, match="is up"):
            Lab.up(PAIR, name=name)
        assert Lab.attach(name).server("beta").host.run(["hostname"]).text == "beta\n"
    assert leftovers(name) == []
    lab.down()
    with pytest.raises(LabError, match="no lab"):
        Lab.attach(name)


def test_no_server_can_set_the_clock() -> None:
    # The time that is asked for is the present one: where the guard fails, nothing is harmed.
    # It must be a unit of the server: what the lab starts from outside is not held back.
    with Lab.up(PAIR, name=lab_name("ck"), apply=False) as lab:
        asked = ["systemd-run", "--quiet", "--wait", "date", "--set", f"@{int(time.time())}"]
        assert lab.server("alpha").host.run(asked, check=False).status != 0


def test_a_station_that_is_unknown_to_the_site_or_the_lab() -> None:
    with Lab.up(PAIR, name=lab_name("us"), apply=False) as lab:
        with pytest.raises(InputError, match="no server 'gamma'"):
            lab.server("gamma")
        with pytest.raises(InputError, match="no started station 'ws01'"):
            lab.station("ws01")
        with pytest.raises(InputError, match="firmware"):
            lab.start_station("ws01", firmware="acorn")


_UP = """
import sys, time
from pathlib import Path
from ets.lab.lab import Lab
lab = Lab.up(Path(sys.argv[1]), name=sys.argv[2], apply=False)
lab.start_station("ws01")
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("moment", ["starting", "up"])
def test_what_a_killed_run_left_goes_with_the_next_start(moment: str) -> None:
    name = lab_name("k" + moment[0])
    process = subprocess.Popen(
        [sys.executable, "-c", _UP, str(PAIR), name], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        if moment == "starting":
            begun = lambda: list(processes(name))[1:]  # noqa: E731
            wait_for("the first process of the lab", begun, Deadline(60), every=0.01)
        else:
            assert process.stdout is not None
            assert b"up\n" in process.stdout
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert LabState.load(name).stale
    assert leftovers(name)
    with pytest.raises(LabError, match="left behind"):
        Lab.attach(name)
    other = lab_name("nx")
    with Lab.up(PAIR, name=other, apply=False):
        assert leftovers(name) == []
    assert leftovers(other) == []
    assert name not in clean()


def test_two_labs_side_by_side() -> None:
    first, second = lab_name("s1"), lab_name("s2")
    with Lab.up(PAIR, name=first, apply=False) as one:
        with Lab.up(PAIR, name=second, apply=False) as two:
            one.server("alpha").host.write("/run/whose", b"one")
            two.server("alpha").host.write("/run/whose", b"two")
            assert one.server("alpha").host.read("/run/whose") == b"one"
            two.inject("power-off", "beta")
            one.server("alpha").host.run(["ping", "-c1", "-W2", "10.77.0.12"])
            assert (
                two.server("alpha")
                .host.run(["ping", "-c1", "-W1", "10.77.0.12"], check=False)
                .status
            )
        assert leftovers(second) == []
        one.server("alpha").host.run(["ping", "-c1", "-W2", "10.77.0.12"])
    assert leftovers(first) == []


class TestFaults:
    """One lab for all faults: each is healed before the next."""

    @pytest.fixture(scope="class")
    @classmethod
    def export(cls, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
        root = tmp_path_factory.mktemp("images") / "store"
        return root, tiny_store(root)

    @pytest.fixture(scope="class")
    @classmethod
    def lab(cls, export: tuple[Path, str]) -> Iterator[Lab]:
        with Lab.up(PAIR, name=lab_name("fl"), images=export[0]) as lab:
            yield lab

    @pytest.fixture(autouse=True)
    def _healed(self, lab: Lab) -> Iterator[None]:
        yield
        lab.heal()

    def seen(self, lab: Lab) -> str:
        """alpha's block export as beta sees it."""
        beta = lab.topology.namespace(lab.site.server("beta"))
        return ask(beta, lab.site.server("alpha").stations)

    def answers_again(self, lab: Lab) -> None:
        wait_for("alpha to answer", lambda: self.seen(lab) == "answers", Deadline(20))

    def test_quiet(self, lab: Lab) -> None:
        assert self.seen(lab) == "answers"
        assert lab.server("beta").status() == "up"

    def test_kill_resets_connections(self, lab: Lab) -> None:
        lab.inject("kill", "alpha", in_flight=0.1)
        assert self.seen(lab) == "refused"
        assert lab.server("alpha").status() == "down"
        with pytest.raises(LabError, match="already"):
            lab.inject("kill", "alpha")
        assert lab.heal("alpha") == ["alpha: kill"]
        self.answers_again(lab)
        # what must run is started by the boot, not by somebody
        lab.server("alpha").wait_answering()

    def test_power_off_says_nothing(self, lab: Lab) -> None:
        lab.server("alpha").host.write("/var/lib/ets/kept", b"yes")
        lab.inject("power-off", "alpha")
        assert self.seen(lab) in ("silent", "unreachable")
        lab.heal("alpha")
        self.answers_again(lab)
        assert lab.server("alpha").host.read("/var/lib/ets/kept") == b"yes"

    def test_hang_is_silent(self, lab: Lab) -> None:
        lab.inject("hang", "alpha")
        assert self.seen(lab) == "silent"
        assert lab.server("alpha").status() == "frozen"
        lab.heal("alpha")
        self.answers_again(lab)

    def test_a_hanging_server_can_be_killed(self, lab: Lab) -> None:
        lab.inject("hang", "alpha")
        lab.inject("kill", "alpha")
        assert self.seen(lab) == "refused"
        assert lab.heal("alpha") == ["alpha: kill", "alpha: hang"]
        self.answers_again(lab)

    def test_cable_cuts_one_network(self, lab: Lab) -> None:
        alpha = lab.site.server("alpha")
        lab.inject("cable", "alpha")
        assert self.seen(lab) in ("silent", "unreachable")
        lab.server("beta").host.run(["ping", "-c1", "-W2", str(alpha.addresses["lan"])])
        assert "NO-CARRIER" in lab.server("alpha").host.run(["ip", "link", "show", "eth1"]).text
        lab.heal("alpha")
        self.answers_again(lab)
        with pytest.raises(InputError, match="no network 'wifi'"):
            lab.inject("cable", "alpha", network="wifi")
        lab.heal("alpha")

    def test_partition_is_between_servers_only(self, lab: Lab) -> None:
        alpha, beta = lab.site.server("alpha"), lab.site.server("beta")
        with bystander(lab, "10.77.0.99/22") as station:
            lab.inject("partition", "alpha")
            assert self.seen(lab) in ("silent", "unreachable")
            for role in alpha.addresses:
                ping = ["ping", "-c1", "-W1", str(alpha.addresses[role])]
                assert lab.server("beta").host.run(ping, check=False).status != 0
            assert ask(station, alpha.stations) == "answers"
            assert ask(station, beta.stations) == "answers"
            lab.heal("alpha")
            self.answers_again(lab)

    def test_slow_delays_every_read(self, lab: Lab, export: tuple[Path, str]) -> None:
        alpha, net = lab.site.server("alpha"), lab.topology.namespace(lab.site.server("beta"))
        start = time.monotonic()
        image = image_read(net, alpha.stations, export[1])
        quick = time.monotonic() - start
        lab.inject("slow", "alpha", seconds=0.7)
        self.answers_again(lab)
        start = time.monotonic()
        assert image_read(net, alpha.stations, export[1]) == image
        assert time.monotonic() - start > quick + 0.6
        lab.heal("alpha")
        self.answers_again(lab)
        start = time.monotonic()
        image_read(net, alpha.stations, export[1])
        assert time.monotonic() - start < 0.7

    def test_corrupt_block_hits_one_server(self, lab: Lab, export: tuple[Path, str]) -> None:
        alpha, beta = lab.site.server("alpha"), lab.site.server("beta")
        net = lab.topology.namespace(beta)
        good = image_read(net, alpha.stations, export[1])
        lab.inject("corrupt-block", "alpha", every=4)
        bad = image_read(net, alpha.stations, export[1])
        wrong = {at // 4096 for at, byte in enumerate(good) if byte != bad[at]}
        assert wrong == set(range(0, len(good) // 4096, 4))
        assert image_read(net, beta.stations, export[1]) == good
        lab.heal("alpha")
        assert image_read(net, alpha.stations, export[1]) == good

    def test_disk_full_lets_nothing_be_written(self, lab: Lab, export: tuple[Path, str]) -> None:
        host = lab.server("alpha").host
        path = f"{paths.IMAGES}/exports/{export[1]}"
        lab.inject("disk-full", "alpha")
        done = host.run(["cp", "/etc/passwd", f"{paths.STATE}/new"], check=False)
        assert b"No space left" in done.stderr
        host.run(["cmp", path, path])
        assert self.seen(lab) == "answers"
        lab.heal("alpha")
        host.write(f"{paths.STATE}/new", b"data")

    def test_the_pieces_of_an_interrupted_injection_can_be_healed(self, lab: Lab) -> None:
        for fault in ("kill", "power-off", "hang", "cable", "partition", "slow", "disk-full",
                      "corrupt-block"):  # fmt: skip
            lab.state.faults.setdefault("alpha", {})[fault] = {}
        assert len(lab.heal()) == 8
        self.answers_again(lab)
