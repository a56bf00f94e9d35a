"""nginx, TFTP and nbdkit as configured: what stations get, also when the agent is ill."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.daemons.box import Box, Machine

from ets import paths, services
from ets.host.deadline import Deadline, wait_for
from ets.plan.desired import Desired
from ets.services import blocks, http, tftp
from ets.site.load import read
from ets.site.model import Server, Site

pytestmark = [pytest.mark.root, pytest.mark.daemons]

PAIR = Path(__file__).resolve().parents[2] / "examples/pair.toml"
DIGEST = "ab" * 32
ROOTHASH = "cd" * 32
MAC = "52-54-00-77-00-01"

#: stands in for an agent that is well, that fails, and that hangs: what it says is its first
#: argument, and a number of seconds that it takes is the second
AGENT = """\
import http.server, sys, time
class Agent(http.server.BaseHTTPRequestHandler):
    def answer(self):
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
        time.sleep(float(sys.argv[2]))
        said = f"agent {self.path} {self.headers['x-real-ip']} {len(body)}".encode()
        self.send_response(int(sys.argv[1]))
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    do_GET = do_POST = answer
http.server.ThreadingHTTPServer(("127.0.0.1", 8470), Agent).serve_forever()
"""


@dataclass
class Side:
    """One server with its daemons, and a station's place on its network."""

    site: Site
    server: Server
    machine: Machine
    box: Box

    def ask(self, request: bytes, port: int = paths.PORT_HTTP) -> bytes:
        """All that comes back for these bytes on a new connection."""
        with self.connect(port) as link:
            link.sendall(request)
            return b"".join(iter(lambda: link.recv(65536), b""))

    def connect(self, port: int) -> socket.socket:
        """A station's connection to the server."""
        link = self.box.client.open_socket(socket.AF_INET, socket.SOCK_STREAM)
        link.settimeout(10)
        link.connect((str(self.server.stations), port))
        return link

    def get(self, path: str, method: str = "GET", body: bytes = b"") -> tuple[int, bytes]:
        """Status and body."""
        head = f"{method} {path} HTTP/1.0\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        answer = self.ask(head.encode() + body)
        top, _, content = answer.partition(b"\r\n\r\n")
        return int(top.split()[1]), content

    def put(self, path: str, content: bytes) -> None:
        """A file on the server."""
        self.machine.write(path, content)


def install(machine: Machine, wanted: Desired) -> None:
    """Files and copies, where they belong."""
    for file in wanted.files:
        machine.write(file.path, file.content)
    for copy in wanted.copies:
        machine.inside("cp", copy.source, copy.path)


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    site = read(PAIR)
    server = site.server("alpha")
    net = site.stations_net
    with Box(tmp_path_factory.mktemp("side")) as box:
        machine = box.machine("alpha", net.interface, f"{server.stations}/{net.subnet.prefixlen}")
        box.client.run("ip", "address", "add", "10.77.1.199/22", "dev", "switch")
        for service in (http, tftp):
            install(machine, service.desired(site, server))
        machine.inside("mkdir", "-p", "/var/log/nginx", "/var/lib/nginx", blocks.EXPORTS)
        machine.daemon("nginx", "-g", "daemon off;")
        machine.daemon(
            "in.tftpd", "--foreground", "--user", "tftp", "--address",
            f"{server.stations}:69", "--secure", tftp.ROOT,
        )  # fmt: skip
        machine.daemon(
            "nbdkit", "--foreground", "--readonly", "--threads", "4",
            "--ipaddr", str(server.stations), "file", f"dir={blocks.EXPORTS}",
        )  # fmt: skip
        found = Side(site, server, machine, box)
        found.put(f"{paths.BOOT_SCRIPTS}/{MAC}.ipxe", b"written for a known station")
        found.put(f"{paths.BOOT_SCRIPTS}/default.ipxe", b"written for anybody")
        for name in ("vmlinuz", "initrd.img", "root.img", "manifest.json"):
            found.put(f"{paths.IMAGES}/store/{DIGEST}/{name}", name.encode())
        found.put(f"{blocks.EXPORTS}/{ROOTHASH}", bytes(8192))
        for port in (paths.PORT_HTTP, paths.PORT_NBD):
            wait_for(f"port {port}", lambda port=port: _listens(machine, port), Deadline(20))  # type: ignore[misc]
        yield found


