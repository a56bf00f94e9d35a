"""``ets join``: lets a blank machine become a server of this site, as a copy of this one."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console

from ets.cli import _join, _server
from ets.cli._join import Wanted
from ets.errors import CloneError, InputError


@click.command()
@click.argument("name", required=False)
@_join.options
@click.option("--list", "listing", is_flag=True, help="Show this server's joins and who asks.")
@click.option("--json", "as_json", is_flag=True, help="With --list: as JSON.")
@click.option("--approve", nargs=2, metavar="NAME CODE", help="The machine that shows CODE may "
              "become NAME.")  # fmt: skip
@click.option("--cancel", metavar="NAME", help="End a join; a copy under way stops.")
def command(
    *,
    name: str | None,
    listing: bool,
    as_json: bool,
    approve: tuple[str, str] | None,
    cancel: str | None,
    **given: Any,
) -> None:
    """Copy this server to a blank machine, which becomes the server NAME of the site file.

    Opens a join, shows the token that the new machine asks for, and waits until it is in service.
    """
    console = Console(highlight=False)
    chosen = [name is not None, listing, approve is not None, cancel is not None]
    if sum(chosen) != 1:
        raise InputError(
            "say one thing: a server's NAME, --list, --approve NAME CODE or --cancel NAME",
            hint="ets join --help",
        )
    if listing:
        _list(as_json=as_json, console=console)
    elif approve is not None:
        _approve(*approve, console=console)
    elif cancel is not None:
        join = _join.joins().cancel(cancel)
        console.print(f"the join of {cancel} is {join.state}: {join.reason}")
    elif name is not None:
        _open(wanted(name, given), given["site"], console)


def wanted(name: str, given: dict[str, Any]) -> Wanted:
    """What the options say."""
    return Wanted(
        name=name, token_file=given["token_file"], unattended=given["unattended"],
        mac=given["mac"], seconds=_join.seconds(given["lasting"]), erase=given["erase"],
        wait=not given["no_wait"],
    )  # fmt: skip


def _open(asked: Wanted, site_file: str, console: Console) -> None:
    target = _server.target(site_file, None, _join.host())
    server = _join.newcomer(target.site, target.server, asked.name)
    answers = _join.answering(server)
    if answers:
        raise CloneError(
            f"{server.name} is there already: it answers by {', '.join(answers)}",
            hint=f"to replace it, switch it off and run: ets rebuild {server.name}",
        )
    join, token = _join.open_join(target.site, target.server, asked, rebuild=False)
    _join.explain(target.site, join, token, asked, console)
    follow(asked, console)


def follow(asked: Wanted, console: Console) -> None:
    """Wait for the machine, when that was asked for."""
    if not asked.wait:
        return
    try:
        _join.watch(asked.name, console)
    except KeyboardInterrupt:
        _join.interrupted(asked.name)
    console.print(f"{asked.name} is in service.")


def _list(*, as_json: bool, console: Console) -> None:
    document = _join.fetch()
    if as_json:
        click.echo(json.dumps(document, sort_keys=True))
        return
    for table in _join.listed(document):
        console.print(table)


def _approve(name: str, code: str, console: Console) -> None:
    join = _join.joins().approve(name, code)
    asking = [row["code"] for row in _join.fetch()["asking"] if row["name"] == name]
    console.print(f"the machine that shows {join.wanted} may become {name}")
    if join.wanted not in asking:
        said = f"No machine has shown that code in the last minute ({len(asking)} others ask)."
        console.print(f"[yellow]{said} Is it typed as it stands on the screen?[/yellow]")
