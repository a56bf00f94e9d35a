"""``ets render``: what a site asks of one server, as a tree of files to read."""

from __future__ import annotations

from pathlib import Path

import click

from ets.cli import _site
from ets.errors import InputError
from ets.plan import tree
from ets.services import desired


@click.command("render")
@click.argument("site", type=click.Path(path_type=Path))
@click.option("--server", "name", required=True, help="The server to render for.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="A directory that is made."
)
def command(site: Path, name: str, out: Path) -> None:
    """Write what SITE asks of one server below a directory.

    The files lie at their paths on the server; MANIFEST lists packages, accounts, directories,
    copies and units, and every file with its mode and owner. Nothing on this machine is changed.
    """
    read = _site.read(site)
    names = [server.name for server in read.servers]
    if name not in names:
        raise InputError(
            f"{site} has no server {name!r}", hint=f"one of: {', '.join(names)} (--server NAME)"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty directory", hint="name a new one")
    files = tree.render(desired(read, read.server(name)))
    for path, content in files.items():
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    click.echo(f"{len(files)} files of {name} written below {out}")
