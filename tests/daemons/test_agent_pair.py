"""Two and three real agents: who is alive, what they tell each other, how they end."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.daemons.agents import Net

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
