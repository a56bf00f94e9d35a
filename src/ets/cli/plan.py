"""``ets plan``: what would an apply do? Changes nothing."""

from __future__ import annotations

import click
from rich.console import Console
from rich.text import Text

from ets import paths
from ets.cli import _server
from ets.host.atomic import write_atomic
from ets.host.local import LocalHost
from ets.plan import plan as plans


@click.command()
@click.option("--site", default=str(paths.SITE_FILE), show_default=True, help="The site file.")
@click.option("--server", help=f"The server's name [default: what {paths.SERVER_NAME} says].")
@click.option("--out", type=click.Path(dir_okay=False), help="Save the plan, for ets apply.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan itself, as JSON.")
def command(site: str, server: str | None, out: str | None, as_json: bool) -> None:
    """Show what has to be done to make this server what the site file says.

    Exit code 0 also when there is something to do (ets verify tells the two apart).
    """
    host = LocalHost()
    plan = _server.target(site, server, host).plan(host)
    if out:
        # it holds the content of all files, secrets included
        write_atomic(out, plans.dumps(plan), mode=0o600)
    if as_json:
        click.echo(plans.dumps(plan).decode(), nl=False)
        return
    console = Console(highlight=False)
    if plan.empty:
        console.print(f"{plan.server}: nothing to do")
    else:
        console.print(f"plan {plan.id} for {plan.server}:")
        _server.show_steps(plan.steps, console)
    if out:
        console.print(Text(f"saved in {out}; apply it with: ets apply {out}"), soft_wrap=True)
