"""``ets clone``: what a new server runs on the one that it copies. Not for people: ``ets join`` and
``ets rebuild`` are."""

from __future__ import annotations

import click


@click.group(hidden=True)
def command() -> None:
    """Parts of making a server from another one; 'ets join' and 'ets rebuild' use them."""


source_option = click.option(
    "--source", default="/", show_default=True, help="The tree that is the server."
)
exclude_option = click.option(
    "--exclude", multiple=True, metavar="PATH", help="Leave this out, and everything below it."
)


@command.command()
@source_option
@exclude_option
def facts(source: str, exclude: tuple[str, ...]) -> None:
    """Print what there is to copy, as JSON."""
    from ets.clone import pull, send

    click.echo(pull.facts_json(send.facts(source, exclude)))


@command.command()
@source_option
@exclude_option
def send(source: str, exclude: tuple[str, ...]) -> None:
    """Give this server to another one, on standard input and output."""
    from ets.clone import send as sending

    sending.serve(source, exclude)
