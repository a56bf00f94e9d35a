"""All checks of one machine, several at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ets.errors import EXIT_DRIFT, EXIT_OK, HostError
from ets.host.transport import Host
from ets.ready import Check
from ets.ready.finding import SEVERITIES, Facts, Finding
from ets.site.model import Server, Site

AT_ONCE = 4
#: what a judge raises over an answer that is none: another version of a program, half a line
UNREADABLE = (ValueError, KeyError, TypeError, IndexError, AttributeError)


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of one check: its findings, the worst first."""

    check: str
    findings: tuple[Finding, ...]


def examine(
    checks: Sequence[Check], host: Host, site: Site | None, server: Server | None
) -> tuple[Checked, ...]:
    """Ask and judge; changes nothing. A check that cannot be asked is a finding, not an error."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return tuple(pool.map(lambda check: _one(check, host, site, server), checks))


def judged(check: Check, facts: Facts, site: Site | None, server: Server | None) -> Checked:
    """The findings of one check, the worst first, none twice."""
    try:
        found = list(dict.fromkeys(check.judge(facts, site, server)))
    except UNREADABLE as error:
        found = [_unknown(check.NAME, f"an answer could not be read: {error!r}")]
    return Checked(check.NAME, tuple(sorted(found, key=lambda f: SEVERITIES.index(f.severity))))


def exit_code(results: Iterable[Checked]) -> int:
    """0 when nothing that matters was found, else 3."""
    matters = any(finding.matters for checked in results for finding in checked.findings)
    return EXIT_DRIFT if matters else EXIT_OK


def _one(check: Check, host: Host, site: Site | None, server: Server | None) -> Checked:
    try:
        facts = check.ask(host, site, server)
    except HostError as error:
        return Checked(check.NAME, (_unknown(check.NAME, error.message),))
    return judged(check, facts, site, server)


def _unknown(name: str, why: str) -> Finding:
    return Finding(
        "warning",
        name,
        f"could not be checked: {why}",
        "whether the server is fit in this respect is not known",
        f"mend what is said above, then: ets ready --only {name}",
    )
