"""A server's name replaced by another's. Pure: text in, text out."""

from __future__ import annotations

import re

from ets.site.model import Server, Site


def rename(text: str, old: str, new: str) -> str:
    """``text`` with the host name ``old``, also before a domain, replaced by ``new``.

    Only where it stands as a word of its own: neither ``old`` in ``www.old`` nor in ``old-printer``
    is this server.
    """
    return re.sub(rf"(?<![\w.-]){re.escape(old)}(?![\w-])", lambda _: new, text)


def hosts(text: str, site: Site, old: Server, new: Server) -> str:
    """hosts(5) of ``old`` for ``new``: its own names on loopback lines, and ``old`` as a
    peer. Every other line stays."""
    lines: list[str] = []
    named: set[str] = set()
    for line in text.splitlines():
        fields = line.split("#")[0].split()
        if len(fields) < 2:
            lines.append(line)
        elif fields[0].startswith("127.") or fields[0] == "::1":
            lines.append(rename(line, old.name, new.name))
            named.update(lines[-1].split("#")[0].split()[1:])
        elif fields[0] == str(new.peering) and new.name in fields[1:]:
            continue  # as a peer; its own name is on a loopback line
        else:
            lines.append(line)
            named.update(fields[1:])
    if new.name not in named:
        domain = f"{new.name}.{site.domain} " if site.domain else ""
        place = next((i for i, line in enumerate(lines) if line.startswith("127.")), -1) + 1
        lines.insert(place, f"127.0.1.1 {domain}{new.name}")
    if old.name not in named:
        lines.append(f"{old.peering} {old.name}")
    return "\n".join(lines) + "\n"
