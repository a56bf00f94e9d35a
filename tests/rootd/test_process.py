"""The helper's processes: restarts, hostile servers, command lines."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.rootd.reader import Station

from _rootrig import BLOCK, Image, Rig, now
from ets.host.deadline import Deadline, wait_for

pytestmark = pytest.mark.root

Start = Callable[..., Station]


def kill_data_process(station: Station, number: signal.Signals = signal.SIGKILL) -> int:
    """Kills the data process; returns its pid."""
    pid = wait_for("a data process", station.data_processes, Deadline(5), every=0.01)[0]
    os.kill(pid, number)
    return pid


@pytest.mark.parametrize("kills", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_data_process_killed_under_load(kills: int, pair: Rig, start: Start) -> None:
    """Wherever the signal hits, the new one goes on in the same stream, to the byte."""
    choice = random.Random(kills)
    with start(pair) as station:
        station.load(4)
        for _ in range(kills):
            time.sleep(1.1 + choice.random() / 20)  # older than a second: restarted at once
            began = now()
            kill_data_process(station)
            time.sleep(0.5)
            assert station.longest(began) <= 0.5
        station.unload()
        assert station.log.count("starting another") == kills
        assert "new socket" not in station.log


def test_data_process_killed_while_all_servers_are_away(pair: Rig, start: Start) -> None:
    with start(pair) as station:
        station.read_some(5)
        for server in pair.servers:
            server.kill()
        waiting = [station.send(0, number * BLOCK, 3 * BLOCK) for number in range(180)]
        time.sleep(0.5)
        kill_data_process(station)
        time.sleep(0.5)
        assert not any(read.done() for read in waiting)
        pair.servers[1].start()
        for read in waiting:
            read.result(10)


@pytest.mark.slow
def test_data_process_that_hangs_is_replaced(pair: Rig, start: Start) -> None:
    with start(pair) as station:
        station.read_some(5)
        kill_data_process(station, signal.SIGSTOP)
        assert station.read(0, BLOCK, timeout=25) > 1
        assert "hangs, killing it" in station.log


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--fd", "0", "--root", "12", "--blocks", "1", "--servers", "10.0.0.1"],
        ["--fd", "0", "--root", "g" * 64, "--blocks", "1", "--servers", "10.0.0.1"],
        ["--fd", "0", "--root", "a" * 64, "--blocks", "0", "--servers", "10.0.0.1"],
        ["--fd", "0", "--root", "a" * 64, "--blocks", "99999999999999999999", "--servers", "1"],
        ["--fd", "0", "--root", "a" * 64, "--blocks", "1", "--servers", "10.0.0.256"],
        ["--fd", "0", "--root", "a" * 64, "--blocks", "1", "--servers", "10.0.0.1:70000"],
        ["--fd", "0", "--root", "a" * 64, "--blocks", "1", "--servers", ","],
        ["--fd", "0", "--root", "a" * 64, "--blocks", "1", "--servers", "10.0.0.1," * 17],
        ["--fd", "0", "--device", "0", "--root", "a" * 64, "--blocks", "1", "--servers", "1.1.1.1"],
        ["--fd", "0", "--root", "a" * 64, "--blocks", "1", "--servers", "1.1.1.1", "--hedge-ms=x"],
        ["--nonsense"],
    ],
)
def test_wrong_command_line(programs: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [programs / "rootd", *arguments],
        capture_output=True,
        timeout=10,
        check=False,
        env={"ASAN_OPTIONS": "detect_leaks=0"},
    )
    assert done.returncode == 2
    assert b"usage: rootd" in done.stderr


@contextmanager
def hostile(image: Image, seed: int) -> Iterator[tuple[str, list[int]]]:
    """A server on loopback that is right at first in each connection, and then is not. Yields its
    address and a list that grows with each connection."""
    met: list[int] = []
    choice = random.Random(seed)
    data = image.path.read_bytes()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        try:
            with client:
                converse(client, data, choice)
        except (OSError, struct.error):
            return

    def listen() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            met.append(1)
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", met
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def converse(client: socket.socket, data: bytes, choice: random.Random) -> None:
    """One connection, with garbage from some point on."""
    greeting = b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3)
    option = struct.pack(">QII", 0x3E889045565A9, 7, 3) + struct.pack(">IHQH", 12, 0, len(data), 3)
    ack = struct.pack(">QIII", 0x3E889045565A9, 7, 1, 0)
    client.sendall(spoil(greeting, choice, 0.1))
    client.recv(200)
    client.sendall(spoil(option + ack, choice, 0.2))
    while len(request := client.recv(28, socket.MSG_WAITALL)) == 28:
        _, _, cookie, offset, length = struct.unpack(">IIQQI", request)
        reply = struct.pack(">IIQ", 0x67446698, choice.choice([0, 0, 0, 0, 5]), cookie)
        client.sendall(spoil(reply + data[offset : offset + length], choice, 0.3))


def spoil(message: bytes, choice: random.Random, likely: float) -> bytes:
    """The message, changed, cut, repeated or replaced with the given likelihood."""
    if choice.random() > likely:
        return message
    at = choice.randrange(min(len(message), choice.choice([16, 16, 1 << 20])))
    return choice.choice(
        [
            message[:at] + bytes([message[at] ^ (1 << choice.randrange(8))]) + message[at + 1 :],
            message[:at],
            message + message,
            message[:at] + choice.randbytes(9) + message[at:],
            choice.randbytes(choice.randrange(1, 5000)),
            b"",
        ]
    )


@pytest.mark.parametrize(
    ("seed", "seconds"), [(1, 4), pytest.param(2, 120, marks=pytest.mark.slow)]
)
def test_hostile_servers(
    seed: int, seconds: float, image: Image, tmp_path: Path, programs: Path
) -> None:
    """Servers that send anything at all: no wrong byte, no crash, no growth."""
    with (
        hostile(image, seed) as (first, met),
        hostile(image, seed + 100) as (second, again),
        fair(image, tmp_path) as third,
        Station(programs, image, f"{first},{second},{third}", folder=tmp_path) as station,
    ):
        station.load(4, seed)
        time.sleep(1)
        before = memory(station)
        time.sleep(seconds - 1)
        assert memory(station) == before
        assert len(station.done) > 50
        assert "died of signal" not in station.log
        wait_for("a hang-up", lambda: len(met) + len(again) > 2, Deadline(20))
        station.unload()


@contextmanager
def fair(image: Image, folder: Path) -> Iterator[str]:
    """One nbdkit on loopback beside the hostile ones, so that reads come to an end."""
    exports = folder / "fair"
    exports.mkdir()
    (exports / image.roothash).write_bytes(image.path.read_bytes())
    port = free_port()
    nbdkit = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "nbdkit", "-f", "-r", "-i", "127.0.0.1", "-p", str(port),
         "file", f"dir={exports}"]
    )  # fmt: skip
    try:
        yield f"127.0.0.1:{port}"
    finally:
        nbdkit.kill()
        nbdkit.wait()


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def memory(station: Station) -> int:
    """Kilobytes the data process has asked the kernel for: it needs no more than at its start."""
    status = Path(f"/proc/{station.data_processes()[0]}/status").read_text()
    found = re.search(r"VmData:\s+(\d+) kB", status)
    assert found
    return int(found[1])


@pytest.mark.parametrize(
    ("seed", "seconds"), [(1, 3), pytest.param(2, 120, marks=pytest.mark.slow)]
)
def test_fuzzed_parser(seed: int, seconds: int, programs: Path) -> None:
    done = subprocess.run(
        [programs / "fuzz-nbd", str(seconds), str(seed)],
        capture_output=True,
        timeout=seconds + 60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reached = dict(line.split() for line in done.stdout.decode().splitlines())
    assert all(int(count) > 20 for count in reached.values()), reached
