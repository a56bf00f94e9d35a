"""Real Kea servers, asked with the packets of every kind of firmware."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from tests.daemons.box import Box, Machine
from tests.daemons.dhcp_client import Answer, Client, Firmware

from ets.host.deadline import Deadline, wait_for
from ets.paths import KEA_CONFIG, KEA_SOCKET
from ets.services import dhcp
from ets.site.load import read
from ets.site.model import Site
from ets.site.pools import guest_slice

pytestmark = [pytest.mark.root, pytest.mark.daemons]

PAIR = Path(__file__).resolve().parents[2] / "examples/pair.toml"
#: how long to listen when silence is what is expected, or one more answer than expected
QUIET = 0.7

BIOS = Firmware(0x0000, b"PXEClient:Arch:00000:UNDI:002001")
IPXE = Firmware(0x0000, b"PXEClient:Arch:00000:UNDI:002001", b"iPXE")
IPXE_LENGTH = Firmware(0x0007, b"PXEClient:Arch:00007:UNDI:003010", b"\x04iPXE")
X64_HTTP = Firmware(0x0010, b"HTTPClient:Arch:00016:UNDI:003001")
ARM64_HTTP = Firmware(0x0013, b"HTTPClient:Arch:00019:UNDI:003001")
SCRIPT = "http://{server}/boot/${{netX/mac:hexhyp}}.ipxe"


@dataclass
class Pair:
    """The servers of examples/pair.toml, each with a Kea, and a client on their network."""

    site: Site
    machines: dict[str, Machine]
    client: Client

    def set(self, name: str, config: dict[str, object]) -> None:
        """What the agent does: hand Kea a configuration through its control socket."""
        answer = self.command(name, "config-set", config)
        assert answer["result"] == 0, answer

    def command(self, name: str, command: str, arguments: object) -> dict[str, object]:
        """Ask a Kea something and return what it says."""
        machine = self.machines[name]
        path = f"/proc/{machine.pid}/root{machine.root}{KEA_SOCKET}"
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(10)
            link.connect(path)
            link.sendall(json.dumps({"command": command, "arguments": arguments}).encode())
            answer = b"".join(iter(lambda: link.recv(65536), b""))
        said: dict[str, object] = json.loads(answer)
        return said

    def serve(self, *, learned: tuple[dhcp.Learned, ...] = ()) -> None:
        """All servers as on a quiet day."""
        for server in self.site.servers:
            self.set(server.name, dhcp.kea_config(self.site, server, learned=learned))

    def lease(self, mac: str, server: str) -> str:
        """The whole conversation with one server; the address that the client has then."""
        offers = self.client.ask(mac, "discover", answers=2)
        offer = next(offer for offer in offers if offer.server == server)
        options = (("server_id", server), ("requested_addr", offer.address))
        (answer,) = self.client.ask(mac, "request", options=options)
        assert (answer.kind, answer.address) == ("ACK", offer.address)
        return offer.address


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    site = read(PAIR)
    net = site.stations_net
    with Box(tmp_path_factory.mktemp("pair")) as box:
        machines = {}
        for server in site.servers:
            address = f"{server.stations}/{net.subnet.prefixlen}"
            machine = machines[server.name] = box.machine(server.name, net.interface, address)
            # directories that systemd makes for the unit
            machine.inside("mkdir", "-p", "/run/kea", "/run/lock/kea", "/var/lib/kea")
            (config,) = (
                file.content
                for file in dhcp.desired(site, server).files
                if file.path == str(KEA_CONFIG)
            )
            machine.write(str(KEA_CONFIG), config)
            machine.daemon("kea-dhcp4", "-c", str(KEA_CONFIG))
        for machine in machines.values():
            _wait_for_kea(machine.place / "kea-dhcp4.log")
        client = Client(box.client, "switch")
        yield Pair(site, machines, client)
        client.close()


def _wait_for_kea(log: Path) -> None:
    wait_for("Kea", lambda: "DHCP4_STARTED" in log.read_text(), Deadline(30))


@pytest.fixture
def pair(running: Pair) -> Pair:
    running.serve()
    return running


def by_server(answers: list[Answer]) -> dict[str, Answer]:
    """Each server's answer; none answers twice."""
    found = {answer.server: answer for answer in answers}
    assert len(found) == len(answers)
    return found