def _listens(machine: Machine, port: int) -> bool:
    return bool(machine.inside("ss", "-Hltn", f"sport = :{port}").text)


@pytest.fixture
def agent(side: Side, request: pytest.FixtureRequest) -> Iterator[None]:
    """An agent that answers with a status, after some seconds: ``@parametrize(indirect)``."""
    status, seconds = request.param
    child = side.machine.daemon("python3", "-c", AGENT, str(status), str(seconds))
    wait_for("the agent", lambda: _listens(side.machine, paths.PORT_AGENT_LOCAL), Deadline(20))
    yield
    side.machine.stop(child)


WELL, ILL, HANGING = (200, 0), (500, 0), (200, 5)


@pytest.mark.parametrize("agent", [WELL], indirect=True)
def test_a_boot_script_comes_from_the_agent_who_is_told_who_asks(side: Side, agent: None) -> None:
    assert side.get(f"/boot/{MAC}.ipxe") == (200, f"agent /boot/{MAC}.ipxe 10.77.1.199 0".encode())


@pytest.mark.parametrize("agent", [ILL, HANGING], indirect=True, ids=["ill", "hanging"])
def test_without_its_answer_what_it_wrote_last_is_served_in_time(side: Side, agent: None) -> None:
    begun = time.monotonic()
    assert side.get(f"/boot/{MAC}.ipxe") == (200, b"written for a known station")
    assert side.get("/boot/02-00-00-00-00-01.ipxe") == (200, b"written for anybody")
    assert time.monotonic() - begun < 2 * 1.5


def test_with_no_agent_at_all_too(side: Side) -> None:
    assert side.get(f"/boot/{MAC}.ipxe") == (200, b"written for a known station")
    assert side.get("/boot/02-00-00-00-00-01.ipxe") == (200, b"written for anybody")
    assert side.get("/api/station/report", "POST", b"{}")[0] == 502


@pytest.mark.parametrize("agent", [WELL], indirect=True)
def test_reports_are_bounded(side: Side, agent: None) -> None:
    assert side.get("/api/station/report", "POST", bytes(8192))[0] == 200
    assert side.get("/api/station/report", "POST", bytes(8193))[0] == 413
    assert side.get("/api/station/report")[0] == 403
    statuses = [side.get("/api/station/report", "POST", b"{}")[0] for _ in range(30)]
    assert set(statuses) == {200, 429}
    # a greedy station is not refused its boot script
    assert side.get(f"/boot/{MAC}.ipxe")[0] == 200


@pytest.mark.parametrize("agent", [WELL], indirect=True)
def test_questions_of_newcomers_are_bounded(side: Side, agent: None) -> None:
    said = side.get("/api/join/ask", "POST", bytes(32 * 1024))
    assert said == (200, b"agent /api/join/ask 10.77.1.199 32768")
    assert side.get("/api/join/ask", "POST", bytes(32 * 1024 + 1))[0] == 413
    assert side.get("/api/join/ask")[0] == 403
    for other in ("/api/join/", "/api/join/list", "/api/join/ask/x", "/v1/joins"):
        assert side.get(other, "POST", b"{}")[0] in (403, 404), other
    statuses = [side.get("/api/join/hello", "POST", b"{}")[0] for _ in range(40)]
    assert set(statuses) == {200, 429}
    assert side.get(f"/boot/{MAC}.ipxe")[0] == 200


