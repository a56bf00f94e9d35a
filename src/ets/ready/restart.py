"""Does every service survive a restart? The one thing here that changes the server: for a moment,
and only when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator

from ets import services as site_services
from ets.errors import DeadlinePassed
from ets.facts import units
from ets.host.deadline import Deadline, wait_for
from ets.host.transport import Host
from ets.plan.verify import answer
from ets.ready.finding import Finding
from ets.ready.services import KNOWN
from ets.site.model import Server, Site

#: seconds that a service may take to be active again, and to answer
ACTIVE = 60.0
ANSWERS = 15.0
#: what must not be restarted under whoever is looking: it ends their own connection, or nothing
NEVER = ("ssh.service",)


def candidates(host: Host, site: Site | None, server: Server | None) -> tuple[str, ...]:
    """The units to try: those that the site file wants, or the known ones that run."""
    if site and server:
        wanted = [u.name for u in site_services.desired(site, server).units if u.active]
    else:
        wanted = [f"{name}.service" for name in KNOWN]
    active = units.read(host, wanted)
    return tuple(
        name
        for name, fact in sorted(active.items())
        if fact.active_state == "active" and name not in NEVER
    )


def restart(host: Host, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """Restart them one after the other, and ask what can be asked afterwards. Raises HostError when
    the host cannot be asked."""
    for name in candidates(host, site, server):
        done = host.run(["systemctl", "restart", "--", name], check=False, deadline=120)
        said = done.stderr.decode(errors="replace").strip()
        if done.status != 0 or not _active(host, name):
            yield _finding(name, said.splitlines()[0] if said else "it is not active afterwards")
    for service in site_services.of(site, server) if site and server else ():
        for probe in service.probes(site, server) if site and server else ():
            found = answer(probe, host, seconds=ANSWERS)
            if not found.well:
                yield _finding(service.NAME, f"{probe.name}: {found.said}")


def _active(host: Host, name: str) -> bool:
    try:
        wait_for(
            f"{name} to be active",
            lambda: units.read(host, [name])[name].active_state == "active",
            Deadline(ACTIVE),
        )
    except DeadlinePassed:
        return False
    return True


def _finding(subject: str, words: str) -> Finding:
    return Finding(
        "critical",
        subject,
        f"did not survive a restart: {words}",
        "after a power cut this server does not serve it, when its peer may be dead already",
        f"journalctl -b -u {subject}",
    )
