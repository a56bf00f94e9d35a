"""Garbage on every port of a real agent, floods, forgery, replay: nothing falls, nothing grows."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.daemons.agents import AgentHost, Net

from ets.cluster import heartbeat
from ets.cluster.heartbeat import Heartbeat
from ets.host import pki
from ets.host.deadline import Deadline, wait_for

pytestmark = [pytest.mark.daemons, pytest.mark.root]

LAN, STATIONS = "192.168.77.11", "10.77.0.11"
REPORT = {"mac": "52:54:00:77:00:01", "name": "ws01", "reads": 1, "servers": []}


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with Net(tmp_path) as made:
        made["alpha"].up()
        yield made


def still_well(host: AgentHost, before: float, grown: float = 8.0) -> None:
    """It answers, logged no mistake of ours, and is at most ``grown`` MB larger."""
    assert host.status()["tasks"] == {}
    assert "a mistake in ETS" not in host.log
    assert "Traceback" not in host.log
    assert host.memory() - before < grown


def drawn(seed: int) -> Iterator[bytes]:
    """Garbage: random, empty, long, and nearly right."""
    chance = random.Random(seed)
    starts = [b"", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"{", b"POST /api/station/report "]
    while True:
        yield chance.choice(starts) + chance.randbytes(chance.randrange(0, 3000))


def test_garbage_on_udp_is_dropped_and_counted(net: Net) -> None:
    alpha = net["alpha"]
    sock = net["beta"].open_socket(socket.AF_INET, socket.SOCK_DGRAM)
    garbage = drawn(1)
    before = alpha.memory()
    for number in range(20_000):
        with contextlib.suppress(OSError):
            sock.sendto(next(garbage)[:1400], (LAN if number % 2 else STATIONS, 8472))
    sock.close()
    counts = alpha.status()["counters"]["heartbeats"]
    assert counts["wrong length"] + counts["not from this site"] > 1000
    assert "accepted" not in counts
    still_well(alpha, before)


def test_forged_and_replayed_heartbeats_are_refused(net: Net) -> None:
    alpha, beta = net["alpha"], net["beta"]
    secret = pki.read_secret(beta.tree.pki / "site.secret")
    sock = beta.open_socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send(datagram: bytes) -> dict[str, int]:
        sock.sendto(datagram, (LAN, 8472))
        time.sleep(0.3)
        counts: dict[str, int] = alpha.status()["counters"]["heartbeats"]
        return counts

    beat = Heartbeat("beta", "lan", 2**40, 1, "", "", "", 0.0, time.time())
    forged = heartbeat.encode(beat, os.urandom(32))
    assert send(forged)["not from this site"] == 1
    assert alpha.row("beta")["age"] is None
    right = heartbeat.encode(beat, secret)
    assert send(right)["accepted"] == 1
    assert alpha.row("beta")["verdict"] == "alive"
    net.wait_verdict(alpha, "beta", "lost")
    assert send(right)["replayed"] == 1
    assert alpha.row("beta")["verdict"] == "lost"
    stranger = Heartbeat("mallory", "lan", 2**40, 2, "", "", "", 0.0, time.time())
    assert send(heartbeat.encode(stranger, secret))["not a peer"] == 1
    elsewhere = Heartbeat("beta", "stations", 2**40, 3, "", "", "", 0.0, time.time())
    assert send(heartbeat.encode(elsewhere, secret))["sent for another network"] == 1
    sock.close()


def test_garbage_on_tcp_is_answered_or_cut_off(net: Net) -> None:
    alpha, beta = net["alpha"], net["beta"]
    garbage = drawn(2)
    before = alpha.memory()
    for number in range(600):
        host, address, port = (alpha, "127.0.0.1", 8470) if number % 2 else (beta, LAN, 8471)
        sock = host.tcp(address, port)
        sock.settimeout(0.1)
        with contextlib.suppress(OSError):
            sock.sendall(next(garbage))
            if number % 5 == 0:
                sock.recv(1000)
        sock.close()
    still_well(alpha, before)


def test_connections_that_say_nothing_are_closed(net: Net) -> None:
    alpha, beta = net["alpha"], net["beta"]
    before = alpha.memory()
    beta.run("ip", "address", "add", "192.168.77.99/24", "dev", "eth0")
    idle = [beta.tcp(LAN, 8471) for _ in range(150)]
    idle += [beta.tcp(LAN, 8471, source="192.168.77.99") for _ in range(150)]
    slow = alpha.tcp("127.0.0.1", 8470)
    slow.sendall(b"POST /api/station/report HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\nabc")
    assert alpha.answers()
    deadline = Deadline(30)
    for sock in [*idle, slow]:
        sock.settimeout(max(0.1, deadline.left))
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(4096):
                pass
        sock.close()
    still_well(alpha, before, grown=15.0)


def test_peers_need_a_certificate_of_a_server_of_the_site(net: Net, tmp_path: Path) -> None:
    alpha, beta = net["alpha"], net["beta"]
    other, stranger = tmp_path / "other-ca", tmp_path / "stranger"
    pki.make_ca(other)
    pki.issue(other, "beta", ["192.168.77.12"], stranger)
    removed = tmp_path / "removed"
    pki.issue(tmp_path / "ca", "delta", ["192.168.77.12"], removed)

    def ask(keys: Path | None) -> int:
        """The status of an answer; 0 when none came."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(alpha.tree.pki / "ca.crt")
        if keys is not None:
            context.load_cert_chain(keys / "server.crt", keys / "server.key")
        # With TLS 1.3 a client hears only at its first read that it was refused.
        with (
            contextlib.suppress(ssl.SSLError, ConnectionError),
            context.wrap_socket(beta.tcp(LAN, 8471)) as wrapped,
        ):
            wrapped.sendall(b"GET /v1/records HTTP/1.1\r\nhost: alpha\r\n\r\n")
            line = wrapped.recv(4096)
            return int(line.split()[1]) if line else 0
        return 0

    assert ask(beta.tree.pki) == 200
    assert ask(None) == 0
    assert ask(stranger) == 0
    assert ask(removed) == 0
    assert alpha.answers()


