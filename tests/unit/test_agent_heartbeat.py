"""Heartbeats: only a server of the site can make one, and only once."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ets.cluster import heartbeat
from ets.cluster.heartbeat import Gate, Heartbeat, Refused

SECRET = bytes(range(32))
BEAT = Heartbeat("alpha", "lan", 10, 5, "ab" * 32, "01" * 8, "02" * 8, 0.5, 1_700_000_000.25)


def test_a_heartbeat_arrives_as_it_was_sent() -> None:
    assert heartbeat.decode(heartbeat.encode(BEAT, SECRET), SECRET) == BEAT


@given(data=st.binary(max_size=2000))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        heartbeat.decode(data, SECRET)


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused(at: int, bit: int) -> None:
    datagram = bytearray(heartbeat.encode(BEAT, SECRET))
    datagram[at % len(datagram)] ^= 1 << bit
    with pytest.raises(Refused):
        heartbeat.decode(bytes(datagram), SECRET)


def test_another_site_s_heartbeat_is_refused() -> None:
    with pytest.raises(Refused, match="not from this site"):
        heartbeat.decode(heartbeat.encode(BEAT, bytes(32)), SECRET)


@given(
    body=st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_whatever_a_peer_signs_ends_in_a_heartbeat_or_a_refusal(body: object) -> None:
    import hashlib
    import hmac
    import json

    text = json.dumps(body).encode()
    code = hmac.new(SECRET, b"ets heartbeat\0" + text, hashlib.sha256).digest()
    with pytest.raises(Refused):
        heartbeat.decode(code + text, SECRET)


def test_it_fits_into_one_packet_with_the_longest_names() -> None:
    long = dataclasses.replace(BEAT, server="s" * 63, start=2**61, counter=2**61)
    assert len(heartbeat.encode(long, SECRET)) < 1200
    with pytest.raises(ValueError, match="at most"):
        heartbeat.encode(dataclasses.replace(BEAT, server="s" * 2000), SECRET)


beats = st.lists(
    st.tuples(st.sampled_from(["alpha", "beta", "x"]), st.integers(0, 5), st.integers(0, 5))
)


@given(beats=beats)
def test_what_is_let_through_rises_and_nothing_passes_twice(
    beats: list[tuple[str, int, int]],
) -> None:
    gate = Gate(["alpha", "beta"])
    passed: dict[str, list[tuple[int, int]]] = {"alpha": [], "beta": []}
    for server, start, counter in beats:
        beat = dataclasses.replace(BEAT, server=server, start=start, counter=counter)
        try:
            gate.admit(beat, "lan")
        except Refused:
            continue
        passed[server].append((start, counter))
    for pairs in passed.values():
        assert pairs == sorted(set(pairs))


def test_why_something_is_not_let_through() -> None:
    gate = Gate(["alpha"])
    gate.admit(BEAT, "lan")
    with pytest.raises(Refused, match="replayed"):
        gate.admit(BEAT, "lan")
    with pytest.raises(Refused, match="another network"):
        gate.admit(dataclasses.replace(BEAT, counter=6), "stations")
    with pytest.raises(Refused, match="not a peer"):
        gate.admit(dataclasses.replace(BEAT, server="mallory", counter=7), "lan")
    gate.admit(dataclasses.replace(BEAT, link="stations"), "stations")
    gate.admit(dataclasses.replace(BEAT, start=11, counter=1), "lan")
