"""The DHCP clients of the lab: what they say, when they ask again, and what the load notices."""

from __future__ import annotations

import random
import struct
from ipaddress import IPv4Address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ets.lab.dhcpload import Client, Load
from ets.lab.dhcpwire import ACK, MAGIC, NAK, OFFER, Answer, checksum, frame, message, parse

MAC = bytes.fromhex("525400aa0001")
ALPHA = IPv4Address("10.77.0.11")
BETA = IPv4Address("10.77.0.12")


def answer(client: Client, kind: int, address: str = "10.77.1.5", server: IPv4Address = ALPHA,
           ) -> Answer:  # fmt: skip
    sent = client._xid
    return Answer(
        kind, sent, client.mac, IPv4Address(address), server, b"\2" * 6, 3600, "x", server
    )


def client() -> Client:
    return Client(MAC, random.Random(1))


def kind(data: bytes | None) -> int:
    assert data is not None
    return data[data.index(MAGIC) + 6]


def test_a_frame_has_a_right_header_and_carries_the_mac() -> None:
    data = frame(message(1, xid=7, mac=MAC, secs=4), mac=MAC)
    assert data[:6] == b"\xff" * 6
    assert checksum(data[14:34]) == 0
    assert struct.unpack("!HH", data[34:38]) == (68, 67)
    assert struct.unpack("!I", data[46:50]) == (7,)
    assert data[42 + 28 : 42 + 34] == MAC


@given(st.binary(max_size=600))
def test_garbage_on_the_wire_is_no_answer(data: bytes) -> None:
    assert parse(data) is None or isinstance(parse(data), Answer)


@given(st.binary(max_size=80))
def test_broken_options_are_no_answer_or_a_whole_one(tail: bytes) -> None:
    head = bytearray(frame(message(1, xid=7, mac=MAC, secs=0), mac=MAC)[: 42 + 240])
    head[34:38] = b"\x00\x43\x00\x44"
    head[42] = 2
    assert parse(bytes(head) + tail) is None or isinstance(parse(bytes(head) + tail), Answer)


def test_discover_offer_request_ack_is_one_wait() -> None:
    one = client()
    assert kind(one.boot(10.0)) == 1
    assert kind(one.receive(10.2, answer(one, OFFER))) == 3
    assert one.receive(10.5, answer(one, ACK)) is None
    (wait,) = one.waits
    assert (wait.kind, wait.server) == ("boot", ALPHA)
    assert wait.seconds == pytest.approx(0.5)
    assert wait.offer == pytest.approx(0.2)
    assert not one.waiting


def test_without_an_answer_it_asks_again_ever_more_rarely() -> None:
    one = client()
    one.boot(0.0)
    asked = [step / 10 for step in range(1, 400) if one.tick(step / 10) is not None]
    pauses = [b - a for a, b in pairwise([0.0, *asked])]
    assert pauses[:5] == pytest.approx([1, 2, 4, 8, 10], rel=0.2)
    assert one.waiting


def test_an_offer_that_nobody_acknowledges_is_given_up() -> None:
    one = client()
    one.boot(0.0)
    one.receive(0.1, answer(one, OFFER))
    kinds = [kind(sent) for step in range(2, 60) if (sent := one.tick(step / 10)) is not None]
    assert kinds[:2] == [3, 1]
    assert one.receive(6.1, answer(one, OFFER, server=BETA)) is not None
    one.receive(6.2, answer(one, ACK, server=BETA))
    assert one.waits[0].seconds == pytest.approx(6.2)


def test_a_refusal_begins_anew() -> None:
    one = client()
    one.boot(0.0)
    one.receive(0.1, answer(one, OFFER))
    assert kind(one.receive(0.2, answer(one, NAK))) == 1
    assert one.refused == 1


def test_an_answer_to_something_older_is_ignored() -> None:
    one = client()
    one.boot(0.0)
    old = answer(one, OFFER)
    one.boot(1.0)
    assert one.receive(1.1, old) is None


def test_renewing_goes_to_the_server_and_rebinding_to_all() -> None:
    one = client()
    one.boot(0.0)
    one.receive(0.1, answer(one, OFFER))
    one.receive(0.2, answer(one, ACK))
    assert one.renew(5.0)[:6] == b"\2" * 6
    assert one.rebind(6.0)[:6] == b"\xff" * 6
    one.receive(6.5, answer(one, ACK, server=BETA))
    assert [(w.kind, w.server) for w in one.waits] == [("boot", ALPHA), ("rebind", BETA)]


def test_the_load_notices_one_address_with_two_clients_and_the_unserved() -> None:
    load = Load(["52:54:00:aa:00:01", "52:54:00:aa:00:02", "52:54:00:aa:00:03"], "none0")
    first, second, third = load.clients.values()
    for one in (first, second):
        one.boot(0.0)
        one.receive(0.1, answer(one, OFFER))
        one.receive(0.2, answer(one, ACK))
        load._hold(one)
    third.boot(0.0)
    outcome = load.outcome()
    assert outcome.duplicates == (
        (IPv4Address("10.77.1.5"), ("52:54:00:aa:00:01", "52:54:00:aa:00:02")),
    )
    assert outcome.unserved == ("52:54:00:aa:00:03",)
    assert outcome.shares == {ALPHA: 2}
