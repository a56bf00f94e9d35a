"""What ``ets join`` and ``ets rebuild`` refuse, and what they say; joins on a real disk."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from click.testing import CliRunner

from ets.cli import _join
from ets.cli._join import Wanted
from ets.cli.join import command
from ets.clone import protocol
from ets.clone.joins import Joins
from ets.clone.protocol import Request
from ets.errors import CloneError, HostError, InputError
from ets.host import crl, pki
from ets.site.load import read
from ets.site.model import Site

PAIR = Path(__file__).parents[2] / "examples" / "pair.toml"
MAC = "52:54:00:99:00:01"
SSH = "ssh-ed25519 " + "A" * 68


def plain_pair() -> Site:
    """The pair without cards in the site file."""
    site = read(PAIR)
    return replace(site, servers=tuple(replace(server, mac=None) for server in site.servers))


SITE = plain_pair()
ALPHA = SITE.server("alpha")


def wanted(name: str = "beta", **given: object) -> Wanted:
    told: dict[str, object] = {
        "token_file": None, "unattended": False, "mac": None, "seconds": 3600.0, "erase": False,
        "wait": False, **given,
    }  # fmt: skip
    return Wanted(name, **told)  # type: ignore[arg-type]


@pytest.fixture
def joins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Joins:
    """The joins of a server with the site's CA, and no agent to ask."""
    pki.make_ca(tmp_path / "pki")
    found = Joins(tmp_path / "joins", tmp_path / "pki")
    monkeypatch.setattr(_join, "joins", lambda: found)
    monkeypatch.setattr(_join, "_agent_knows", lambda _site: None)
    return found


