"""``ets schema``: the site file's JSON Schema, for editors."""

from __future__ import annotations

import json

import click

from ets.site.schema import json_schema


@click.command()
def command() -> None:
    """Print a JSON Schema of the site file, for editors that complete and check TOML."""
    click.echo(json.dumps(json_schema(), indent=2))
