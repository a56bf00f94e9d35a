"""A new server's agent, with real peers: out of service while the marker lies there, and in
service, everywhere at once, when it is gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.daemons.agents import AgentHost, Net

from ets import paths
from ets.host.deadline import Deadline, wait_for

pytestmark = [pytest.mark.daemons, pytest.mark.root]


def marker(host: AgentHost) -> Path:
    return host.tree.runtime / paths.JOINING.name


def order(host: AgentHost) -> list[str]:
    """The servers that stations are told, as this one tells it."""
    found = {tuple(row["order"]) for row in host.status()["stations"]}
    return sorted({name for names in found for name in names})


def says(host: AgentHost, name: str, state: str) -> None:
    wait_for(
        f"{host.server.name} to say that {name} is {state}",
        lambda: host.row(name)["state"] == state,
        Deadline(10),
    )


def leaves_out_beta(host: AgentHost) -> None:
    wait_for(f"{host.server.name} to leave beta out", lambda: order(host) == ["alpha"], Deadline(5))


def test_a_new_server_is_out_of_service_until_its_marker_goes(tmp_path: Path) -> None:
    with Net(tmp_path) as net:
        alpha, beta = net["alpha"], net["beta"]
        beta.tree.runtime.mkdir(parents=True, exist_ok=True)
        marker(beta).write_text("copied from alpha\n")
        net.up()
        for host in (alpha, beta):
            says(host, "beta", "joining")
            assert host.row("beta")["verdict"] == "alive"
            leaves_out_beta(host)
        # a restart changes nothing
        beta.kill()
        beta.up()
        says(beta, "beta", "joining")
        marker(beta).unlink()
        for host in (alpha, beta):
            says(host, "beta", "in service")
            assert order(host) == ["alpha", "beta"]
        assert alpha.status()["alarms"] == []
        assert beta.status()["alarms"] == []


def test_a_lost_server_comes_back_under_its_name_without_a_quarrel(tmp_path: Path) -> None:
    """The survivors remember what the lost one said; its successor starts with an empty disk."""
    with Net(tmp_path) as net:
        alpha, beta = net["alpha"], net["beta"]
        net.up()
        says(alpha, "beta", "in service")
        beta.kill()
        shutil.rmtree(beta.tree.runtime)
        beta.tree.runtime.mkdir()
        marker(beta).write_text("copied from alpha\n")
        beta.up()
        for host in (alpha, beta):
            says(host, "beta", "joining")
        marker(beta).unlink()
        for host in (alpha, beta):
            says(host, "beta", "in service")
            assert host.status()["alarms"] == []
