"""Ports that somebody listens on (ss(8)): on which side, and who.

Ports from the range that the kernel gives out are one fact for each program, whatever their
number: they are another one after every start. Of UDP, where a question looks like a service,
they are passed over.
"""

from __future__ import annotations

import re

KIND = "socket"
ASK = (("ss", "-Hltunp"), ("cat", "/proc/sys/net/ipv4/ip_local_port_range"))

_PROGRAM = re.compile(r'\("([^"]*)"')
_RANDOM = (32768, 60999)


def parse(text: str, given: str = "") -> dict[str, dict[str, str]]:
    """``program`` are the names of the processes; the fact's name is port, protocol and
    address, as in *80/tcp on 10.0.0.1*."""
    low, high = _range(given)
    programs: dict[str, set[str]] = {}
    for row in (line.split(None, 6) for line in text.splitlines()):
        if len(row) < 6 or row[0] not in ("tcp", "udp"):
            continue
        address, _, port = row[4].rpartition(":")
        who = set(_PROGRAM.findall(row[6])) if len(row) > 6 else set()
        if not port.isdigit():
            continue
        passing = low <= int(port) <= high
        if passing and row[0] == "udp":
            continue
        name = f"{port}/{row[0]} on {_place(address)}"
        if passing:
            name = f"a passing port/{row[0]} of {_some(who)}"
        programs.setdefault(name, set()).update(who)
    return {name: {"program": _some(who)} for name, who in sorted(programs.items())}


def _some(programs: set[str]) -> str:
    return ", ".join(sorted(programs)) or "the kernel"


def _place(address: str) -> str:
    bare = address.partition("%")[0].strip("[]")
    if bare in ("0.0.0.0", "*", "::", ""):  # noqa: S104 - compared, not bound
        return "all addresses"
    if bare.startswith("fe80:"):
        return "link-local addresses"
    return "loopback" if bare == "::1" or bare.startswith("127.") else bare


def _range(text: str) -> tuple[int, int]:
    parts = text.split()
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 else _RANDOM
