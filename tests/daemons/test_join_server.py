"""A join on a booted server, with its own agent, nginx, systemd and sshd: approved by token, by
code and by card; what the newcomer may do there, and when it may not any more."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.daemons.newcomer import Newcomer, heard, only
from tests.drills.lab_tools import bystander, lab_name, leftovers

from ets.host.deadline import Deadline, wait_for
from ets.host.transport import Host
from ets.lab.lab import Lab
from ets.lab.topology import Namespace

pytestmark = [pytest.mark.root, pytest.mark.daemons]

PAIR = Path(__file__).parents[2] / "examples" / "pair.toml"
MAC = "52:54:00:99:00:01"
TOKEN = re.compile(r"[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){3}")
FACTS = ["ets", "clone", "facts"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """The pair, with beta lost."""
    name = lab_name("j")
    with Lab.up(PAIR, name=name) as up:
        up.inject("power-off", "beta")
        yield up
    assert leftovers(name) == []


@pytest.fixture
def alpha(lab: Lab) -> Iterator[Host]:
    host = lab.server("alpha").host
    yield host
    host.run(["ets", "join", "--cancel", "beta"], check=False)
    wait_for("the copy's sshd to end", lambda: not listening(host), Deadline(20))


@pytest.fixture
def wire(lab: Lab) -> Iterator[Namespace]:
    with bystander(lab, "10.77.2.200/22") as net:
        yield net


@pytest.fixture
def newcomer(wire: Namespace, tmp_path: Path) -> Newcomer:
    return Newcomer(wire.entering, tmp_path / "keys")


def listening(host: Host) -> bool:
    return bool(host.run(["ss", "-Hltn", "sport = :8473"]).text.strip())


def opened(host: Host, *options: str) -> str:
    """Open a join of beta; its token."""
    done = host.run(["ets", "join", "beta", "--no-wait", "--mac", "any", *options])
    found = TOKEN.search(done.text)
    return found[0] if found else ""


def join(host: Host) -> dict[str, Any]:
    """The join of beta as the agent tells it."""
    document = json.loads(host.run(["ets", "join", "--list", "--json"]).text)
    (row,) = [row for row in document["joins"] if row["name"] == "beta"]
    return dict(row)


def test_a_token_lets_one_machine_in_until_it_is_done(
    alpha: Host, newcomer: Newcomer, wire: Namespace, tmp_path: Path
) -> None:
    token = opened(alpha)
    assert not listening(alpha)
    said = newcomer.ask(token=token.lower().replace("-", " "), commands=[FACTS, ["id"]])
    offer = only(said, "offer")
    assert (offer["server"], offer["source"], offer["port"]) == ("beta", "alpha", 8473)
    facts, forbidden = [line for line in said if "status" in line]
    assert facts["status"] == 0, facts
    assert json.loads(facts["said"])["server"] == "alpha"
    assert forbidden["status"] == 1
    assert "may not run" in forbidden["said"]
    # the ordinary sshd, and this one with another key, let nobody in
    assert listening(alpha)
    other = Newcomer(wire.entering, tmp_path / "other", mac="52:54:00:99:00:02")
    said = other.ask(token=token)
    assert "used already" in only(said, "error")
    newcomer.ask(seconds=None, reports=[("copying", "half", 0.5)])
    assert (join(alpha)["state"], join(alpha)["done"]) == ("copying", 0.5)
    newcomer.ask(seconds=None, reports=[("copied", "restarting"), ("done", "equal")])
    assert join(alpha)["state"] == "done"
    wait_for("the copy's sshd to end", lambda: not listening(alpha), Deadline(20))
    said = newcomer.ask(seconds=None, commands=[FACTS])
    assert only(said, "status") == 255


def test_a_code_approves_the_machine_that_shows_it(
    alpha: Host, newcomer: Newcomer, wire: Namespace, tmp_path: Path
) -> None:
    opened(alpha)
    attacker = Newcomer(wire.entering, tmp_path / "attacker", mac="52:54:00:99:00:66")
    asking = newcomer.start(commands=[FACTS])
    evil = attacker.start(seconds=15, commands=[FACTS])
    code = heard(asking, "tell")["code"]
    other = heard(evil, "tell")["code"]
    assert code != other
    assert code in alpha.run(["ets", "join", "--list"]).text
    alpha.run(["ets", "join", "--approve", "beta", code.replace("-", "").lower()])
    assert heard(asking, "offer")["code"] == code
    assert heard(asking, "status")["status"] == 0
    asking.wait(30)
    last = ""
    for line in evil.stdout or ():
        last = line
    assert "another machine was approved" in last


def test_a_card_is_enough_where_that_was_said(
    alpha: Host, newcomer: Newcomer, wire: Namespace, tmp_path: Path
) -> None:
    opened(alpha, "--unattended", "--mac", MAC, "--erase")
    url = f"http://10.77.0.11/boot/{MAC.replace(':', '-')}.ipxe"
    wait_for("word of it", lambda: "installer" in wire.run(["curl", "-s", url]).text, Deadline(10))
    other = Newcomer(wire.entering, tmp_path / "other", mac="52:54:00:99:00:02")
    assert "no join is open for this machine" in only(other.ask(), "error")
    said = newcomer.ask(commands=[FACTS])
    assert only(said, "offer")["erase"] is True
    assert only(said, "status") == 0
    # power fails before it could keep its keys: the same card asks with new ones
    again = Newcomer(wire.entering, tmp_path / "again")
    assert only(again.ask(commands=[FACTS]), "status") == 0
    assert only(newcomer.ask(seconds=None, commands=[FACTS]), "status") == 255
    # and with its keys it goes on without a question
    assert only(again.ask(seconds=5, commands=[FACTS]), "status") == 0


def test_cancelled_it_is_put_out_at_once(alpha: Host, newcomer: Newcomer) -> None:
    token = opened(alpha)
    said = newcomer.ask(token=token, commands=[FACTS])
    assert only(said, "status") == 0
    alpha.run(["ets", "join", "--cancel", "beta"])
    wait_for("the copy's sshd to end", lambda: not listening(alpha), Deadline(20))
    assert "cancelled by hand" in only(newcomer.ask(seconds=5), "error")
