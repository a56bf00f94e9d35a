"""Which Debian packages are installed."""

from __future__ import annotations

from collections.abc import Iterable

from ets.host.transport import Host

STATUS = "/var/lib/dpkg/status"
FORMAT = "${Package}\t${db:Status-Status}\t${Version}\n"


def read(host: Host, names: Iterable[str]) -> dict[str, str]:
    """The versions of those of the named packages that are completely installed.

    On a host without dpkg's database none is. Raises HostError when dpkg-query cannot be asked.
    """
    wanted = sorted(set(names))
    if not wanted or STATUS not in host.look([STATUS]):
        return {}
    answer = host.run(["dpkg-query", "--show", f"--showformat={FORMAT}", *wanted], check=False)
    return parse(answer.text)


def parse(text: str) -> dict[str, str]:
    """Installed packages and their versions from dpkg-query's lines (see ``FORMAT``)."""
    rows = (line.split("\t") for line in text.splitlines())
    return {row[0]: row[2] for row in rows if len(row) == 3 and row[1] == "installed"}
