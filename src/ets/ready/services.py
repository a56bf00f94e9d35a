"""Every configured service: enabled, active, answering its probe, and as the site file says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatch

from ets import services
from ets.errors import PlanError
from ets.facts.observe import observe
from ets.host.transport import Host
from ets.plan import diff
from ets.plan.journal import read_owned
from ets.plan.verify import answer
from ets.ready._ask import answers, document, fields, listed, script
from ets.ready.finding import Facts, Finding
from ets.site.model import Server, Site

NAME = "services"

#: what a terminal server is made of, whoever set it up: each of these is there to be used
KNOWN = (
    "apache2", "avahi-daemon", "chrony", "cron", "cups", "dnsmasq", "epoptes", "isc-dhcp-server",
    "kea-dhcp4-server", "mariadb", "nbd-server", "nfs-kernel-server", "nfs-server", "nginx",
    "nmbd", "nslcd", "postgresql", "rsyslog", "slapd", "slurmctld", "slurmd", "smbd", "ssh", "sssd",
    "tftpd-hpa", "winbind", "xrdp",
)  # fmt: skip
#: seconds that a service may take to answer: this is no start, it should answer now
SECONDS = 5.0
RESTARTS = 5

_PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,UnitFileState,Type,NRestarts,TriggeredBy,WantedBy,"
    "RequiredBy,UpheldBy,BoundBy"
)
# Units that are loaded, and those that could be.
_UNITS = f"""
units=$( (systemctl list-units --all --plain --no-legend --type=service,socket |
  while read -r u x; do echo "$u"; done
  systemctl list-unit-files --no-legend --type=service,socket |
  while read -r u x; do case "$u" in *@.*) ;; *) echo "$u";; esac; done) | sort -u)
systemctl show --property={_PROPERTIES} -- $units
"""
GONE = "when its peer dies this server is asked for it, and does not answer"


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """All units' states; with a site file what a plan would do, and what the probes say."""
    said = answers(host, {"units": script(_UNITS)})
    if site is None or server is None:
        return said
    desired, owned = services.desired(site, server), read_owned(host)
    try:
        steps = diff.steps(desired, observe(host, desired, owned), owned)
        said["plan"] = json.dumps([f"{step.verb} {step.target}" for step in steps])
    except PlanError as error:
        said["plan"] = json.dumps([error.message])
    probes = [p for one in services.of(site, server) for p in one.probes(site, server)]
    said["probes"] = json.dumps(
        [[a.probe.name, a.well, a.said] for a in (answer(p, host, seconds=SECONDS) for p in probes)]
    )
    return said


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """Units that the site file wants, units that failed, and services that nobody would start."""
    states = units(facts.get("units", ""))
    wanted = {u.name: u for u in services.desired(site, server).units} if site and server else {}
    for name, unit in wanted.items() if states else ():
        state = states.get(name, {})
        if unit.active and state.get("ActiveState") != "active":
            yield _inactive(name, state)
        if unit.enabled and state.get("UnitFileState") not in ("enabled", "static", "generated"):
            yield _disabled(name, state)
    for name, state in sorted(states.items()):
        if name not in wanted:
            yield from _unit(name, state)
        yield from _restless(name, state)
    for name, well, words in document(facts.get("probes", "")) or []:
        if not well:
            yield Finding(
                "critical",
                name,
                f"is not so: {words.splitlines()[-1] if words else 'no answer'}",
                GONE,
                "ets verify; journalctl -b -u UNIT of the service",
            )
    steps = document(facts.get("plan", ""))
    if steps:
        yield Finding(
            "warning",
            "site file",
            f"this server is not what it says; a plan would {listed(steps, 3)}",
            "the clone would be made from something that nobody described",
            "ets plan, then ets apply",
        )


def units(text: str) -> dict[str, dict[str, str]]:
    """From the blocks of ``systemctl show``, by the unit's own name; those that exist."""
    blocks = (fields(block) for block in text.split("\n\n"))
    return {b["Id"]: b for b in blocks if "Id" in b and b.get("LoadState") != "not-found"}


def _inactive(name: str, state: dict[str, str]) -> Finding:
    is_now = f"{state.get('ActiveState', 'not there')} ({state.get('SubState', 'no such unit')})"
    return Finding(
        "critical", name, f"is {is_now}", GONE, f"ets apply; if it fails: journalctl -b -u {name}"
    )


def _disabled(name: str, state: dict[str, str]) -> Finding:
    return Finding(
        "critical",
        name,
        f"is {state.get('UnitFileState') or 'not there'}: it does not start with the server",
        "after a power cut, or on the clone's first start, it does not run",
        f"systemctl enable {name}",
    )


def _unit(name: str, state: dict[str, str]) -> Iterator[Finding]:
    """A unit that no site file speaks of."""
    active, kept = state.get("ActiveState"), state.get("UnitFileState")
    known = any(fnmatch(name, f"{one}.service") for one in KNOWN)
    started = any(
        state.get(k) for k in ("TriggeredBy", "WantedBy", "RequiredBy", "UpheldBy", "BoundBy")
    )
    if active == "failed":
        yield Finding(
            "critical" if known else "warning",
            name,
            "has failed",
            GONE if known else "the clone inherits what fails here, and hides what fails next",
            f"journalctl -b -u {name}; mend it, or: systemctl disable {name}; "
            f"systemctl reset-failed {name}",
        )
    elif active == "active" and kept == "disabled" and not started:
        yield Finding(
            "warning",
            name,
            "runs, but was started by hand: it is disabled",
            "after a power cut, or on the clone's first start, it does not run",
            f"systemctl enable {name}, or systemctl stop {name}",
        )
    elif known and kept in ("disabled", "masked") and active != "active" and not started:
        yield Finding(
            "note",
            name,
            f"is installed, but {kept} and not running",
            "if somebody counts on it: it is on no server, and will be on none",
            f"systemctl enable --now {name}, or remove its package",
        )
    elif known and kept == "enabled" and active == "inactive" and _lasting(state):
        yield Finding(
            "critical",
            name,
            "is enabled, but does not run",
            GONE,
            f"systemctl start {name}; if it fails: journalctl -b -u {name}",
        )


def _lasting(state: dict[str, str]) -> bool:
    """Should it run all the time? Neither one that ends by itself nor one started when needed."""
    return state.get("Type") != "oneshot" and not state.get("TriggeredBy")


def _restless(name: str, state: dict[str, str]) -> Iterator[Finding]:
    count = state.get("NRestarts", "0")
    if (count.isdigit() and int(count) >= RESTARTS) or state.get("SubState") == "auto-restart":
        yield Finding(
            "warning",
            name,
            f"was started again {count} times since the server started",
            "under the whole site's load it may not come back in time",
            f"journalctl -b -u {name}",
        )
