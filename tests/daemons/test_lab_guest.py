"""Commands through a guest agent, with Debian's own agent behind a socket instead of a port."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ets.errors import CommandFailed, DeadlinePassed, HostError
from ets.host.deadline import Deadline, wait_for
from ets.lab.daemon import ServerRoot
from ets.lab.guest import GuestHost
from ets.lab.lab import packages_of
from ets.site.load import read

pytestmark = [pytest.mark.root, pytest.mark.daemons]

PAIR = Path(__file__).parents[2] / "examples/pair.toml"


@pytest.fixture(scope="module")
def socket() -> Iterator[Path]:
    with ServerRoot(packages_of(read(PAIR), cloneable=True)) as root:
        agent = root.start(
            ["qemu-ga", "--method=unix-listen", "--path=/run/agent", "--statedir=/run"]
        )
        path = root.file("/run/agent")
        wait_for("the agent's socket", lambda: path.exists() or not agent.running, Deadline(20))
        assert agent.running, agent.output
        yield path


@pytest.fixture
def host(socket: Path) -> GuestHost:
    return GuestHost("beta", socket)


def test_programs_get_their_input_and_give_output_and_status(host: GuestHost) -> None:
    done = host.run(["sh", "-c", "cat; echo sorry >&2; exit 3"], stdin=b"\0\xff\n", check=False)
    assert (done.status, done.stdout, done.stderr) == (3, b"\0\xff\n", b"sorry\n")
    with pytest.raises(CommandFailed, match="sorry"):
        host.run(["sh", "-c", "echo sorry >&2; exit 3"])
    assert host.run(["sh", "-c", "kill -KILL $$"], check=False).status == -9
    assert host.run(["printenv", "HOME"]).text == "/root\n"


def test_much_output_arrives_whole(host: GuestHost) -> None:
    assert len(host.run(["head", "-c", "3000000", "/dev/zero"]).stdout) == 3_000_000


def test_a_program_that_does_not_end_is_killed(host: GuestHost) -> None:
    with pytest.raises(DeadlinePassed, match="sleep 77"):
        host.run(["sleep", "77"], deadline=0.5)
    gone = ["sh", "-c", "! grep -aqsx 'sleep.77.' /proc/[0-9]*/cmdline"]
    wait_for("it to be gone", lambda: host.run(gone, check=False).status == 0, Deadline(10))


def test_files_are_changed_as_on_any_host(host: GuestHost) -> None:
    host.write("/tmp/new/file", b"content", mode=0o640)
    assert host.read("/tmp/new/file") == b"content"
    assert host.look(["/tmp/new/file"])["/tmp/new/file"].mode == 0o640
    assert host.names("/tmp/new") == ("file",)
    assert host.read("/tmp/none") is None


def test_a_lock_is_held_once(host: GuestHost) -> None:
    with host.hold("/tmp/lock"), pytest.raises(HostError, match="lock"), host.hold("/tmp/lock"):
        pass
    with host.hold("/tmp/lock"):
        pass


def test_several_ask_at_the_same_time(host: GuestHost) -> None:
    texts: list[str] = []
    asks = [
        threading.Thread(
            target=lambda n=n: texts.append(host.run(["sh", "-c", f"sleep 0.{n}; echo {n}"]).text)
        )
        for n in range(8)
    ]
    began = time.monotonic()
    for ask in asks:
        ask.start()
    for ask in asks:
        ask.join()
    assert sorted(texts) == [f"{n}\n" for n in range(8)]
    assert time.monotonic() - began < 5


def test_from_a_shell(host: GuestHost) -> None:
    line = host.wrap(["sh", "-c", "cat; exit 4"])
    done = subprocess.run(line, input=b"hello", capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (4, b"hello")
    assert line[0] == sys.executable


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no guest agent"):
        GuestHost("beta", tmp_path / "agent").run(["true"])