@pytest.mark.parametrize(
    "argv",
    [[], ["beta", "--list"], ["--list", "--cancel", "beta"], ["beta", "--approve", "beta", "x"]],
)
def test_one_thing_at_a_time(argv: list[str]) -> None:
    done = CliRunner().invoke(command, argv)
    assert isinstance(done.exception, InputError)
    assert "say one thing" in done.exception.message


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (wanted("gamma"), "has no server 'gamma'"),
        (wanted("alpha"), "is this very server"),
        (wanted(mac="52:54:00"), "is not the address of a network card"),
        (wanted(mac="ff:ff:ff:ff:ff:ff"), "is not the address of a network card"),
        (wanted(mac="52:54:00:77:00:01"), "is the card of a station"),
        (wanted(unattended=True), "needs the network card of beta"),
        (wanted(unattended=True, mac="any"), "needs the network card of beta"),
    ],
)
def test_what_cannot_be_is_said(joins: Joins, asked: Wanted, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        _join.open_join(SITE, ALPHA, asked, rebuild=False)
    assert caught.value.hint
    assert joins.all() == ()


@pytest.mark.parametrize(("text", "length"), [("30m", 1800), ("2h", 7200), ("7d", 604800)])
def test_times(text: str, length: float) -> None:
    assert _join.seconds(text) == length


@pytest.mark.parametrize("text", ["", "2", "h", "8d", "10s", "-1h", "1e9h", "99999999h"])
def test_no_times(text: str) -> None:
    with pytest.raises(InputError, match="no time"):
        _join.seconds(text)


def test_without_the_ca_key_it_says_what_to_do(joins: Joins) -> None:
    (joins.keys / "ca.key").unlink()
    with pytest.raises(CloneError, match=r"ca\.key is missing") as caught:
        _join.open_join(SITE, ALPHA, wanted(), rebuild=False)
    assert "copy it to" in caught.value.hint
    with pytest.raises(CloneError, match=r"ca\.key is missing"):
        joins.revoke(joins.directory / "crl", {"1"})


def test_the_site_files_card_is_taken_unless_another_is_named(joins: Joins) -> None:
    site = replace(SITE, servers=(ALPHA, replace(SITE.server("beta"), mac=MAC)))
    for asked, card in (
        (wanted(), MAC), (wanted(mac="any"), None), (wanted(mac="52-54-00-99-00-02"),
                                                     "52:54:00:99:00:02"),
    ):  # fmt: skip
        join, token = _join.open_join(site, ALPHA, asked, rebuild=False)
        assert join.mac == card
        assert protocol.well_formed(token, 80)
        joins.cancel("beta")
    join, token = _join.open_join(site, ALPHA, wanted(unattended=True), rebuild=True)
    assert (join.mac, join.unattended, join.rebuild, token) == (MAC, True, True, "")


def test_there_is_one_join_of_a_name_and_nothing_of_it_is_for_others(joins: Joins) -> None:
    _, token = _join.open_join(SITE, ALPHA, wanted(), rebuild=False)
    with pytest.raises(CloneError, match="a join of beta is open already"):
        _join.open_join(SITE, ALPHA, wanted(), rebuild=False)
    for path in joins.directory.rglob("*"):
        assert token not in path.read_text() if path.is_file() else True
        if path.name != "host_key.pub":
            assert path.stat().st_mode & 0o077 == 0, path
    first = joins.read("beta")
    joins.cancel("beta")
    second, other = _join.open_join(SITE, ALPHA, wanted(), rebuild=False)
    assert first is not None
    assert second.id != first.id
    assert other != token


def test_a_damaged_join_is_said_and_a_name_leads_nowhere(joins: Joins) -> None:
    _join.open_join(SITE, ALPHA, wanted(), rebuild=False)
    (joins.directory / "beta" / "join.json").write_bytes(b"\x00{")
    with pytest.raises(CloneError, match="cannot read the join of beta"):
        joins.read("beta")
    for name in ("../pki", "..", ".", "", "beta/../beta", "\0", "x" * 5000, "host_key"):
        assert joins.read(name) is None, name


def newcomer(name: str = "beta", csr: str | None = None) -> Request:
    _, made = pki.make_request(name)
    return Request(name, MAC, "ab" * 32, SSH, csr or made.decode(), {})


def test_a_certificate_is_what_the_site_says_and_not_what_was_asked_for(joins: Joins) -> None:
    _join.open_join(SITE, ALPHA, wanted(unattended=True, mac=MAC), rebuild=False)
    private, csr = pki.make_request("alpha")
    told = joins.ask(SITE, ALPHA, newcomer(csr=csr.decode()), None, time.time())
    assert told.state == "approved"
    ca = (joins.keys / "ca.crt").read_bytes()
    assert pki.issued_for(told.certificate.encode(), ca, private, "beta")
    assert not pki.issued_for(told.certificate.encode(), ca, private, "alpha")
    assert not pki.issued_for(told.certificate.encode(), ca, pki.make_request("beta")[0], "beta")
    pki.make_ca(joins.directory / "other")
    other = (joins.directory / "other" / "ca.crt").read_bytes()
    assert not pki.issued_for(told.certificate.encode(), other, private, "beta")
    assert joins.issued("beta") == {pki.serial_of(told.certificate.encode())}
    assert joins.superseded() == frozenset()
    joins.cancel("beta")
    assert joins.superseded() == joins.issued("beta")


@pytest.mark.parametrize("csr", ["garbage", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_who_sends_no_request_is_let_in_by_nothing(joins: Joins, csr: str) -> None:
    _join.open_join(SITE, ALPHA, wanted(unattended=True, mac=MAC), rebuild=False)
    with pytest.raises(HostError, match="is unusable"):
        joins.ask(SITE, ALPHA, newcomer(csr=csr), None, time.time())
    join = joins.read("beta")
    assert join is not None
    assert (join.state, join.approval) == ("open", None)
    # and the next one is
    assert joins.ask(SITE, ALPHA, newcomer(), None, time.time()).state == "approved"


def test_lists_of_revoked_certificates_only_grow(joins: Joins, tmp_path: Path) -> None:
    file, ca = tmp_path / "site.crl", (joins.keys / "ca.crt").read_bytes()
    joins.revoke(file, {"1f", "2"})
    joins.revoke(file, {"3"})
    found = crl.read(file.read_bytes(), ca)
    assert (found.number, found.serials) == (2, frozenset({"1f", "2", "3"}))
    pki.make_ca(tmp_path / "other")
    with pytest.raises(HostError, match="not signed by this site's CA"):
        crl.read(file.read_bytes(), (tmp_path / "other" / "ca.crt").read_bytes())
    for damaged in (b"", b"x", file.read_bytes()[:-40], ca):
        with pytest.raises(HostError, match="unusable"):
            crl.read(damaged, ca)


def test_who_answers_is_named() -> None:
    server = replace(SITE.server("beta"), addresses={"lan": IPv4Address("127.0.0.9")})
    assert _join.answering(server) == []
    with socket.create_server(("127.0.0.9", 8471)):
        assert _join.answering(server) == ["its agent at 127.0.0.9 (lan)"]


def test_errors_have_a_next_step(joins: Joins) -> None:
    with pytest.raises(CloneError, match="no join of beta") as caught:
        joins.cancel("beta")
    assert caught.value.hint
    _join.open_join(SITE, ALPHA, wanted(), rebuild=False)
    with pytest.raises(CloneError, match="is no code") as caught:
        joins.approve("beta", "x")
    assert caught.value.hint


@pytest.mark.parametrize("year", [2001, 2090])
def test_clocks_apart_change_nothing_in_who_is_let_in(
    joins: Joins, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    """The server's clock is decades away from the machine's: the certificate is good all the same,
    and how long a join lasts is measured by the server's own clock."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls(year, 1, 1, tzinfo=tz)

    monkeypatch.setattr(pki, "datetime", Clock)
    now = Clock.now(UTC).timestamp()
    monkeypatch.setattr(time, "time", lambda: now)
    _join.open_join(SITE, ALPHA, wanted(unattended=True, mac=MAC), rebuild=False)
    private, csr = pki.make_request("beta")
    told = joins.ask(SITE, ALPHA, newcomer(csr=csr.decode()), None, now + 60)
    assert told.state == "approved"
    ca = (joins.keys / "ca.crt").read_bytes()
    assert pki.issued_for(told.certificate.encode(), ca, private, "beta")
