"""What is on the stations' wire: DHCP packets with the kernel's time stamps.

Bytes per station come from its port's counters (``Topology.traffic``), not from packets.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from types import TracebackType
from typing import Self

from ets.lab.dhcpwire import MAGIC, packet_socket
from ets.lab.topology import Namespace

KINDS = {
    1: "DISCOVER", 2: "OFFER", 3: "REQUEST", 4: "DECLINE", 5: "ACK", 6: "NAK", 7: "RELEASE",
    8: "INFORM",
}  # fmt: skip

# "udp and (port 67 or port 68)" for Ethernet without VLAN tags: (code, jt, jf, k), bpf(4)
_FILTER = (
    (0x28, 0, 0, 12), (0x15, 0, 9, 0x0800), (0x30, 0, 0, 23), (0x15, 0, 7, 17),
    (0xB1, 0, 0, 14), (0x48, 0, 0, 14), (0x15, 3, 0, 67), (0x15, 2, 0, 68),
    (0x48, 0, 0, 16), (0x15, 0, 1, 67), (0x06, 0, 0, 0x40000), (0x06, 0, 0, 0),
)  # fmt: skip
_SO_TIMESTAMPNS = 35


@dataclass(frozen=True, slots=True)
class Seen:
    """A DHCP packet. ``at`` is monotonic seconds, ``mac`` the client's (lower case, colons),
    ``address`` what it was given (0.0.0.0 in its own packets), ``server`` who said so, from
    option 54, ``sender`` the MAC that sent the frame."""

    at: float
    kind: str
    mac: str
    xid: int
    address: IPv4Address
    server: IPv4Address | None
    sender: str


class Capture:
    """Records DHCP packets on an interface of a namespace, as a context."""

    def __init__(self, net: Namespace, interface: str) -> None:
        self._net = net
        self._interface = interface
        self._seen: list[Seen] = []
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        self._socket = packet_socket(self._interface, self._net.name)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        _attach_filter(self._socket)
        self._socket.settimeout(0.1)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(5)
        self._socket.close()

    @property
    def seen(self) -> Sequence[Seen]:
        """All packets so far, in order."""
        return tuple(self._seen)

    def of(self, mac: str) -> list[Seen]:
        """The packets of one station."""
        return [packet for packet in self.seen if packet.mac == mac]

    def first_answer(self, mac: str) -> float | None:
        """Seconds from a station's first DISCOVER to the first OFFER it got; None without."""
        packets = self.of(mac)
        asked = next((packet.at for packet in packets if packet.kind == "DISCOVER"), None)
        answered = next((packet.at for packet in packets if packet.kind == "OFFER"), None)
        return None if asked is None or answered is None else answered - asked

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                data, extra, _, _ = self._socket.recvmsg(2048, 64)
            except TimeoutError:
                continue
            except OSError:
                return
            packet = parse(data, _stamp(extra))
            if packet is not None:
                self._seen.append(packet)


def parse(frame: bytes, at: float) -> Seen | None:
    """A DHCP packet in an Ethernet frame (RFC 2131 §2), either direction, else None."""
    if len(frame) < 14 + 20 + 8 + 240 or frame[12:14] != b"\x08\x00" or frame[23] != 17:
        return None
    dhcp = frame[14 + (frame[14] & 15) * 4 + 8 :]
    if len(dhcp) < 240 or dhcp[236:240] != MAGIC:
        return None
    options = _options(dhcp[240:])
    kind = KINDS.get(options.get(53, b"\0")[0] if options.get(53) else 0)
    if kind is None:
        return None
    server = options.get(54, b"")
    return Seen(
        at=at,
        kind=kind,
        mac=dhcp[28:34].hex(":"),
        xid=int.from_bytes(dhcp[4:8], "big"),
        address=IPv4Address(dhcp[16:20]),
        server=IPv4Address(server) if len(server) == 4 else None,
        sender=frame[6:12].hex(":"),
    )


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 1 < len(data) and data[at] != 255:
        if data[at] == 0:
            at += 1
            continue
        found.setdefault(data[at], data[at + 2 : at + 2 + data[at + 1]])
        at += 2 + data[at + 1]
    return found


def _stamp(extra: Sequence[tuple[int, int, bytes]]) -> float:
    """The kernel's time of arrival as monotonic seconds."""
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= 16:
            seconds, nanoseconds = struct.unpack("qq", data[:16])
            wall: float = seconds + nanoseconds / 1e9
            return wall - time.time() + time.monotonic()
    return time.monotonic()


def _attach_filter(sock: socket.socket) -> None:
    program = b"".join(struct.pack("HBBI", *step) for step in _FILTER)
    buffer = ctypes.create_string_buffer(program)
    described = struct.pack("HL", len(_FILTER), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, 26, described)  # SO_ATTACH_FILTER; the kernel copies it
