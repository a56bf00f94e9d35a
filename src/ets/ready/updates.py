"""Security updates that are missing, and whether they would be noticed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ets.host.transport import Host
from ets.ready._ask import answers, listed, script
from ets.ready.finding import Facts, Finding
from ets.ready.packages import APT
from ets.site.model import Server, Site

NAME = "updates"

DAY = 86400
OLD = 8 * DAY

_LISTS = r"""
date +%s
find /var/lib/apt/lists -maxdepth 1 -name '*Release' -printf '%T@ %f\n'
"""
# Commented lines are none; deb822 files name their suites on a line of their own.
_SOURCES = r"""
cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources |
  grep -v '^[[:space:]]*#'
"""
_AUTOMATIC = "apt-config dump APT::Periodic::Unattended-Upgrade"
DEATH = "all servers are equal: who breaks into one by a known hole breaks into all of them"


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """What apt would install, from lists how old, from which sources."""
    return answers(
        host,
        {
            "upgrade": script(f"{' '.join(APT)} dist-upgrade"),
            "lists": script(_LISTS),
            "sources": script(_SOURCES),
            "automatic": script(_AUTOMATIC),
        },
        deadline=120,
    )


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """Security updates first, then whether apt knows of them at all."""
    rows = re.findall(r"^Inst (\S+) \[([^]]+)\] \((\S+) ([^)]*)\)", facts.get("upgrade", ""), re.M)
    secure = [f"{name} {old} → {new}" for name, old, new, origin in rows if _security(origin)]
    if secure:
        yield Finding(
            "critical",
            f"{len(secure)} security update{'s' if len(secure) > 1 else ''}",
            f"missing: {listed(secure)}",
            DEATH,
            "apt upgrade",
        )
    others = [name for name, _, _, origin in rows if not _security(origin)]
    if others:
        yield Finding(
            "note",
            f"{len(others)} other update{'s' if len(others) > 1 else ''}",
            f"to be had: {listed(others)}",
            "a server that is made anew later gets other versions than this one",
            "apt upgrade, before the clone",
        )
    yield from _lists(facts)
    if "automatic" in facts and '"1"' not in facts["automatic"]:
        yield Finding(
            "note",
            "unattended-upgrades",
            "security updates are not installed by themselves",
            DEATH,
            "apt install unattended-upgrades, or decide who does it, and when",
        )


def _security(origin: str) -> bool:
    return "security" in origin.lower()


def _lists(facts: Facts) -> Iterator[Finding]:
    sources, lines = facts.get("sources"), facts.get("lists", "").splitlines()
    if sources is not None and "security" not in sources:
        yield Finding(
            "critical",
            "/etc/apt/sources.list",
            "names no source of security updates",
            DEATH,
            "add: deb http://security.debian.org/debian-security SUITE-security main",
        )
    if not lines:
        return
    now, times = float(lines[0]), [float(line.split()[0]) for line in lines[1:]]
    if not times:
        yield Finding(
            "warning",
            "apt",
            "has no package lists: whether updates are missing is not known",
            DEATH,
            "apt update, then ets ready --only updates",
        )
    elif now - max(times) > OLD:
        # A mirror's Release file keeps the mirror's time; the newest of them is what counts.
        yield Finding(
            "warning",
            "apt",
            f"its package lists are {int((now - max(times)) / DAY)} days old: whether updates are "
            "missing is not known",
            DEATH,
            "apt update, then ets ready --only updates",
        )