@pytest.mark.parametrize("agent", [WELL], indirect=True)
def test_nothing_but_what_stations_need_is_there(side: Side, agent: None) -> None:
    for path in (
        "/", "/metrics", "/v1/status", "/boot/", "/boot/default.ipxe", f"/boot/{MAC}.ipxe/x",
        "/boot/52:54:00:77:00:01.ipxe", "/images/", f"/images/{DIGEST}/root.img",
        f"/images/{DIGEST}/manifest.json", f"/images/{DIGEST[:63]}/vmlinuz",
        f"/images/{DIGEST}/../{DIGEST}/root.img", "/ipxe/../../etc/passwd", "/ipxe/%2e%2e/x",
        "/ipxe/.hidden", "/ipxe/", "/etc/passwd", "//etc/passwd",
    ):  # fmt: skip
        assert side.get(path)[0] in (400, 404), path
    for path in (f"/boot/{MAC}.ipxe", f"/images/{DIGEST}/vmlinuz", "/ipxe/snponly.efi"):
        assert side.get(path, "POST", b"x")[0] in (403, 405), path
        assert side.get(path, "DELETE")[0] in (403, 405), path


def test_kernels_and_boot_programs_are_served_as_they_are(side: Side) -> None:
    assert side.get(f"/images/{DIGEST}/vmlinuz") == (200, b"vmlinuz")
    assert side.get(f"/images/{DIGEST}/initrd.img") == (200, b"initrd.img")
    status, program = side.get("/ipxe/snponly.efi")
    assert (status, program[:2]) == (200, b"MZ")
    # what Debian lacks is put beside the TFTP server's files by hand
    assert side.get("/ipxe/ipxe-arm64.efi")[0] == 404
    side.put(f"{tftp.ROOT}/ipxe-arm64.efi", b"by hand")
    assert side.get("/ipxe/ipxe-arm64.efi") == (200, b"by hand")


def test_garbage_does_not_stop_it(side: Side) -> None:
    for garbage in (
        b"\0" * 1000,
        b"\xff\xfe" * 5000,
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ):
        with suppress(ConnectionError):
            side.ask(garbage + b"\r\n\r\n")
        with side.connect(paths.PORT_NBD) as link, suppress(ConnectionError):
            link.sendall(garbage)
            link.shutdown(socket.SHUT_WR)
            while link.recv(65536):
                pass
    assert side.get("/alive") == (200, b"alpha\n")
    assert nbd_export(side, ROOTHASH) == 8192


def nbd_export(side: Side, name: str) -> int | None:
    """The size of an export, or None when the server refuses it (NBD protocol, NBD_OPT_GO)."""
    with side.connect(paths.PORT_NBD) as link:
        file = link.makefile("rwb")
        assert file.read(16) == b"NBDMAGICIHAVEOPT"
        file.read(2)
        encoded = name.encode()
        data = len(encoded).to_bytes(4, "big") + encoded + b"\0\0"
        file.write(
            b"\0\0\0\3IHAVEOPT" + (7).to_bytes(4, "big") + len(data).to_bytes(4, "big") + data
        )
        file.flush()
        size = None
        while True:
            reply = file.read(20)
            kind = int.from_bytes(reply[12:16], "big")
            content = file.read(int.from_bytes(reply[16:20], "big"))
            if kind == 3 and content[:2] == b"\0\0":
                size = int.from_bytes(content[2:10], "big")
            elif kind == 1 or kind & 0x80000000:
                return size


def test_an_image_that_a_server_lacks_is_refused(side: Side) -> None:
    assert nbd_export(side, ROOTHASH) == 8192
    assert nbd_export(side, "ef" * 32) is None
    assert nbd_export(side, "../store") is None


def test_the_probes_of_these_services_tell_well_from_ill(side: Side) -> None:
    """Here they answer; asked at an address without daemons they fail."""
    nowhere = side.site.server("beta")
    commands = 0
    for service in services.load():
        if service.NAME not in ("tftp", "blocks"):
            continue
        for server, well in ((side.server, True), (nowhere, False)):
            for probe in service.probes(side.site, server):
                outcome = side.machine.inside(*probe.argv, check=False)
                assert (outcome.status == 0) == well, (probe.name, outcome.stderr)
                commands += 1
    assert commands == 4
