"""``ets rebuild``: a lost server comes back on a blank machine, as a copy of this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ets import paths
from ets.cli import _join, _server
from ets.cli.join import follow, wanted
from ets.cluster import records
from ets.errors import CloneError
from ets.site.model import Server


@click.command()
@click.argument("name")
@_join.options
@click.option("--although-it-answers", is_flag=True, help="Rebuild it although something answers "
              "at its addresses. Two servers of one name do harm: be sure.")  # fmt: skip
def command(*, name: str, although_it_answers: bool, **given: Any) -> None:
    """Make a blank machine the lost server NAME again, as a copy of this one.

    From any server that is left, also when the lost one was the primary: this server's state is
    what counts. The lost server's certificates are revoked first, so that it cannot come back.
    """
    console = Console(highlight=False)
    asked = wanted(name, given)
    target = _server.target(given["site"], None, _join.host())
    server = _join.newcomer(target.site, target.server, name)
    _must_be_gone(server, although=although_it_answers)
    for line in revoke(server):
        console.print(line, soft_wrap=True)
    join, token = _join.open_join(target.site, target.server, asked, rebuild=True)
    _join.explain(target.site, join, token, asked, console)
    follow(asked, console)


def _must_be_gone(server: Server, *, although: bool) -> None:
    """Raises CloneError when the server is not lost."""
    answers = _join.answering(server)
    if answers and not although:
        raise CloneError(
            f"{server.name} is not lost: it answers by {', '.join(answers)}",
            hint="switch it off first; if something else has its address, find that, or say "
            "--although-it-answers",
        )


def revoke(server: Server) -> list[str]:
    """Revoke every certificate of ``server`` that this one knows of; what was done, in words."""
    joins = _join.joins()
    serials = {*joins.issued(server.name), *_told(server.name)}
    if not serials:
        told = f"No certificate of {server.name} is known here, so none is revoked: if its disk"
        return [f"{told} may be in other hands, see docs/security.md."]
    joins.revoke(Path(paths.CRL), serials)
    return [f"Revoked the certificates of the lost {server.name}: {', '.join(sorted(serials))}."]


def _told(name: str) -> set[str]:
    """The serial number that the server told before it was lost."""
    try:
        held = records.from_json(json.loads((Path(paths.RUNTIME) / "records.json").read_bytes()))
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as error:
        raise CloneError(
            f"cannot read what the agent knows of {name}: {error}",
            hint="systemctl status ets-agent",
        ) from error
    found = (record.value for record in held if record.key == f"keys/{name}")
    return {
        str(value["serial"]) for value in found if isinstance(value, dict) and "serial" in value
    }
