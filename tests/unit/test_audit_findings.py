"""Findings among three servers, what stays secret, and what is no inventory."""

from __future__ import annotations

import pytest

from ets.audit import findings
from ets.audit.manifest import Item
from ets.errors import InputError
from ets.facts import inventory, owners
from ets.facts.inventory import Inventory
from ets.facts.kinds import cron, share, socket, user


def server(name: str, **facts: dict[str, dict[str, str]]) -> Inventory:
    return Inventory(name, "2026-01-01T00:00:00+00:00", facts, {})


def test_the_odd_one_of_three_is_named() -> None:
    numbers = {"alpha": "1007", "beta": "1009", "gamma": "1007"}
    asked = [server(name, user={"anna": {"uid": uid}}) for name, uid in numbers.items()]
    (found,) = findings.compare(asked)
    assert found.words == "user anna has uid 1007 on alpha and gamma and 1009 on beta"
    assert found.odd == ("beta",)
    assert findings.odd_one([found], list(numbers)) == "beta"
    assert findings.odd_one([found], ["alpha", "beta"]) == ""


def test_two_servers_on_addresses_of_their_own_are_equal() -> None:
    asked = [
        server(
            name,
            address={own: {"network": "10.0.0.0/24"}},
            socket={f"80/tcp on {own}": {"program": "nginx"}},
            nft={f"rule inet ets input: ip saddr {peer} accept": {"place": "1"}},
        )
        for name, own, peer in (("a", "10.0.0.1", "10.0.0.2"), ("b", "10.0.0.2", "10.0.0.1"))
    ]
    assert findings.compare(asked) == ()


def test_one_package_is_one_finding() -> None:
    paths = [f"/usr/lib/samba/{number}" for number in range(400)]
    trees = {n: {p: Item("file", 0o644, 0, 0, n) for p in paths} for n in ("alpha", "beta")}
    asked = [
        server(n, package={"samba": {"version": v}}) for n, v in (("alpha", "1"), ("beta", "2"))
    ]
    (found,) = findings.compare(asked, trees, dict.fromkeys(paths, "samba"))
    assert found.words == "package samba has version 1 on alpha and 2 on beta"
    assert found.consequences[-1] == "and 380 more"
    assert len(findings.compare(asked, trees)) == 401


def test_passwords_tell_nothing_but_equal_or_not() -> None:
    secret = "5" * 64
    digests = [inventory._digest("user", "anna", value, secret) for value in ("$6$a", "$6$b")]
    assert digests[0] != digests[1]
    assert digests[0] != inventory._digest("user", "anna", "$6$a", "6" * 64)
    assert not any("$6" in digest for digest in digests)
    assert inventory._digest("user", "anna", "!$6$a", secret) == f"locked, {digests[0]}"
    assert [inventory._digest("user", "x", v, "") for v in ("", "!", "$6$a")] == [
        "empty", "locked", "set",
    ]  # fmt: skip


@pytest.mark.parametrize("document", [None, [], {}, {"format": 2}, {"format": 1, "facts": 3}])
def test_what_is_no_inventory_is_refused(document: object) -> None:
    with pytest.raises(InputError):
        inventory.read(document)


def test_kinds_read_what_programs_print() -> None:
    assert share.parse("[global]\n\tnetbios name = A\n[maths]\n\tread only = No\n") == {
        "global": {}, "maths": {"read only": "No"},
    }  # fmt: skip
    line = 'tcp LISTEN 0 511 127.0.0.1:80 0.0.0.0:* users:(("nginx",pid=9,fd=4))'
    assert socket.parse(line) == {"80/tcp on loopback": {"program": "nginx"}}
    assert cron.parse("/var/spool/cron/crontabs/anna:5  4 * * * run it\n") == {
        "5 4 * * * anna run it": {"from": "/var/spool/cron/crontabs/anna"}
    }
    twice = user.parse("a:x:1:1::/:/bin/sh\na:x:0:0::/:/bin/sh\n")
    assert twice["a (line 2)"]["uid"] == "0"
    assert owners.parse("a, b:amd64: /bin/x\ndiversion by c from: /bin/y\n") == {"/bin/x": "a"}
