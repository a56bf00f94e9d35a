"""Ethernet addresses of stations: one way to write them, and nothing else accepted."""

from __future__ import annotations

import re

_MAC = re.compile(
    r"[0-9a-f]{2}(?:(:)[0-9a-f]{2}(?:\1[0-9a-f]{2}){4}|(-)[0-9a-f]{2}(?:\2[0-9a-f]{2}){4})"
)


def parse(text: str) -> str | None:
    """``text`` as lower case with colons; None unless it is six pairs of hexadecimal digits with
    one kind of separator (``:`` or ``-``) and can be the address of one network card (group
    addresses and all zeros cannot)."""
    lowered = text.lower()
    if not lowered.isascii() or _MAC.fullmatch(lowered) is None:
        return None
    mac = lowered.replace("-", ":")
    group = int(mac[:2], 16) & 1
    return None if group or mac == "00:00:00:00:00:00" else mac


def hyphens(mac: str) -> str:
    """As iPXE's ``hexhyp`` writes it, which is how boot scripts are named."""
    return mac.replace(":", "-")
