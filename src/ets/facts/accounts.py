"""Which system accounts there are, and the groups that they are in."""

from __future__ import annotations

from collections.abc import Iterable

from ets.host.transport import Host


def read(host: Host, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The sorted names of the groups of those of the named accounts that exist (local ones, from
    passwd(5) and group(5)). Raises HostError."""
    wanted = set(names)
    if not wanted:
        return {}
    passwd = (host.read("/etc/passwd") or b"").decode(errors="replace")
    group = (host.read("/etc/group") or b"").decode(errors="replace")
    return {name: groups for name, groups in parse(passwd, group).items() if name in wanted}


def parse(passwd: str, group: str) -> dict[str, tuple[str, ...]]:
    """Users and their groups (the primary one included) from the two files' text."""
    primary = {
        row[0]: row[3] for row in (line.split(":") for line in passwd.splitlines()) if len(row) > 3
    }
    groups: dict[str, set[str]] = {name: set() for name in primary}
    for row in (line.split(":") for line in group.splitlines()):
        if len(row) < 4:
            continue
        members = set(row[3].split(",")) | {n for n, number in primary.items() if number == row[2]}
        for name in members & groups.keys():
            groups[name].add(row[0])
    return {name: tuple(sorted(found)) for name, found in groups.items()}
