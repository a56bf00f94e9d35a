"""A join on a booted server, with its own agent, nginx, systemd and sshd: approved by token, by
code and by card; what the newcomer may do there, and when it may not any more."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.daemons.newcomer import Newcomer, heard, only
from tests.drills.lab_tools import bystander, lab_name, leftovers

from ets.host import crl, pki
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
    """The pair, with beta lost; while it was there, it could not be made a second time."""
    name = lab_name("j")
    with Lab.up(PAIR, name=name) as up:
        host = up.server("alpha").host
        for verb, said in (("join", "is there already"), ("rebuild", "is not lost")):
            done = host.run(["ets", verb, "beta", "--no-wait"], check=False)
            assert done.status == 1
            assert f"beta {said}: it answers by" in done.stderr.decode()
        wait_for("beta's certificate", lambda: beta_serial(host), Deadline(20))
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


def records(host: Host) -> dict[str, Any]:
    """The runtime records that alpha holds, by key."""
    held = json.loads(host.read("/var/lib/ets/runtime/records.json") or b"[]")
    return {row["key"]: row["value"] for row in held}


def beta_serial(host: Host) -> str:
    return str(records(host).get("keys/beta", {}).get("serial", ""))


def revoked(host: Host) -> frozenset[str]:
    """The certificates that alpha knows to be worth nothing."""
    ca = host.read("/etc/ets/pki/ca.crt") or b""
    found = host.read("/var/lib/ets/runtime/site.crl")
    return crl.read(found, ca).serials if found else frozenset()


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
    said = again.ask(seconds=5, commands=[FACTS])
    assert only(said, "status") == 0
    # the first attempt's certificate is worth nothing any more, the second one's until it fails
    first, second = (
        pki.serial_of(json.loads((one.keys / "agreed.json").read_bytes())["certificate"].encode())
        for one in (newcomer, again)
    )
    wait_for("the first one revoked", lambda: first in revoked(alpha), Deadline(20))
    assert second not in revoked(alpha)
    alpha.run(["ets", "join", "--cancel", "beta"])
    wait_for("the second one revoked", lambda: second in revoked(alpha), Deadline(20))


def test_cancelled_it_is_put_out_at_once(alpha: Host, newcomer: Newcomer) -> None:
    token = opened(alpha)
    said = newcomer.ask(token=token, commands=[FACTS])
    assert only(said, "status") == 0
    alpha.run(["ets", "join", "--cancel", "beta"])
    wait_for("the copy's sshd to end", lambda: not listening(alpha), Deadline(20))
    assert "cancelled by hand" in only(newcomer.ask(seconds=5), "error")


def test_who_lost_its_approval_is_put_out_in_the_middle_of_the_copy(
    alpha: Host, newcomer: Newcomer, wire: Namespace, tmp_path: Path
) -> None:
    token = opened(alpha)
    newcomer.ask(token=token)
    # a copy that does not go on: send waits for what it is told
    copying = newcomer.start(seconds=None, hold=["ets", "clone", "send"])
    wait_for("a session", lambda: len(sessions(alpha)) > 0, Deadline(20))
    other = Newcomer(wire.entering, tmp_path / "other", mac="52:54:00:99:00:02")
    asking = other.start(commands=[FACTS])
    alpha.run(["ets", "join", "--approve", "beta", heard(asking, "tell")["code"]])
    assert heard(asking, "status")["status"] == 0
    asking.wait(30)
    assert heard(copying, "status")["status"] == 255
    copying.wait(30)


def sessions(host: Host) -> list[str]:
    """What runs on alpha for newcomers."""
    done = host.run(["pgrep", "-af", "ets clone send"], check=False)
    return [line for line in done.text.splitlines() if "pgrep" not in line]


def test_the_administrator_sees_it_to_the_end(lab: Lab, alpha: Host, newcomer: Newcomer) -> None:
    """``ets join`` waits, tells, and ends well when the new server is in service."""
    argv = ["ets", "join", "beta", "--mac", "any", "--token-file", "/root/token"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(alpha.run, argv, deadline=90)
        wait_for("the token", lambda: alpha.read("/root/token"), Deadline(30))
        assert alpha.look(["/root/token"])["/root/token"].mode == 0o600
        token = (alpha.read("/root/token") or b"").decode().strip()
        newcomer.ask(token=token, reports=[("copying", "files", 0.3)])
        newcomer.ask(seconds=None, reports=[("copied", "restarting")])
        newcomer.ask(seconds=None, reports=[("done", "equal to alpha, in service")])
        said = waiting.result(90).text
    assert "The token is in /root/token." in said
    assert token not in said
    assert "done: done" in said
    assert "beta is in service." in said


def test_a_lost_server_is_rebuilt_and_its_keys_are_worth_nothing(
    alpha: Host, newcomer: Newcomer
) -> None:
    old = beta_serial(alpha)
    done = alpha.run(["ets", "rebuild", "beta", "--no-wait", "--mac", "any"])
    assert f"Revoked the certificates of the lost beta: {old}" in done.text or old in done.text
    assert old in revoked(alpha)
    wait_for("the record", lambda: "crl/site" in records(alpha), Deadline(20))
    found = TOKEN.search(done.text.split("The token")[1])
    assert found is not None
    offer = only(newcomer.ask(token=found[0]), "offer")
    assert offer["rebuild"] is True
    assert pki.serial_of(offer["certificate"].encode()) not in revoked(alpha)


def test_strangers_who_ask_much_are_refused_and_stop_nobody(
    alpha: Host, newcomer: Newcomer, wire: Namespace
) -> None:
    token = opened(alpha)
    before = alpha.run(["systemctl", "show", "-P", "MainPID", "ets-agent"]).text
    flood = wire.run([sys.executable, "-c", _FLOOD, "10.77.0.11"], deadline=60)
    statuses = set(json.loads(flood.text))
    assert 429 in statuses
    assert statuses <= {200, 400, 403, 404, 408, 413, 429}
    time.sleep(5)  # the flood came from the same address: its bucket fills again
    assert only(newcomer.ask(token=token), "offer")["server"] == "beta"
    assert alpha.run(["systemctl", "show", "-P", "MainPID", "ets-agent"]).text == before
    journal = alpha.run(["journalctl", "-u", "ets-agent", "--no-pager"]).text
    assert "Traceback" not in journal
    assert "a mistake in ETS" not in journal
    # the real thing, but with what was sent a moment ago: a replay is one machine's question, and
    # its answer is of use to that machine alone
    request = json.loads((newcomer.keys / "request.json").read_bytes())
    again = alpha_says(wire, "ask", {"request": request})
    assert again["state"] == "approved"
    assert "key" not in json.dumps(again).lower().replace("certificate", "")
    other = alpha_says(wire, "ask", {"request": {**request, "nonce": "00" * 32}})
    assert other["state"] == "open"


def alpha_says(wire: Namespace, what: str, content: Any) -> Any:
    """A question as anybody can ask it."""
    done = wire.run(
        ["curl", "-s", "--data-binary", "@-", f"http://10.77.0.11/api/join/{what}"],
        stdin=json.dumps(content).encode(),
    )
    return json.loads(done.text)


#: garbage, and requests that are nearly right, as fast as one machine can
_FLOOD = """
import http.client, json, random, sys
chance = random.Random(5)
statuses = []
ssh = "ssh-ed25519 " + "A" * 68
for n in range(400):
    request = {"version": 1, "name": chance.choice(["beta", "../alpha", "", "x" * 300]), "mac": "m",
               "nonce": "%064x" % n, "ssh": ssh, "csr": "garbage", "hardware": {"x": "\\x1b[2J"}}
    body = chance.choice([
        json.dumps({"request": request, "proof": "00" * 32}), json.dumps({"request": request}),
        json.dumps({"name": "beta", "commit": "00" * 32}), "{", "[]", "x" * 40000,
        json.dumps({"name": "beta", "report": {"count": n}, "signature": "zz"}), "[" * 20000,
        json.dumps({"name": "../../etc", "report": {}, "signature": "00" * 64}),
    ])
    what = chance.choice(["open", "hello", "ask", "report", "else"])
    link = http.client.HTTPConnection(sys.argv[1], 80, timeout=10)
    link.request("POST", f"/api/join/{what}", body)
    statuses.append(link.getresponse().status)
    link.close()
print(json.dumps(sorted(set(statuses))))
"""
