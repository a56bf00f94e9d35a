"""The small services a station talks to beside its image, for drills without a whole lab: a DHCP
server that always gives one address, and an HTTP server that writes down what is posted to it.

Run inside the station's network as: station_services.py LOG LEASE ADDRESS ROUTER HTTP-ADDRESS...
Every line of LOG is a JSON object with "t" (monotonic) and "what".
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_COOKIE = bytes([99, 130, 83, 99])
_NAMES = {1: "discover", 3: "request"}


def note(log: Path, **what: object) -> None:
    """Append one record to ``log``."""
    with log.open("a") as file:
        file.write(json.dumps({"t": time.monotonic(), **what}) + "\n")


def dhcp(log: Path, lease: int, address: str, router: str) -> None:
    """Answer DISCOVER with OFFER and REQUEST with ACK (RFC 2131 §4.3), for ever."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"tap0")
    server.bind(("", 67))
    while True:
        packet, _ = server.recvfrom(2048)
        if len(packet) < 244 or packet[236:240] != _COOKIE:
            continue
        options = _options(packet[240:])
        kind = options.get(53, b"\0")[0]
        if kind not in _NAMES:
            continue
        client = socket.inet_ntoa(packet[12:16])
        note(log, what="dhcp", kind=_NAMES[kind], ciaddr=client, id=options.get(61, b"").hex())
        answer = _answer(packet, 2 if kind == 1 else 5, lease, address, router)
        target = "255.255.255.255" if packet[12:16] == bytes(4) else client
        server.sendto(answer, (target, 68))


def _options(content: bytes) -> dict[int, bytes]:
    found = {}
    at = 0
    while at < len(content) and content[at] != 255:
        if content[at] == 0:
            at += 1
            continue
        found[content[at]] = content[at + 2 : at + 2 + content[at + 1]]
        at += 2 + content[at + 1]
    return found


def _answer(packet: bytes, kind: int, lease: int, address: str, router: str) -> bytes:
    me = socket.inet_aton(router)
    head = bytearray(packet[:236])
    head[0] = 2
    head[16:20] = socket.inet_aton(address)
    head[20:24] = me
    options = {
        53: bytes([kind]), 54: me, 51: struct.pack("!I", lease),
        1: socket.inet_aton("255.255.252.0"), 3: me,
    }  # fmt: skip
    body = b"".join(bytes([code, len(value)]) + value for code, value in options.items())
    return bytes(head) + _COOKIE + body + b"\xff"


def http(log: Path, address: str) -> None:
    """Write down every POST and answer 204, for ever."""

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            note(log, what="post", server=address, path=self.path, body=body.decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Nothing: the log is ours."""

    ThreadingHTTPServer((address, 80), Sink).serve_forever()


if __name__ == "__main__":
    file, lease_time, given, gateway, *addresses = sys.argv[1:]
    for own in addresses:
        threading.Thread(target=http, args=(Path(file), own), daemon=True).start()
    dhcp(Path(file), int(lease_time), given, gateway)
