"""``ets verify``: is this server what it should be, and do its services answer?"""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.text import Text

from ets import paths
from ets.cli import _server
from ets.errors import EXIT_OK
from ets.host.local import LocalHost
from ets.plan.verify import PROBE_SECONDS, Verified, verify


@click.command()
@click.option("--site", default=str(paths.SITE_FILE), show_default=True, help="The site file.")
@click.option("--server", help=f"The server's name [default: what {paths.SERVER_NAME} says].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=PROBE_SECONDS,
    show_default=True,
    help="How long a service may take to answer.",
)
def command(site: str, server: str | None, as_json: bool, seconds: float) -> None:
    """Compare this server with the site file, and ask every service whether it answers.

    Exit code 0: well; 1: a service does not answer; 3: drift, ets plan shows it.
    """
    host = LocalHost()
    target = _server.target(site, server, host)
    result = verify(target.desired, target.probes, host, seconds=seconds)
    if as_json:
        click.echo(json.dumps(_plain(result, target.server.name), indent=2))
    else:
        _show(result, target.server.name, Console(highlight=False))
    if result.exit_code != EXIT_OK:
        raise click.exceptions.Exit(result.exit_code)


def _plain(result: Verified, server: str) -> dict[str, object]:
    return {
        "server": server,
        "exit_code": result.exit_code,
        "drift": [asdict(step) for step in result.drift],
        "probes": [
            {
                "name": answer.probe.name,
                "kind": answer.probe.kind,
                "well": answer.well,
                "said": answer.said,
                "seconds": round(answer.seconds, 3),
            }
            for answer in result.answers
        ],
    }


def _show(result: Verified, server: str, console: Console) -> None:
    for answer in result.answers:
        sign, style = ("✓", "green") if answer.well else ("✗", "red")
        line = Text.assemble((f"  {sign} ", style), answer.probe.name)
        console.print(line.append(f"  {answer.said}", "dim"), soft_wrap=True)
    if result.drift:
        console.print("drift: this server is not what the site file says; a plan would:")
        _server.show_steps(result.drift, console)
    count = f"{len(result.answers) - len(result.failed)} of {len(result.answers)} services' probes"
    state = "drift" if result.drift else "no drift"
    console.print(f"{server}: {state}, {count} answered well")
