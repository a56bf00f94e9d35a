"""``ets apply``: make this server what the site file, or a saved plan, says."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from ets import paths
from ets.cli import _server
from ets.errors import InputError, StalePlan
from ets.host.local import LocalHost
from ets.plan import plan as plans
from ets.plan.apply import Event, apply
from ets.plan.plan import Plan

#: Who says yes beforehand says it to whatever has to be done: a server that changes between plan
#: and apply (a service still on its way up) is planned again, but not for ever.
_ROUNDS = 5


@click.command()
@click.argument("plan_file", required=False, metavar="[PLAN.json]")
@click.option("--site", default=str(paths.SITE_FILE), show_default=True, help="The site file.")
@click.option("--server", help=f"The server's name [default: what {paths.SERVER_NAME} says].")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(plan_file: str | None, site: str, server: str | None, yes: bool) -> None:
    """Apply PLAN.json as it was shown, or plan now, show the plan, ask, and apply it.

    A saved plan that no longer fits the server is refused; without one, --yes plans again. May be
    interrupted at any point and run again. Exit code 1: something failed (the message says what);
    2: the input is wrong.
    """
    host, console = LocalHost(), Console(highlight=False)
    if plan_file:
        _apply(_read(plan_file), host, console, yes=yes)
    else:
        _plan_and_apply(_server.target(site, server, host), host, console, yes=yes)


def _plan_and_apply(
    target: _server.Target, host: LocalHost, console: Console, *, yes: bool
) -> None:
    for left in reversed(range(_ROUNDS if yes else 1)):
        try:
            return _apply(target.plan(host), host, console, yes=yes)
        except StalePlan as error:
            if not left:
                raise
            console.print(Text(error.message), soft_wrap=True)
    return None


def _apply(plan: Plan, host: LocalHost, console: Console, *, yes: bool) -> None:
    """Show ``plan``, ask unless ``yes``, and apply it. Raises EtsError."""
    if plan.empty:
        apply(plan, host)  # clears away what an interrupted apply may have left
        console.print(f"{plan.server}: nothing to do")
        return
    console.print(f"plan {plan.id} for {plan.server}:")
    _server.show_steps(plan.steps, console)
    if not yes:
        click.confirm("apply it?", abort=True)
    receipt = apply(plan, host, events=lambda event: _show(event, console))
    if not receipt.steps:
        console.print(f"{plan.server}: nothing to do, it is as this plan wants it")
        return
    for note in receipt.notes:
        console.print(Text(note), soft_wrap=True)
    done = f"applied {len(receipt.steps)} steps; receipt: {receipt.path}"
    console.print(Text(done), soft_wrap=True)


def _read(path: str) -> Plan:
    """The plan saved at ``path``. Raises InputError when there is none."""
    content = LocalHost().read(str(Path(path).resolve()))
    if content is None:
        raise InputError(f"there is no plan {path}", hint=f"make one: ets plan --out {path}")
    return plans.loads(content, where=path)


def _show(event: Event, console: Console) -> None:
    if event.what == "phase":
        console.print(Text(f"    {event.text}", "dim"), soft_wrap=True)
    elif event.what == "done" and event.step is not None:
        width = len(str(event.total))
        count = Text(f"{event.index:{width}}/{event.total}", "dim")
        console.print(count + _server.describe(event.step), soft_wrap=True)
