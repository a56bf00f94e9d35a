"""What goes over the lab's wires and serial lines, and what its commands are given."""

from __future__ import annotations

import os
import socket
import threading
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ets.cli import lab as cli
from ets.errors import InputError, LabError
from ets.lab import console, wire
from ets.lab.dhcpwire import frame, message


class TestWire:
    MAC = bytes.fromhex("525400770001")

    def test_a_client_s_packet(self) -> None:
        data = frame(message(1, xid=7, mac=self.MAC, secs=4), mac=self.MAC)
        seen = wire.parse(data, 12.5)
        assert seen == wire.Seen(
            12.5, "DISCOVER", "52:54:00:77:00:01", 7, IPv4Address(0), None, "52:54:00:77:00:01"
        )

    @given(st.binary(max_size=700))
    def test_garbage_is_none(self, data: bytes) -> None:
        assert wire.parse(data, 0) is None

    @given(st.binary(max_size=400))
    def test_garbage_after_the_magic_does_not_raise(self, options: bytes) -> None:
        whole = frame(message(1, xid=7, mac=self.MAC, secs=4)[:240] + options, mac=self.MAC)
        seen = wire.parse(whole, 0)
        assert seen is None or seen.kind in wire.KINDS.values()

    def test_the_first_answer_is_measured_from_the_first_question(self) -> None:
        capture = wire.Capture(net=None, interface="x")  # type: ignore[arg-type]
        nobody = IPv4Address(0)
        said = ((1.0, "DISCOVER", "a"), (1.5, "OFFER", "b"), (2.25, "OFFER", "a"))
        for at, kind, mac in said:
            capture._seen.append(wire.Seen(at, kind, mac, 1, nobody, None, mac))
        assert capture.first_answer("a") == 1.25
        assert capture.first_answer("b") is None
        assert capture.first_answer("c") is None


class TestSerialLine:
    def test_keys_go_out_and_text_comes_in_until_ctrl_bracket(self) -> None:
        near, far = socket.socketpair()
        keys_out, keys_in = os.pipe()
        screen_out, screen_in = os.pipe()
        far.sendall(b"login: ")
        os.write(keys_in, b"root\r")
        thread = threading.Thread(target=console._pump, args=(near, keys_out, screen_in))
        thread.start()
        far.settimeout(5)
        assert far.recv(100) == b"root\r"
        assert os.read(screen_out, 100) == b"login: "
        os.write(keys_in, console.LEAVE)
        thread.join(5)
        assert not thread.is_alive()
        for descriptor in (keys_out, keys_in, screen_out, screen_in):
            os.close(descriptor)
        near.close()
        far.close()

    def test_it_ends_when_the_machine_does(self) -> None:
        near, far = socket.socketpair()
        keys_out, keys_in = os.pipe()
        far.close()
        console._pump(near, keys_out, 1)
        near.close()
        os.close(keys_out)
        os.close(keys_in)

    def test_a_station_that_is_off_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "ws09").mkdir()
        with pytest.raises(LabError, match="ws09"):
            console.attach(tmp_path / "ws09/line")


class TestOptions:
    def test_numbers_become_numbers(self) -> None:
        assert cli._options(("a=1", "b=1.5", "c=lan")) == {"a": 1, "b": 1.5, "c": "lan"}
        assert isinstance(cli._options(("every=4",))["every"], int)

    @pytest.mark.parametrize("word", ["a", "=1", "a b=1", "1=2"])
    def test_what_is_no_option_is_refused(self, word: str) -> None:
        with pytest.raises(InputError, match="KEY=VALUE"):
            cli._options((word,))
