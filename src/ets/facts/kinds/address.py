"""The server's own addresses (ip(8)): not compared, but needed to see that two servers do the same
on addresses of their own."""

from __future__ import annotations

from ipaddress import ip_interface

KIND = "address"
ASK = (("ip", "-oneline", "address"),)


def parse(text: str) -> dict[str, dict[str, str]]:
    """Addresses and the ``network`` of each, without loopback and link-local ones."""
    found = {}
    for row in (line.split() for line in text.splitlines()):
        if len(row) > 3 and row[2] in ("inet", "inet6") and "/" in row[3]:
            try:
                interface = ip_interface(row[3])
            except ValueError:
                continue
            if not (interface.ip.is_loopback or interface.ip.is_link_local):
                found[str(interface.ip)] = {"network": str(interface.network)}
    return found