def test_a_flood_of_reports_is_limited_and_leaves_nothing(net: Net) -> None:
    alpha = net["alpha"]
    address = next(s.address for s in net.site.stations if s.name == "ws01")
    before = alpha.memory()
    body = json.dumps(REPORT).encode()
    status, said = alpha.http("POST", "/api/station/report", body, {"x-real-ip": str(address)})
    assert (status, said) == (204, b"")
    chance = random.Random(3)
    statuses = []
    for number in range(1500):
        source = f"10.77.{chance.randrange(256)}.{chance.randrange(256)}"
        content = chance.choice([body, b"x" * 20_000, b"{}", chance.randbytes(500)])
        status, _ = alpha.http("POST", "/api/station/report", content, {"x-real-ip": source})
        statuses.append(status)
        if number % 3 == 0:
            alpha.http("POST", "/api/station/report", body, {"x-real-ip": str(address)})
    assert set(statuses) <= {400, 413, 429}
    counts = alpha.status()["counters"]["reports"]
    assert counts["too many"] > 100
    assert counts["accepted"] < 100
    (row,) = [row for row in alpha.status()["stations"] if row["report"]]
    assert row["name"] == "ws01"
    still_well(alpha, before)


@pytest.mark.slow
def test_a_hundred_thousand_macs_ask_and_nothing_grows(net: Net) -> None:
    alpha = net["alpha"]
    sock = alpha.tcp("127.0.0.1", 8470)

    def ask(first: int, count: int) -> None:
        """Many on one connection, as nginx keeps one open."""
        for start in range(first, first + count, 50):
            macs = (f"52-54-{n >> 24:02x}-{n >> 16 & 255:02x}-{n >> 8 & 255:02x}-{n & 255:02x}"
                    for n in range(start, start + 50))  # fmt: skip
            requests = (f"GET /boot/{mac}.ipxe HTTP/1.1\r\nhost: a\r\n\r\n" for mac in macs)
            sock.sendall("".join(requests).encode())
            answered = b""
            while answered.count(b"HTTP/1.1 200") < 50 or not answered.endswith(b"goto again\n"):
                answered += sock.recv(2**18)

    ask(0, 2000)
    before = alpha.memory()
    ask(2000, 98_000)
    assert alpha.status()["counters"]["boot"]["stranger"] == 100_000
    still_well(alpha, before, grown=4.0)
    sock.close()


def test_a_taken_port_and_missing_files_are_said_plainly(tmp_path: Path) -> None:
    with Net(tmp_path) as net:
        alpha = net["alpha"]
        taken = alpha.open_socket(socket.AF_INET, socket.SOCK_STREAM)
        taken.bind(("127.0.0.1", 8470))
        taken.listen()
        assert alpha.launch().wait(60) == 1
        assert "cannot listen on TCP 127.0.0.1:8470" in alpha.log
        assert "→" in alpha.log
        taken.close()
        alpha.tree.name.write_text("omega\n")
        assert alpha.launch().wait(60) == 2
        assert "write one of alpha, beta" in alpha.log
        alpha.tree.name.unlink()
        assert alpha.launch().wait(60) == 1
        assert "cannot read this server's name" in alpha.log
        alpha.tree.name.write_text("alpha\n")
        (alpha.tree.pki / "server.key").write_bytes(b"\x00 garbage")
        assert alpha.launch().wait(60) == 1
        assert "cannot use the keys" in alpha.log
        assert "Traceback" not in alpha.log
        alpha.tree.site.write_bytes(b"\x00\xff")
        assert alpha.launch().wait(60) == 2
        assert "Traceback" not in alpha.log


def test_a_second_agent_is_refused_and_a_dead_one_s_socket_is_taken(tmp_path: Path) -> None:
    with Net(tmp_path) as net:
        alpha = net["alpha"]
        alpha.up()
        first = alpha.process
        assert first is not None
        assert alpha.launch().wait(60) == 1
        assert alpha.answers()
        first.kill()
        first.wait(10)
        assert alpha.tree.socket.exists()
        alpha.up()
        wait_for("an answer", alpha.answers, Deadline(10))
