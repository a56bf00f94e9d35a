"""Real Keas and agents: a guest learned on one server is served by the other."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.daemons.agents import PAIR, AgentHost, Kea, Net
from tests.daemons.dhcp_client import Answer, Client

from ets.agent.place import Tree
from ets.host.deadline import Deadline, wait_for
from ets.services import dhcp
from ets.site.load import parse

pytestmark = [pytest.mark.daemons, pytest.mark.root]

GUEST = "52:54:00:99:00:01"


def test_the_agent_looks_at_the_lease_file_that_kea_writes() -> None:
    site = parse(PAIR.read_bytes())
    config = dhcp.kea_config(site, site.servers[0])["Dhcp4"]
    assert isinstance(config, dict)
    assert config["lease-database"]["name"] == str(Tree().leases)


class Pair:
    """Two servers with Kea and agent, and a client."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.client = Client(net.switch, "stations")
        self.keas = {name: Kea(host, net.site) for name, host in net.hosts.items()}
        for kea in self.keas.values():
            kea.up()
        net.up()
        for host in net.hosts.values():
            self.ready(host)

    def ready(self, host: AgentHost) -> None:
        """Wait until the agent has given its Kea the configuration."""
        wait_for("Kea's configuration", lambda: host.status()["dhcp"]["ready"], Deadline(60))

    def offers(self, mac: str) -> dict[str, str]:
        """What each server offers: server's address to the station's."""
        found = self.client.ask(mac, "discover", answers=2, within=1.0)
        return {offer.server: offer.address for offer in found if offer.kind == "OFFER"}

    def take(self, mac: str, server: str, address: str) -> Answer:
        """Ask one server for what it offered."""
        options = (("server_id", server), ("requested_addr", address))
        (answer,) = self.client.ask(mac, "request", options=options)
        return answer


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with Net(tmp_path) as net:
        made = Pair(net)
        yield made
        made.client.close()


def test_a_guest_is_learned_and_kept_by_the_others(pair: Pair) -> None:
    alpha, beta = pair.net["alpha"], pair.net["beta"]
    a, b = str(alpha.server.stations), str(beta.server.stations)
    offers = wait_for("both to offer", lambda: _both(pair.offers(GUEST)), Deadline(10))
    assert offers[a] != offers[b]
    address = offers[a]
    assert pair.take(GUEST, a, address).kind == "ACK"
    began = time.monotonic()
    wait_for(
        "beta to offer what alpha gave",
        lambda: pair.offers(GUEST).get(b) == address,
        Deadline(10),
        every=0.05,
    )
    assert time.monotonic() - began < 4.0
    (row,) = [row for row in beta.status()["stations"] if not row["known"]]
    assert (row["mac"], row["address"]) == (GUEST, address)

    # Its server dies; the other renews.
    alpha.kill()
    pair.keas["alpha"].send(signal.SIGKILL)
    (answer,) = pair.client.ask(GUEST, "request", own=address)
    assert (answer.kind, answer.server, answer.address) == ("ACK", b, address)
    # The owner's record says so when it is back, so that it does not forget its guest.
    pair.keas["alpha"].up()
    alpha.up()
    wait_for(
        "beta's renewal in its record",
        lambda: GUEST in _records(beta).get("renewed/beta", {}),
        Deadline(10),
    )
    pair.ready(alpha)
    assert pair.offers(GUEST) == {a: address, b: address}


def test_a_known_station_and_a_guest_report_and_get_scripts(pair: Pair) -> None:
    alpha = pair.net["alpha"]
    a = str(alpha.server.stations)
    offers = wait_for("both to offer", lambda: _both(pair.offers(GUEST)), Deadline(10))
    assert pair.take(GUEST, a, offers[a]).kind == "ACK"
    wait_for("the guest", lambda: alpha.status()["dhcp"]["guests"] == 1, Deadline(10))
    body = b'{"mac":"%s","servers":[]}' % GUEST.encode()
    status, _ = alpha.http("POST", "/api/station/report", body, {"x-real-ip": offers[a]})
    assert status == 204
    status, _ = alpha.http("POST", "/api/station/report", body, {"x-real-ip": "10.77.3.3"})
    assert status == 400


def test_a_kea_that_is_restarted_or_hangs_is_fed_again(pair: Pair) -> None:
    alpha, beta = pair.net["alpha"], pair.net["beta"]
    a, b = str(alpha.server.stations), str(beta.server.stations)
    offers = wait_for("both to offer", lambda: _both(pair.offers(GUEST)), Deadline(10))
    assert pair.take(GUEST, a, offers[a]).kind == "ACK"
    wait_for("beta's copy", lambda: pair.offers(GUEST).get(b) == offers[a], Deadline(10))
    kea = pair.keas["beta"]
    kea.send(signal.SIGKILL)
    kea.up()
    wait_for("beta's copy again", lambda: pair.offers(GUEST).get(b) == offers[a], Deadline(20))

    kea.send(signal.SIGSTOP)
    wait_for("word of the hang", lambda: "did not answer" in _trouble(beta), Deadline(30))
    assert beta.http("GET", "/boot/52-54-00-77-00-01.ipxe")[0] == 200
    assert beta.status()["tasks"] == {}
    kea.send(signal.SIGCONT)
    pair.ready(beta)
    assert pair.offers(GUEST)[b] == offers[a]


def _both(offers: dict[str, str]) -> dict[str, str] | None:
    return offers if len(offers) == 2 else None


def _trouble(host: AgentHost) -> str:
    return str(host.status()["dhcp"]["trouble"])


def _records(host: AgentHost) -> dict[str, dict[str, object]]:
    import json

    content = json.loads((host.tree.runtime / "records.json").read_bytes())
    return {item["key"]: item["value"] for item in content}
