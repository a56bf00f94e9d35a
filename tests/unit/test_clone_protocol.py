"""How a newcomer and a server come to trust each other: what is shown, proved and refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ets.clone import protocol
from ets.clone.protocol import Request, Terms
from ets.clone.serve import allowed
from ets.errors import CloneError

SSH = "ssh-ed25519 " + "A" * 68
TERMS = Terms(
    site="pair", name="beta", source="alpha", id="0123456789abcdef", host_key=SSH, ca="PEM",
    port=8473, layout="plain", mirror=False, rebuild=False, erase=False,
)  # fmt: skip
REQUEST = Request("beta", "52:54:00:99:00:01", "ab" * 32, SSH, "CSR", {"memory": "2 GB"})
SECRET = b"s" * 32


def seen(terms: Terms = TERMS, request: Request = REQUEST, nonce: str = "00" * 32) -> str:
    return protocol.transcript(terms, request, nonce)


@given(st.binary(min_size=10, max_size=10))
def test_a_token_is_80_bits_that_survive_being_typed(random: bytes) -> None:
    token = protocol.token_of(random)
    assert len(token) == 19
    value = 0
    for letter in token.replace("-", ""):
        value = value * 32 + protocol.ALPHABET.index(letter)
    assert value == int.from_bytes(random, "big")
    typed = token.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert protocol.normal(typed) == token
    assert protocol.token_key(typed) == protocol.token_key(token)
    assert protocol.well_formed(typed, 80)
    assert not protocol.well_formed(typed, 100)
    assert not protocol.well_formed(token[:-1] + "U", 80)


@given(st.text(max_size=40))
def test_whatever_is_typed_is_a_token_or_is_not(typed: str) -> None:
    told = protocol.normal(typed)
    assert protocol.normal(told) == told
    protocol.well_formed(typed, 80)


def test_both_sides_show_one_code_only_when_all_was_alike() -> None:
    codes = {protocol.code(seen())}
    for changed in (
        replace(TERMS, host_key="ssh-ed25519 " + "B" * 68), replace(TERMS, ca="other"),
        replace(TERMS, name="gamma"), replace(TERMS, erase=True), replace(TERMS, id="1" * 16),
        replace(TERMS, port=22), replace(TERMS, source="mallory"), replace(TERMS, site="x"),
        replace(TERMS, layout="lvm"), replace(TERMS, mirror=True), replace(TERMS, rebuild=True),
    ):  # fmt: skip
        codes.add(protocol.code(seen(terms=changed)))
    for other in (
        replace(REQUEST, ssh="ssh-ed25519 " + "B" * 68), replace(REQUEST, csr="other"),
        replace(REQUEST, mac="52:54:00:99:00:02"), replace(REQUEST, nonce="ac" * 32),
        replace(REQUEST, hardware={}), replace(REQUEST, name="gamma"),
    ):  # fmt: skip
        codes.add(protocol.code(seen(request=other)))
    codes.add(protocol.code(seen(nonce="01" * 32)))
    assert len(codes) == 1 + 11 + 6 + 1
    assert all(len(code) == 24 and protocol.well_formed(code, 100) for code in codes)


def test_the_nonce_is_fixed_by_the_commitment_and_by_nothing_else() -> None:
    commit = protocol.commitment(REQUEST)
    assert protocol.is_commitment(commit)
    assert protocol.answer_to(commit, SECRET) == protocol.answer_to(commit, SECRET)
    assert protocol.answer_to(commit, SECRET) != protocol.answer_to(commit, b"t" * 32)
    other = protocol.commitment(replace(REQUEST, nonce="ac" * 32))
    assert protocol.answer_to(other, SECRET) != protocol.answer_to(commit, SECRET)
    for wrong in (None, 5, "", "g" * 64, commit + "0", commit.upper()):
        assert not protocol.is_commitment(wrong)


def test_a_proof_is_of_one_side_one_token_and_one_transcript() -> None:
    key = protocol.token_key("0000-0000-0000-0000")
    right = protocol.proof(key, "newcomer", seen())
    assert protocol.proves(right, key, "newcomer", seen())
    assert not protocol.proves(right, key, "server", seen())
    assert not protocol.proves(right, key, "newcomer", seen(nonce="01" * 32))
    assert not protocol.proves(right, protocol.token_key("0000-0000-0000-0001"), "newcomer", seen())
    for wrong in (None, "", 7, right[:-1], "é" * 64, [right]):
        assert not protocol.proves(wrong, key, "newcomer", seen())


def test_what_was_written_is_read_again() -> None:
    assert Terms.read(json.loads(protocol.canonical(TERMS.document()))) == TERMS
    assert Request.read(json.loads(protocol.canonical(REQUEST.document()))) == REQUEST


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"ssh": "ssh-rsa AAAA"}, {"ssh": SSH + "\nssh-ed25519 " + "B" * 68},
        {"ssh": 'command="id" ' + SSH}, {"nonce": "ab"}, {"csr": None}, {"csr": "x" * 9000},
        {"hardware": []}, {"hardware": {"x": "y" * 25_000}}, {"name": 5}, {"mac": None},
    ],
)  # fmt: skip
def test_a_request_of_another_form_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Request.read({**REQUEST.document(), **change})


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"port": 0}, {"port": True}, {"host_key": "x"}, {"ca": 1}]
)
def test_terms_of_another_form_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Terms.read({**TERMS.document(), **change})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@given(json_values)
@settings(max_examples=200)
def test_whatever_comes_is_read_or_refused(document: object) -> None:
    for read in (Request.read, Terms.read, protocol.report_parts):
        with pytest.raises(ValueError, match=r"."):
            read(document)


@pytest.mark.parametrize(
    "command",
    [
        "", "id", "ets", "ets clone", "ets clone finish", "ets clone serve", "ets join --list",
        "/usr/bin/ets clone facts", "ets clone facts; id'", "ets 'clone facts'", "sh -c id",
        "ets clone rsync --server --sender . /", "rsync --server -logDtpr . /", "x" * 70_000,
    ],
)  # fmt: skip
def test_a_newcomer_may_not_run(command: str) -> None:
    with pytest.raises(CloneError, match="newcomer"):
        allowed(command)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ets clone facts", ["facts"]),
        ("ets clone send --exclude '/srv/a b'", ["send", "--exclude", "/srv/a b"]),
        ("ets clone send --x '; rm -rf /'", ["send", "--x", "; rm -rf /"]),
        ("ets clone manifest", ["manifest"]),
        ("ets clone give", ["give"]),
    ],
)
def test_a_newcomer_may_run_what_gives_out(command: str, words: list[str]) -> None:
    assert allowed(command) == words
