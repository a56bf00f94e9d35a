"""A real agent tells a peer its inventory and the nodes of its hash tree, and nobody else."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.daemons.agents import AgentHost, Net

from ets.agent.place import tls
from ets.audit import exchange, tree

pytestmark = [pytest.mark.daemons, pytest.mark.root, pytest.mark.slow]


def ask(asking: AgentHost, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    context = tls(asking.tree.pki, ssl.PROTOCOL_TLS_CLIENT)
    connection = http.client.HTTPSConnection("192.168.77.11", 8471, timeout=280)
    raw = asking.tcp("192.168.77.11", 8471)
    raw.settimeout(280)
    connection.sock = context.wrap_socket(raw, server_hostname="192.168.77.11")
    try:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_peer_asks_for_facts_and_files(tmp_path: Path) -> None:
    with Net(tmp_path) as net:
        alpha, beta = net["alpha"], net["beta"]
        alpha.run("mount", "-t", "proc", "proc", "/proc")
        alpha.up()
        assert ask(beta, "/v1/audit/tree", b"garbage")[0] == 400
        status, content = ask(beta, "/v1/audit/facts")
        assert status == 200
        assert b'"facts"' in content
        mine = tree.take()

        def nodes(directories: Sequence[str]) -> bytes:
            status, content = ask(beta, "/v1/audit/tree", exchange.question(directories, "one"))
            assert status == 200, content
            return content

        assert exchange.differing(mine, nodes, peer="alpha") == {}
        assert "Traceback" not in alpha.log
