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


@command.command()
def manifest() -> None:
    """Print what must be equal on all servers, with digests."""
    from ets import paths
    from ets.audit import manifest as listing
    from ets.site import load

    exclude = load.read(str(paths.SITE_FILE)).clone.exclude
    for line in listing.dump(listing.take(exclude=exclude)):
        click.echo(line)


@command.command()
def give() -> None:
    """Give out the files that are named on standard input, of those that must be equal."""
    import sys

    from ets.clone.mend import give as out

    out(sys.stdin.buffer)


@command.command()
def serve() -> None:
    """Become the verb that a newcomer asked for (the forced command of its key)."""
    from ets.clone.serve import serve as become

    become()


@command.command()
def finish() -> None:
    """Let this new server into service, if it is equal (its unit does it: ets-join.service)."""
    from ets.clone.finish import finish as let_in

    let_in()
