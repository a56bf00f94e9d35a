"""Frames: whole or refused, and never a broken connection for an end."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from ets.clone.stream import DATA, END, NEWS, ORDER, PIPE, REMOVE, Receiver, Sender, move
from ets.errors import CloneError


def pair() -> tuple[Sender, Receiver, int]:
    """Both ends, and the descriptor to close for a broken connection."""
    out, into = os.pipe()
    return Sender(into), Receiver(out, stall=2), into


def test_frames_arrive_in_order() -> None:
    sender, receiver, _ = pair()
    sender.tell(ORDER, do="all", compress=True)
    sender.paths(REMOVE, (b"a\n", b"\xff"))
    sender.send(END)
    assert receiver.head() == (ORDER, 31)
    assert receiver.json(31) == {"do": "all", "compress": True}
    assert receiver.head() == (REMOVE, 5)
    assert receiver.take(5) == b"a\n\0\xff\0"
    assert receiver.head() == (END, 0)


def test_what_is_pumped_comes_out_whole() -> None:
    sender, receiver, _ = pair()
    source, fill = os.pipe()
    data = os.urandom(3 * PIPE + 17)

    def write() -> None:
        with os.fdopen(fill, "wb") as file:
            file.write(data)

    def send() -> None:
        assert sender.pump(source) == len(data)
        sender.send(END)

    threads = [threading.Thread(target=work) for work in (write, send)]
    for thread in threads:
        thread.start()
    out, into = os.pipe()
    got = b""
    while (head := receiver.head())[0] == DATA:
        receiver.pass_to(into, min(head[1], 4096))
        got += os.read(out, 4096)
        rest = head[1] - min(head[1], 4096)
        while rest:
            got += receiver.take(min(rest, PIPE))
            rest -= min(rest, PIPE)
    for thread in threads:
        thread.join()
    assert got == data
    assert head == (END, 0)


def test_a_broken_connection_is_no_end() -> None:
    sender, receiver, into = pair()
    sender.send(NEWS, b'{"a": 1}')
    os.close(into)
    _, length = receiver.head()
    with pytest.raises(CloneError, match="broke in the middle"):
        receiver.take(length + 1)
    with pytest.raises(CloneError, match="broke in the middle"):
        receiver.head()


def test_silence_ends() -> None:
    out, _ = os.pipe()
    with pytest.raises(CloneError, match="nothing for"):
        Receiver(out, stall=0.1).head()


def test_nonsense_is_refused() -> None:
    sender, receiver, _ = pair()
    sender.send(NEWS, b"no json")
    _, length = receiver.head()
    with pytest.raises(CloneError, match="no copy"):
        receiver.json(length)
    with pytest.raises(CloneError, match="no copy"):
        receiver.take(1 << 31)


def test_moving_works_without_a_pipe_too() -> None:
    one, other = socket.socketpair()
    third, fourth = socket.socketpair()
    with one, other, third, fourth:
        one.sendall(b"abc")
        move(other.fileno(), third.fileno(), 3)
        assert fourth.recv(3) == b"abc"
