"""Two and three real agents: who is alive, what they tell each other, how they end."""

from __future__ import annotations

import contextlib
import signal
import socket
from pathlib import Path

import pytest
from tests.daemons.agents import PAIR, AgentHost, Net, three

from ets.host.deadline import Deadline, wait_for

pytestmark = [pytest.mark.daemons, pytest.mark.root]


def test_a_pair_knows_each_other_and_sees_a_loss(tmp_path: Path) -> None:
    with Net(tmp_path) as net:
        net.up()
        alpha, beta = net["alpha"], net["beta"]
        row = alpha.row("beta")
        assert set(row["links"]) == {"lan", "stations"}
        assert row["reason"] == "alive on lan and stations"
        assert row["same_site"] is True
        assert abs(row["skew"]) < 1
        beta.kill()
        net.wait_verdict(alpha, "beta", "lost", seconds=5)
        assert alpha.row("beta")["reason"].startswith("lost: nothing on lan for")
        beta.up()
        net.wait_verdict(alpha, "beta", "alive", seconds=10)
        assert beta.term() == 0
        assert alpha.term() == 0
        assert "Traceback" not in alpha.log + beta.log


def test_one_cable_is_no_loss_and_all_cables_are(tmp_path: Path) -> None:
    with Net(tmp_path, three(PAIR.read_text())) as net:
        net.up()
        alpha, beta = net["alpha"], net["beta"]
        net.cable("beta", "lan", "down")
        wait_for(
            "word of the cable",
            lambda: "alive on stations; nothing on lan" in alpha.row("beta")["reason"],
            Deadline(10),
        )
        before = _order(alpha)
        net.cable("beta", "stations", "down")
        net.wait_verdict(alpha, "beta", "lost", seconds=6)
        net.wait_verdict(beta, "alpha", "lost", seconds=6)
        assert alpha.row("gamma")["verdict"] == "alive"
        # Nobody is taken off the list; each side puts whom it misses last.
        assert _order(alpha) == [n for n in before if n != "beta"] + ["beta"]
        assert _order(beta)[0] == "beta"
        net.cable("beta", "lan", "up")
        net.cable("beta", "stations", "up")
        net.wait_verdict(alpha, "beta", "alive")
        assert _order(alpha) == before


def test_a_site_file_is_read_again_and_a_bad_one_is_not_taken(tmp_path: Path) -> None:
    with Net(tmp_path) as net:
        net.up()
        alpha = net["alpha"]
        assert alpha.process is not None
        text = alpha.tree.site.read_text()
        alpha.tree.site.write_text(text + "nonsense = [\n")
        alpha.process.send_signal(signal.SIGHUP)
        wait_for("the alarm", lambda: _alarms(alpha, "reading the site file again"), Deadline(20))
        assert alpha.row("beta")["verdict"] == "alive"
        alpha.tree.site.write_text(text.replace('name = "ws01"', 'name = "front"'))
        alpha.process.send_signal(signal.SIGHUP)

        def renamed() -> bool:
            with contextlib.suppress(OSError):
                return any(row["name"] == "front" for row in alpha.status()["stations"])
            return False

        wait_for("the new name", renamed, Deadline(20))
        net.wait_verdict(alpha, "beta", "alive")
        assert alpha.row("beta")["same_site"] is False


def test_it_tells_systemd_that_it_is_ready_and_alive(tmp_path: Path) -> None:
    with Net(tmp_path) as net, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(60)
        alpha = net["alpha"]
        alpha.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
        alpha.launch()
        assert b"READY=1" in heard.recv(4096)
        assert alpha.answers()
        assert [heard.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        assert alpha.term() == 0
        rest = b""
        while b"STOPPING=1" not in rest:
            rest = heard.recv(4096)


def _order(host: AgentHost) -> list[str]:
    order: list[str] = host.status()["stations"][0]["order"]
    return order


def _alarms(host: AgentHost, text: str) -> bool:
    return any(text in alarm["text"] for alarm in host.status()["alarms"])
