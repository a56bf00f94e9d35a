"""Stations' DHCP packets, made one by one, so that a test decides every byte."""

from __future__ import annotations

import random
import socket
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from tests.daemons.box import Space

_ETH_P_ALL = 3
_NOBODY = str(IPv4Address(0))
PXE_QUESTIONS = (1, 3, 6, 12, 15, 43, 54, 60, 66, 67)


@dataclass(frozen=True)
class Firmware:
    """What a kind of firmware says about itself: option 93, option 60, option 77."""

    architecture: int | None = None
    vendor: bytes = b""
    user_class: bytes = b""

    def options(self) -> list[tuple[str, object]]:
        """As scapy wants them."""
        found: list[tuple[str, object]] = []
        if self.architecture is not None:
            found.append(("pxe_client_architecture", self.architecture.to_bytes(2, "big")))
        if self.vendor:
            found.append(("vendor_class_id", self.vendor))
        if self.user_class:
            found.append(("user_class", self.user_class))
        return found


@dataclass(frozen=True)
class Answer:
    """One packet of a server."""

    kind: str
    server: str
    address: str
    next_server: str
    server_name: str
    file: str
    options: dict[str, object] = field(default_factory=dict)


_KINDS = {2: "OFFER", 5: "ACK", 6: "NAK"}


class Client:
    """Asks on one interface in the name of any MAC."""

    def __init__(self, space: Space, interface: str) -> None:
        self._socket = space.open_socket(
            socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)
        )
        self._socket.bind((interface, _ETH_P_ALL))

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def ask(
        self,
        mac: str,
        kind: str,
        *,
        firmware: Firmware | None = None,
        own: str = "",
        options: tuple[tuple[str, object], ...] = (),
        answers: int = 1,
        within: float = 3.0,
    ) -> list[Answer]:
        """Send a message and collect what comes back: until there are ``answers`` of them, or
        until ``within`` seconds have passed. ``own`` is the address of a station that has one and
        renews it."""
        number = random.getrandbits(32)
        chaddr = bytes.fromhex(mac.replace(":", ""))
        packet = (
            Ether(src=mac, dst="ff:ff:ff:ff:ff:ff")
            / IP(src=own or _NOBODY, dst="255.255.255.255")
            / UDP(sport=68, dport=67)
            / BOOTP(chaddr=chaddr, xid=number, ciaddr=own or _NOBODY, flags=0x8000)
            / DHCP(
                options=[
                    ("message-type", kind),
                    *(firmware.options() if firmware else ()),
                    *options,
                    ("param_req_list", list(PXE_QUESTIONS)),
                    "end",
                ]
            )
        )
        self._socket.send(bytes(packet))
        return self._collect(number, answers, time.monotonic() + within)

    def shout(self, body: bytes) -> None:
        """Send anything at all to the DHCP port."""
        ether = Ether(src="02:ff:ff:ff:ff:ff", dst="ff:ff:ff:ff:ff:ff")
        packet = ether / IP(src=_NOBODY, dst="255.255.255.255") / UDP(sport=68, dport=67) / body
        self._socket.send(bytes(packet))

    def _collect(self, number: int, wanted: int, end: float) -> list[Answer]:
        found: list[Answer] = []
        while len(found) < wanted and (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                frame = Ether(self._socket.recv(2048))
            except TimeoutError:
                break
            if BOOTP in frame and frame[BOOTP].op == 2 and frame[BOOTP].xid == number:
                found.append(_answer(frame))
        return found


def _answer(frame: Ether) -> Answer:
    bootp = frame[BOOTP]
    options = {item[0]: item[1] for item in frame[DHCP].options if isinstance(item, tuple)}
    return Answer(
        kind=_KINDS.get(options.get("message-type", 0), "?"),
        server=str(options.get("server_id", "")),
        address=bootp.yiaddr,
        next_server=bootp.siaddr,
        server_name=bootp.sname.rstrip(b"\0").decode(),
        file=bootp.file.rstrip(b"\0").decode(),
        options=options,
    )
