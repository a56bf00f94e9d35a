"""Packages half installed, broken, held back, or waiting for an answer."""

from __future__ import annotations

from collections.abc import Iterator

from ets.host.transport import Host
from ets.ready._ask import answers, listed, script
from ets.ready.finding import Facts, Finding
from ets.site.model import Server, Site

NAME = "packages"

_STATES = "${Package}\t${db:Status-Want}\t${db:Status-Eflag}\t${db:Status-Status}\t${Version}\n"
#: apt without a lock and without writing its cache
APT = (
    "apt-get", "-s", "-q", "-o", "Debug::NoLocking=1", "-o", "Dir::Cache::pkgcache=",
    "-o", "Dir::Cache::srcpkgcache=",
)  # fmt: skip
_LEFT = r"""
find /etc -xdev -type f \( -name '*.dpkg-new' -o -name '*.dpkg-dist' -o -name '*.ucf-dist' \
  -o -name '*.ucf-new' \)
"""
SPREAD = "the clone copies the package database as it is: every server is broken in the same way"


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """dpkg's and apt's own view."""
    return answers(
        host,
        {
            "states": ["dpkg-query", "--show", f"--showformat={_STATES}"],
            "check": script(f"{' '.join(APT)} check 2>&1"),
            "left": script(_LEFT),
        },
        deadline=120,
    )


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """States other than 'installed', holds, broken dependencies, unanswered questions."""
    table = [line.split("\t") for line in facts.get("states", "").splitlines()]
    rows = [row for row in table if len(row) == 5]
    for name, want, flag, state, _ in rows:
        if flag != "ok" or state not in ("installed", "config-files", "not-installed"):
            broken = "needs to be installed again" if flag != "ok" else f"is {state}"
            yield Finding(
                "critical",
                name,
                f"{broken}: its installation did not end",
                SPREAD,
                f"apt install --reinstall {name}" if flag != "ok" else "dpkg --configure --pending",
            )
        elif want == "hold":
            yield Finding(
                "warning",
                name,
                "is held back: it gets no updates, security updates neither",
                "a server that is made anew later gets another version than this one",
                f"apt-mark unhold {name}, or write down why it is held",
            )
        elif want in ("deinstall", "purge") and state == "installed":
            yield Finding(
                "warning",
                name,
                "is installed, but marked to be removed",
                "the next run of apt takes it away, on one server and not yet on the other",
                f"apt install {name}, or apt remove {name}",
            )
    yield from _dependencies(facts.get("check", ""))
    for path in facts.get("left", "").splitlines():
        yield Finding(
            "note",
            path,
            "is a new configuration file that nobody has looked at",
            "the daemon runs with the settings of an older version, on every server",
            f"diff {path.rsplit('.', 1)[0]} {path}; take over what is new; rm {path}",
        )


def _dependencies(check: str) -> Iterator[Finding]:
    if "unmet dependencies" in check or "\nE: " in f"\n{check}":
        lines = [line.strip() for line in check.splitlines() if "Depends:" in line or "E: " in line]
        yield Finding(
            "critical",
            "apt",
            f"finds dependencies broken: {listed(lines, 3)}",
            SPREAD,
            "apt --fix-broken install",
        )
