"""The command ``ets``: one file per verb. A module here with a ``command`` (a click command or
group) is a verb; nothing has to be registered. May import every room.
"""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module

import click

from ets import __version__
from ets.errors import EtsError
from ets.host.run import log_to_stderr


class Verbs(click.Group):
    """Finds verbs by file name (``image.py`` is ``ets image``) and loads only the one called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = (module.name for module in pkgutil.iter_modules(__path__))
        return sorted(name for name in names if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(f"{__name__}.{cmd_name}").command
        return command


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ets")
@click.option("-v", "--verbose", is_flag=True, help="Say which programs are run.")
def ets(verbose: bool) -> None:
    """The Embedded Terminal Server: one file, site.toml, describes a site."""
    log_to_stderr(verbose=verbose)


def main() -> None:
    """Entry point: every EtsError becomes one clear message and its exit code."""
    try:
        # outside standalone mode click returns the status that ctx.exit() was given
        status = ets.main(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(1)
    except EtsError as error:
        click.echo(f"ets: {error}", err=True)
        sys.exit(error.exit_code)
