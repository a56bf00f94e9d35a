"""Real agents and a lost server's keys: revoked on one server, refused by all, both ways; and what
a join tells the others."""

from __future__ import annotations

import json
import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest
from tests.daemons.agents import PAIR, AgentHost, Net, three

from ets.clone.joins import Joins
from ets.clone.states import Join
from ets.host import crl, pki
from ets.host.atomic import write_atomic
from ets.host.deadline import Deadline, wait_for

pytestmark = [pytest.mark.daemons, pytest.mark.root]

STRANGER = "52-54-00-99-00-01"


def record(host: AgentHost, key: str) -> Any:
    """What a server holds of a record; None when it has none."""
    try:
        held = json.loads((host.tree.runtime / "records.json").read_bytes())
    except FileNotFoundError:
        return None
    return next((row["value"] for row in held if row["key"] == key), None)


def joins_of(net: Net, host: AgentHost, tmp_path: Path) -> Joins:
    """The host's joins, as ``ets join`` changes them; it has the CA's key from now on."""
    shutil.copy(tmp_path / "ca" / "ca.key", host.tree.pki)
    return Joins(host.tree.joins, host.tree.pki)


def serial(host: AgentHost) -> str:
    return pki.serial_of((host.tree.pki / "server.crt").read_bytes())


def test_a_revoked_server_is_refused_both_ways_until_it_has_new_keys(tmp_path: Path) -> None:
    with Net(tmp_path, three(PAIR.read_text())) as net:
        net.up()
        alpha, beta, gamma = net["alpha"], net["beta"], net["gamma"]
        for host in (alpha, gamma):
            wait_for("beta's number", lambda host=host: record(host, "keys/beta"), Deadline(20))  # type: ignore[misc]
        old = record(gamma, "keys/beta")["serial"]
        assert old == serial(beta)
        joins_of(net, alpha, tmp_path).revoke(alpha.tree.crl, {old})
        for host in (alpha, gamma):
            wait_for(
                f"{host.server.name} to refuse beta",
                lambda host=host: "revoked" in host.row("beta")["trouble"],  # type: ignore[misc]
                Deadline(30),
            )
        for peer in ("alpha", "gamma"):
            wait_for(f"{peer} away from beta", lambda p=peer: beta.row(p)["trouble"], Deadline(30))  # type: ignore[misc]
        # nobody else is touched, and a restart forgets nothing
        assert alpha.row("gamma")["trouble"] == ""
        assert gamma.term() == 0
        gamma.up()
        assert refused(beta, gamma, beta.tree.pki)
        wait_for("gamma", lambda: alpha.row("gamma")["trouble"] == "", Deadline(20))
        # beta is made anew
        assert beta.term() == 0
        pki.issue(tmp_path / "ca", "beta", beta.server.addresses.values(), beta.tree.pki)
        beta.up()
        for host in (alpha, gamma):
            wait_for("beta", lambda host=host: host.row("beta")["trouble"] == "", Deadline(30))  # type: ignore[misc]
            wait_for(
                "its new number",
                lambda host=host: record(host, "keys/beta")["serial"] == serial(beta),  # type: ignore[misc]
                Deadline(30),
            )
        assert all("Traceback" not in host.log for host in net.hosts.values())
        assert alpha.status()["alarms"] == []


def refused(source: AgentHost, host: AgentHost, keys: Path) -> bool:
    """Does ``host`` refuse a connection with these keys?"""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(host.tree.pki / "ca.crt")
    context.load_cert_chain(keys / "server.crt", keys / "server.key")
    try:
        with context.wrap_socket(source.tcp(str(host.server.peering), 8471)) as wrapped:
            wrapped.sendall(b"GET /v1/records HTTP/1.1\r\nhost: x\r\n\r\n")
            return not wrapped.recv(4096)
    except (ssl.SSLError, ConnectionError):
        return True


def test_a_list_that_the_ca_did_not_sign_is_not_taken(tmp_path: Path) -> None:
    with Net(tmp_path) as net:
        net.up()
        alpha, beta = net["alpha"], net["beta"]
        other = tmp_path / "other"
        pki.make_ca(other)
        write_atomic(alpha.tree.crl, crl.revoke(other, None, {serial(beta)}))
        wait_for(
            "the alarm",
            lambda: any(
                "not signed by this site's CA" in a["text"] for a in alpha.status()["alarms"]
            ),
            Deadline(20),
        )
        assert alpha.row("beta")["trouble"] == ""
        assert record(beta, "crl/site") is None
        write_atomic(alpha.tree.crl, b"garbage")
        assert alpha.term() == 0
        alpha.up()
        net.wait_verdict(alpha, "beta", "alive")


def test_every_server_offers_an_open_join_until_it_is_over(tmp_path: Path) -> None:
    with Net(tmp_path) as net:
        net.up()
        alpha, beta = net["alpha"], net["beta"]
        joins = joins_of(net, alpha, tmp_path)
        site = net.site
        beta_join = Join("beta", "", 0.0, 4e9)
        joins.open(site, site.server("alpha"), beta_join)

        def script(host: AgentHost) -> str:
            return host.http("GET", f"/boot/{STRANGER}.ipxe")[1].decode()

        for host in (alpha, beta):
            wait_for("the offer", lambda host=host: "press J" in script(host), Deadline(20))  # type: ignore[misc]
        assert record(beta, "join/beta")["address"] == "10.77.0.11"
        joins.cancel("beta")
        for host in (alpha, beta):
            wait_for("its end", lambda host=host: "press J" not in script(host), Deadline(20))  # type: ignore[misc]
        assert record(beta, "join/beta") == {}
        # one that is over when its server comes back, and one whose directory was removed
        joins.open(site, site.server("alpha"), beta_join)
        wait_for("the offer", lambda: "press J" in script(beta), Deadline(20))
        alpha.kill()
        shutil.rmtree(alpha.tree.joins / "beta")
        alpha.up()
        wait_for("its end", lambda: "press J" not in script(beta), Deadline(20))