@pytest.mark.parametrize(
    ("firmware", "file"),
    [
        (BIOS, "undionly.kpxe"),
        (Firmware(0x0007, b"PXEClient:Arch:00007:UNDI:003016"), "snponly.efi"),
        (Firmware(0x0009, b"PXEClient:Arch:00009:UNDI:003016"), "snponly.efi"),
        (Firmware(0x000B, b"PXEClient:Arch:00011:UNDI:003000"), "ipxe-arm64.efi"),
        (X64_HTTP, "http://{server}/ipxe/snponly.efi"),
        (ARM64_HTTP, "http://{server}/ipxe/ipxe-arm64.efi"),
        (IPXE, SCRIPT),
        (IPXE_LENGTH, SCRIPT),
        (Firmware(user_class=b"iPXE"), SCRIPT),
        (Firmware(), ""),
        (Firmware(0x0006, b"PXEClient:Arch:00006:UNDI:003000"), ""),
    ],
    ids=["bios", "x64", "x64-bc", "arm64", "http-x64", "http-arm64", "ipxe", "ipxe-uefi",
         "ipxe-alone", "linux", "ia32"],
)  # fmt: skip
def test_each_firmware_gets_its_program_from_the_server_that_answers(
    pair: Pair, firmware: Firmware, file: str
) -> None:
    station = pair.site.stations[0]
    offers = by_server(pair.client.ask(station.mac, "discover", firmware=firmware, answers=2))
    assert set(offers) == {str(server.stations) for server in pair.site.servers}
    for server, offer in offers.items():
        assert offer.kind == "OFFER"
        assert offer.address == str(station.address)
        assert offer.next_server == server
        assert offer.server_name == server
        assert offer.file == file.format(server=server)
        assert offer.options["lease_time"] == pair.site.defaults.lease
        assert offer.options["hostname"].decode() == station.name  # type: ignore[attr-defined]


@pytest.mark.parametrize("firmware", [X64_HTTP, ARM64_HTTP])
def test_http_boot_is_told_what_it_insists_on(pair: Pair, firmware: Firmware) -> None:
    """The vendor class, and the address of the program in option 67 as well."""
    mac = pair.site.stations[0].mac
    for offer in pair.client.ask(mac, "discover", firmware=firmware, answers=2):
        assert offer.options["vendor_class_id"] == b"HTTPClient"
        named = offer.options["boot-file-name"]
        assert isinstance(named, bytes)
        assert named.decode() == offer.file


def test_others_are_not_told_that_this_is_http_boot(pair: Pair) -> None:
    for firmware in (BIOS, IPXE, Firmware()):
        for offer in pair.client.ask("52:54:00:77:00:01", "discover", firmware=firmware, answers=2):
            assert "vendor_class_id" not in offer.options


def test_a_known_station_gets_one_address_whatever_its_client_id(pair: Pair) -> None:
    """PXE, iPXE and Linux send different ones during one boot."""
    station = pair.site.stations[1]
    for identifier in (b"\1" + bytes.fromhex("525400770002"), b"\0uuid-of-the-firmware", b"\xffab"):
        options = (("client_id", identifier),)
        for offer in pair.client.ask(station.mac, "discover", options=options, answers=2):
            assert offer.address == str(station.address)
            assert offer.options["client_id"] == identifier


def test_guests_come_from_the_slice_of_the_server_that_answers(pair: Pair) -> None:
    for number in range(8):
        offers = by_server(pair.client.ask(f"02:00:00:00:01:{number:02x}", "discover", answers=2))
        for server in pair.site.servers:
            own = guest_slice(pair.site, server)
            assert own is not None
            assert IPv4Address(offers[str(server.stations)].address) in own


def test_a_learned_guest_keeps_its_address_everywhere(pair: Pair) -> None:
    mac = "02:00:00:00:02:01"
    alpha, beta = (str(server.stations) for server in pair.site.servers)
    address = pair.lease(mac, alpha)
    # beta has not learned it: it says nothing, so that the one that knows may answer
    rebound = by_server(pair.client.ask(mac, "request", own=address, answers=2, within=QUIET))
    assert {server: answer.kind for server, answer in rebound.items()} == {alpha: "ACK"}

    pair.serve(learned=(dhcp.Learned(mac, IPv4Address(address)),))
    rebound = by_server(pair.client.ask(mac, "request", own=address, answers=2))
    assert {(server, answer.kind) for server, answer in rebound.items()} == {
        (alpha, "ACK"),
        (beta, "ACK"),
    }
    offers = by_server(pair.client.ask(mac, "discover", answers=2))
    assert {offer.address for offer in offers.values()} == {address}


