"""DHCP on the wire: frames of a client, answers of a server, and a raw socket in a namespace.

Frame formats: RFC 2131 §2, RFC 2132 (options), RFC 791, RFC 1071 (checksum), PXE 2.1 (options 60,
93, 94).
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from ets.errors import LabError

DISCOVER, OFFER, REQUEST, ACK, NAK = 1, 2, 3, 5, 6
MAGIC = b"\x63\x82\x53\x63"
BROADCAST = b"\xff" * 6
NOBODY = IPv4Address(0)
EVERYBODY = IPv4Address("255.255.255.255")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to one client."""

    kind: int
    xid: int
    mac: bytes
    address: IPv4Address
    server: IPv4Address
    server_mac: bytes
    lease: int
    boot_file: str
    next_server: IPv4Address


def checksum(header: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def frame(
    payload: bytes,
    *,
    mac: bytes,
    to_mac: bytes = BROADCAST,
    source: IPv4Address = NOBODY,
    to: IPv4Address = EVERYBODY,
) -> bytes:
    """A whole Ethernet frame with a DHCP client's UDP datagram (68 → 67) in it."""
    udp = struct.pack("!HHHH", 68, 67, 8 + len(payload), 0) + payload
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, source.packed, to.packed
    )
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return to_mac + mac + b"\x08\x00" + head + udp


def message(
    kind: int,
    *,
    xid: int,
    mac: bytes,
    secs: int,
    options: Iterable[tuple[int, bytes]] = (),
    holds: IPv4Address = NOBODY,
    broadcast: bool = False,
) -> bytes:
    """A BOOTREQUEST (RFC 2131 §2) of a BIOS PXE client."""
    fixed = struct.pack(
        "!BBBBIHH4s4s4s4s16s64s128s",
        1, 1, 6, 0, xid, secs, 0x8000 if broadcast else 0, holds.packed, bytes(4), bytes(4),
        bytes(4), mac, b"", b"",
    )  # fmt: skip
    said = [(53, bytes([kind])), *options, (55, bytes([1, 3, 6, 12, 15, 43, 54, 60, 66, 67]))]
    said += [(60, b"PXEClient:Arch:00000:UNDI:002001"), (93, b"\0\0"), (94, b"\1\2\1")]
    coded = b"".join(bytes([code, len(value)]) + value for code, value in said)
    return (fixed + MAGIC + coded + b"\xff").ljust(300, b"\0")


def parse(data: bytes) -> Answer | None:
    """The answer in an Ethernet frame; None for anything else, also for garbage."""
    if len(data) < 14 + 20 + 8 + 240 or data[12:14] != b"\x08\x00" or data[23] != 17:
        return None
    start = 14 + (data[14] & 15) * 4
    if data[start : start + 4] != b"\x00\x43\x00\x44":
        return None
    dhcp = data[start + 8 :]
    if len(dhcp) < 240 or dhcp[0] != 2 or dhcp[236:240] != MAGIC:
        return None
    options = dict(_options(dhcp[240:]))
    if len(options.get(53, b"")) != 1 or len(options.get(54, b"")) != 4:
        return None
    return Answer(
        kind=options[53][0],
        xid=int.from_bytes(dhcp[4:8], "big"),
        mac=dhcp[28:34],
        address=IPv4Address(dhcp[16:20]),
        server=IPv4Address(options[54]),
        server_mac=data[6:12],
        lease=int.from_bytes(options.get(51, b""), "big"),
        boot_file=dhcp[108:236].split(b"\0")[0].decode(errors="replace"),
        next_server=IPv4Address(dhcp[20:24]),
    )


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 1 < len(data) and data[at] != 255:
        if data[at] == 0:
            at += 1
            continue
        yield data[at], data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]


def packet_socket(interface: str, netns: str | None = None) -> socket.socket:
    """A raw socket on ``interface`` that also hears frames for other MACs. In the namespace
    ``netns`` when given (the calling thread stays where it is). Raises LabError."""
    opened: list[socket.socket | OSError] = []

    def enter_and_open() -> None:
        try:
            if netns is not None:
                libc = ctypes.CDLL(None, use_errno=True)
                handle = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    if libc.setns(handle, 0x40000000) != 0:  # CLONE_NEWNET
                        raise OSError(ctypes.get_errno(), "setns")
                finally:
                    os.close(handle)
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
            made.bind((interface, 0x0800))
            promiscuous = struct.pack("iHH8s", socket.if_nametoindex(interface), 1, 0, b"")
            made.setsockopt(263, 1, promiscuous)  # SOL_PACKET, PACKET_ADD_MEMBERSHIP
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            opened.append(made)
        except OSError as error:
            opened.append(error)

    # A thread of its own: setns moves only the thread that calls it, and this one then ends.
    thread = threading.Thread(target=enter_and_open)
    thread.start()
    thread.join()
    result = opened[0]
    if isinstance(result, OSError):
        where = f"{interface} in {netns}" if netns else interface
        raise LabError(f"cannot open {where}: {result}", hint="is the lab up? (ets lab status)")
    return result
