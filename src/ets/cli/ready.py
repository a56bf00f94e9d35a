"""``ets ready``: is this server fit to be cloned?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.console import Console
from rich.text import Text

from ets import paths, ready
from ets.cli import _server
from ets.errors import EtsError, InputError
from ets.host.local import LocalHost
from ets.host.ssh import SshHost
from ets.host.transport import Host
from ets.ready.examine import Checked, examine, exit_code
from ets.ready.finding import SEVERITIES, Severity
from ets.ready.restart import restart
from ets.site.model import Server, Site

STYLES: dict[Severity, tuple[str, str]] = {
    "critical": ("✗", "bold red"),
    "warning": ("!", "yellow"),
    "note": ("·", "dim"),
}


@click.command()
@click.option("--site", help=f"The site file [default: {paths.SITE_FILE}, if there is one].")
@click.option("--server", help=f"The server's name [default: what {paths.SERVER_NAME} says].")
@click.option(
    "--on",
    metavar="TARGET",
    help="Look at this machine by ssh (root@ADDRESS), as at one that has no site file.",
)
@click.option("--only", multiple=True, metavar="CHECK", help="Only this check; may be repeated.")
@click.option("--restart", "try_restart", is_flag=True,
              help="Restart every service, one after the other: do they come back?")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def command(
    *,
    site: str | None,
    server: str | None,
    on: str | None,
    only: Sequence[str],
    try_restart: bool,
    as_json: bool,
) -> None:
    """Look whether this machine is fit to be cloned; changes nothing, unless --restart is given.

    Works on any Debian server, also one that ETS never touched. Exit code 0: fit; 3: something that
    matters was found.
    """
    host: Host = SshHost(on) if on else LocalHost()
    if host.run(["id", "-u"]).text.strip() != "0":
        raise EtsError("only root sees all that has to be looked at", hint="use sudo")
    mine, its = (None, None) if on else _which(host, site, server)
    results = list(examine(_checks(only), host, mine, its))
    if try_restart:
        results.append(Checked("restart", tuple(restart(host, mine, its))))
    code = exit_code(results)
    name = its.name if its else host.name
    if as_json:
        click.echo(json.dumps(plain(results, name, code), indent=2, ensure_ascii=False))
    else:
        show(results, name, Console(highlight=False))
    if code:
        raise click.exceptions.Exit(code)


def _which(host: Host, site: str | None, server: str | None) -> tuple[Site | None, Server | None]:
    """The site and the server; neither on a machine that has no site file."""
    if site is None and server is None and host.read(str(paths.SERVER_NAME)) is None:
        return None, None
    target = _server.target(site or str(paths.SITE_FILE), server, host)
    return target.site, target.server


def _checks(only: Sequence[str]) -> tuple[ready.Check, ...]:
    checks = ready.load()
    unknown = set(only) - {check.NAME for check in checks}
    if unknown:
        known = ", ".join(check.NAME for check in checks)
        raise InputError(
            f"there is no check {', '.join(sorted(unknown))}", hint=f"there are: {known}"
        )
    return tuple(check for check in checks if not only or check.NAME in only)


def plain(results: Sequence[Checked], name: str, code: int) -> dict[str, object]:
    """The report as JSON has it."""
    return {
        "format": 1,
        "server": name,
        "fit": code == 0,
        "checks": {
            checked.check: [asdict(finding) for finding in checked.findings] for checked in results
        },
    }


def show(results: Sequence[Checked], name: str, console: Console) -> None:
    """The report for a person, the worst first."""
    pairs = [(checked.check, finding) for checked in results for finding in checked.findings]
    for severity in SEVERITIES:
        sign, style = STYLES[severity]
        for check, finding in pairs:
            if finding.severity != severity:
                continue
            head = Text.assemble((f"{sign} {severity} ", style), (f"{check}: ", "dim"))
            head.append(finding.subject, "bold").append(f" {finding.words}")
            console.print(head, soft_wrap=True)
            console.print(Text.assemble(("    means ", "dim"), finding.means), soft_wrap=True)
            console.print(Text.assemble(("    next  ", "dim"), finding.step), soft_wrap=True)
    well = [checked.check for checked in results if not checked.findings]
    if well:
        console.print(
            Text.assemble(("✓ nothing to say about ", "green"), ", ".join(well)), soft_wrap=True
        )
    counts = [sum(f.severity == severity for _, f in pairs) for severity in SEVERITIES]
    fit = "fit to be cloned" if not counts[0] + counts[1] else "not fit to be cloned yet"
    told = f"{counts[0]} critical, {counts[1]} warnings, {counts[2]} notes"
    console.print(Text.assemble((f"{name}: {fit}", "bold"), f" ({told})"), soft_wrap=True)
