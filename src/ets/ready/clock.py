"""Is the clock synchronised, with whom, and how far is it from the peers'?"""

from __future__ import annotations

from collections.abc import Iterator

from ets.host.transport import Host
from ets.ready._ask import answers, document, fields, script
from ets.ready.finding import Facts, Finding
from ets.site.model import Server, Site

NAME = "clock"

DAEMONS = ("chrony", "systemd-timesyncd", "ntpsec", "ntp", "openntpd")
#: seconds: what users notice in files on a shared home, and what breaks Kerberos and make(1)
FAR = 1.0
OFF = 0.1
#: field of ``chronyc -c tracking`` (chronyc(1))
_REFERENCE, _STRATUM, _OFFSET, _LEAP = 0, 2, 4, 13
#: how chrony calls its own clock, when it follows nobody
_LOCAL = "7F7F0101"

DEATH = (
    "files on the homes, certificates and log entries of two servers with two clocks contradict "
    "each other just when one has to take over from the other"
)
CHRONY = "apt install chrony, and give it a server line in /etc/chrony/chrony.conf"


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """systemd, chrony and ETS' agent about the clock."""
    states = 'for d in "$@"; do echo "$d=$(systemctl is-active "$d")"; done'
    return answers(
        host,
        {
            "timedatectl": ["timedatectl", "show"],
            "daemons": script(states, *DAEMONS),
            "tracking": ["chronyc", "-n", "-c", "tracking"],
            "sources": ["chronyc", "-n", "-c", "sources"],
            "status": ["ets", "status", "--json"],
        },
    )


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """One daemon that follows somebody, near enough to the true time and to the peers."""
    about = fields(facts.get("timedatectl", ""))
    yield from _daemons(fields(facts.get("daemons", "")))
    tracking = facts.get("tracking", "").strip().split(",")
    if len(tracking) > _LEAP:
        yield from _tracking(tracking, facts.get("sources", ""))
    elif about.get("NTPSynchronized") == "no" and "=active" in facts.get("daemons", "="):
        yield Finding("warning", "clock", "is not synchronised", DEATH, CHRONY)
    yield from _settings(about, site)
    yield from _peers(document(facts.get("status", "")) or {})


def _daemons(states: dict[str, str]) -> Iterator[Finding]:
    running = [name for name in DAEMONS if states.get(name) == "active"]
    if states and not running:
        yield Finding("warning", "clock", "no time daemon runs on this machine", DEATH, CHRONY)
    elif len(running) > 1:
        yield Finding(
            "warning",
            "clock",
            f"{len(running)} time daemons pull at it: {', '.join(running)}",
            DEATH,
            f"keep one: systemctl disable --now {' '.join(running[1:])}",
        )


def _tracking(row: list[str], sources: str) -> Iterator[Finding]:
    offset = abs(float(row[_OFFSET]))
    if row[_LEAP] == "Not synchronised":
        names = [line.split(",")[2] for line in sources.splitlines() if line.count(",") > 2]
        who = f"; asked: {', '.join(names)}" if names else "; it has nobody to ask"
        yield Finding(
            "warning",
            "clock",
            f"chrony follows no time server yet{who}",
            DEATH,
            "chronyc -n sources: none must be marked '?'; is UDP port 123 open on the way?",
        )
    elif row[_REFERENCE] == _LOCAL:
        yield Finding(
            "warning",
            "clock",
            f"chrony follows this machine's own clock (stratum {row[_STRATUM]}): no time server "
            "of the site answers",
            DEATH,
            "chronyc -n sources; correct time.servers in the site file, or open UDP port 123",
        )
    if offset > OFF:
        yield Finding(
            "critical" if offset > FAR else "warning",
            "clock",
            f"is {offset:.3f} s off its time server",
            DEATH,
            "chronyc makestep",
        )


def _settings(about: dict[str, str], site: Site | None) -> Iterator[Finding]:
    zone = about.get("Timezone")
    if about.get("LocalRTC") == "yes":
        yield Finding(
            "warning",
            "hardware clock",
            "holds local time",
            "a server that starts in the hour of a change of summer time starts an hour wrong",
            "timedatectl set-local-rtc 0",
        )
    if site and zone and zone != site.timezone:
        yield Finding(
            "warning",
            "time zone",
            f"is {zone}; the site file says {site.timezone}",
            "sessions and scheduled work move by hours when they move to the other server",
            f"timedatectl set-timezone {site.timezone}",
        )


def _peers(status: dict[str, list[dict[str, object]]]) -> Iterator[Finding]:
    for row in status.get("servers", []):
        skew = row.get("skew")
        if row.get("self") or not isinstance(skew, int | float) or abs(skew) <= OFF:
            continue
        yield Finding(
            "critical" if abs(skew) > FAR else "warning",
            str(row["name"]),
            f"its clock is {skew:+.2f} s from this server's",
            DEATH,
            "on both: chronyc -n sources; on the one that is wrong: chronyc makestep",
        )