def test_a_learned_address_is_given_to_nobody_else(pair: Pair) -> None:
    """Also where it lies in the server's own slice and no lease there holds it."""
    beta = pair.site.server("beta")
    own = guest_slice(pair.site, beta)
    assert own is not None
    held = list(own)[20:23]
    learned = tuple(
        dhcp.Learned(f"02:00:00:00:03:{number:02x}", address) for number, address in enumerate(held)
    )
    pair.serve(learned=learned)
    stranger = "02:00:00:00:03:ff"
    for address in held:
        options = (("requested_addr", str(address)),)
        offers = by_server(pair.client.ask(stranger, "discover", options=options, answers=2))
        assert IPv4Address(offers[str(beta.stations)].address) in own
        assert {IPv4Address(offer.address) for offer in offers.values()}.isdisjoint(held)
        named = ("server_id", str(beta.stations))
        answers = pair.client.ask(stranger, "request", options=(named, *options), within=QUIET)
        assert [answer.kind for answer in answers] == ["NAK"]
    for guest in learned:
        offers = by_server(pair.client.ask(guest.mac, "discover", answers=2))
        assert {offer.address for offer in offers.values()} == {str(guest.address)}


def test_no_server_refuses_what_another_one_leased(pair: Pair) -> None:
    """A station that starts again asks for its address without naming a server (INIT-REBOOT)."""
    station = pair.site.stations[2]
    alpha = str(pair.site.servers[0].stations)
    for mac in (station.mac, "02:00:00:00:04:01"):
        address = pair.lease(mac, alpha)
        options = (("requested_addr", address),)
        answers = pair.client.ask(mac, "request", options=options, answers=2, within=QUIET)
        assert [(answer.kind, answer.server) for answer in answers] == [("ACK", alpha)]


def test_an_authoritative_kea_would_refuse_it(pair: Pair) -> None:
    """Why the servers are not: kept here so that a Kea that has changed its mind is noticed."""
    for server in pair.site.servers:
        config = dhcp.kea_config(pair.site, server)
        config["Dhcp4"]["authoritative"] = True  # type: ignore[index]
        pair.set(server.name, config)
    station = pair.site.stations[3]
    alpha, beta = (str(server.stations) for server in pair.site.servers)
    address = pair.lease(station.mac, alpha)
    options = (("requested_addr", address),)
    answers = by_server(pair.client.ask(station.mac, "request", options=options, answers=2))
    assert {answers[alpha].kind, answers[beta].kind} == {"ACK", "NAK"}


def test_a_drained_server_answers_nobody(pair: Pair) -> None:
    alpha = pair.site.server("alpha")
    pair.set("alpha", dhcp.kea_config(pair.site, alpha, serving=False))
    for mac in (pair.site.stations[0].mac, "02:00:00:00:05:01"):
        answers = pair.client.ask(mac, "discover", answers=2, within=QUIET)
        assert [answer.server for answer in answers] == [str(pair.site.server("beta").stations)]
    pair.serve()
    answers = pair.client.ask(pair.site.stations[0].mac, "discover", answers=2)
    assert len(answers) == 2


def test_until_the_agent_has_spoken_guests_may_renew_but_nobody_new_is_taken(pair: Pair) -> None:
    alpha = str(pair.site.servers[0].stations)
    mac = "02:00:00:00:06:01"
    address = pair.lease(mac, alpha)
    for server in pair.site.servers:
        pair.set(server.name, dhcp.kea_config(pair.site, server, newcomers=False))
    assert pair.client.ask("02:00:00:00:06:02", "discover", within=QUIET) == []
    answers = pair.client.ask(mac, "request", own=address, answers=2, within=QUIET)
    assert [(answer.kind, answer.server) for answer in answers] == [("ACK", alpha)]
    assert len(pair.client.ask(pair.site.stations[0].mac, "discover", answers=2)) == 2


def test_where_guests_are_not_allowed_strangers_hear_nothing(pair: Pair, tmp_path: Path) -> None:
    text = PAIR.read_text().replace("guests = true", "guests = false")
    text = "\n".join(line for line in text.splitlines() if not line.startswith('guests = "'))
    file = tmp_path / "site.toml"
    file.write_text(text)
    site = read(file)
    for server in site.servers:
        pair.set(server.name, dhcp.kea_config(site, server))
    stranger = "02:00:00:00:07:01"
    assert pair.client.ask(stranger, "discover", within=QUIET) == []
    assert pair.client.ask(stranger, "request", own="10.77.2.9", within=QUIET) == []
    options = (("requested_addr", "192.168.1.7"),)
    assert pair.client.ask(stranger, "request", options=options, within=QUIET) == []
    assert len(pair.client.ask(site.stations[0].mac, "discover", answers=2)) == 2


def test_garbage_does_not_stop_it(pair: Pair) -> None:
    """Broken packets, then a right one."""
    for body in (
        b"",
        b"\xff" * 10,
        b"\1" * 240,
        b"\1\1\6\0" + bytes(232) + b"\x63\x82\x53\x63\x35\xff",
    ):
        pair.client.shout(body)
    assert len(pair.client.ask(pair.site.stations[0].mac, "discover", answers=2)) == 2
