"""Samba's shares and its global settings, as Samba itself reads them (testparm(1))."""

from __future__ import annotations

KIND = "share"
ASK = (("testparm", "-s", "--suppress-prompt"),)

#: how a server is called is its own
_OWN = {"netbios name", "server string", "netbios aliases"}


def parse(text: str) -> dict[str, dict[str, str]]:
    """Sections and their parameters; testparm tells those that are not Samba's default."""
    found: dict[str, dict[str, str]] = {}
    about: dict[str, str] = {}
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            about = found.setdefault(line[1:-1], {})
        elif "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            if name.strip() not in _OWN:
                about[name.strip()] = value.strip()
    return found
