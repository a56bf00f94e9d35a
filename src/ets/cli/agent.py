"""``ets agent``: the daemon on every server."""

from __future__ import annotations

import logging
import sys

import click
import structlog


@click.group()
def command() -> None:
    """The daemon on every server: heartbeats, boot scripts, guests, status."""


@command.command()
@click.option("--verbose", is_flag=True, help="Log every detail.")
def run(*, verbose: bool) -> None:
    """Run the agent until SIGTERM (systemd does it: ets-agent.service)."""
    from ets.agent.run import run as run_agent

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if verbose else logging.INFO
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    run_agent()
