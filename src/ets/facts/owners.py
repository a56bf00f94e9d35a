"""Which package a path came with (dpkg-query(1))."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ets.host.transport import Host

#: paths in one question, and in all: who has more differences has another system
_AT_ONCE, _MOST = 1000, 20_000

_MERGED = re.compile(r"/usr(/(?:s?bin|lib(?:32|64|x32)?)/.*)")


def read(host: Host, paths: Iterable[str]) -> dict[str, str]:
    """The package of each of ``paths`` that belongs to one; of several the first. Changes
    nothing. Raises HostError when dpkg cannot be asked."""
    asked = [path for path in paths if path.startswith("/") and "\n" not in path][:_MOST]
    names = [name for path in asked for name in _names(path)]
    found: dict[str, str] = {}
    for at in range(0, len(names), _AT_ONCE):
        patterns = [re.sub(r"([\\*?\[])", r"\\\1", name) for name in names[at : at + _AT_ONCE]]
        said = host.run(["dpkg-query", "--search", "--", *patterns], check=False)
        found.update(parse(said.text))
    told = ((path, (found[name] for name in _names(path) if name in found)) for path in asked)
    return {path: first for path, owners in told if (first := next(owners, ""))}


def parse(text: str) -> dict[str, str]:
    """Paths and their packages from lines as *samba, samba-libs:amd64: /usr/lib/x*; diversions
    are none."""
    found = {}
    for line in text.splitlines():
        packages, colon, path = line.partition(": /")
        if colon and "diversion" not in packages:
            found[f"/{path}"] = packages.split(", ")[0].partition(":")[0]
    return found


def _names(path: str) -> list[str]:
    """Packages still name what lies in /usr/bin as /bin (Debian 12)."""
    met = _MERGED.fullmatch(path)
    return [path, met[1]] if met else [path]
