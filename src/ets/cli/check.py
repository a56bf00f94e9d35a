"""``ets check FILE``: is this site file well, and what does it describe?"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ets.cli._site import read
from ets.cluster.placement import order
from ets.errors import EXIT_INPUT
from ets.site.load import SiteError
from ets.site.model import ROLES, Problem, Server, Site
from ets.site.pools import guest_slice


@click.command()
@click.argument("file", type=click.Path(path_type=str), default="/etc/ets/site.toml")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def command(file: str, as_json: bool) -> None:
    """Check a site file and report all of its problems at once.

    Exit code 0: well, and a summary of the site; 2: problems.
    """
    try:
        site = read(file, sources=True)
    except SiteError as error:
        if as_json:
            click.echo(json.dumps(_failure(error), indent=2))
        else:
            show_problems(error, Console())
        raise click.exceptions.Exit(EXIT_INPUT) from None
    if as_json:
        click.echo(json.dumps({"file": file, "problems": [], "site": summary(site)}, indent=2))
    else:
        show_site(site, file, Console())


def _failure(error: SiteError) -> dict[str, Any]:
    keys = ("where", "value", "message", "allowed")
    problems = [{key: getattr(problem, key) for key in keys} for problem in error.problems]
    return {"file": error.file, "problems": problems, "site": None}


def show_problems(error: SiteError, console: Console) -> None:
    """Every problem: where it is, what stands there, what is wrong, what is allowed."""
    count = _counted(len(error.problems), "problem")
    console.print(Text.assemble((error.file, "bold"), f": {count}"))
    for problem in error.problems:
        console.print(_heading(problem), soft_wrap=True)
        console.print(Padding(Text(problem.message), (0, 0, 0, 4)))
        if problem.allowed:
            console.print(Padding(Text(f"→ {problem.allowed}", style="green"), (0, 0, 0, 4)))


def _heading(problem: Problem) -> Text:
    value = f" = {problem.value}" if problem.value else ""
    return Text.assemble(("  ✗ ", "red"), (problem.where, "bold"), value)


def summary(site: Site) -> dict[str, Any]:
    """What the site is, as plain data: the content of ``--json`` and of the screen."""
    firsts = Counter(order(station.mac, site.servers)[0].name for station in site.stations)
    weights = sum(server.weight for server in site.servers)
    images = Counter(station.image for station in site.stations)
    net = site.stations_net
    return {
        "name": site.name,
        "domain": site.domain,
        "timezone": site.timezone,
        "digest": site.digest,
        "networks": {
            role: {"interface": network.interface, "subnet": str(network.subnet)}
            for role, network in site.networks.items()
        },
        "servers": [
            {
                "name": server.name,
                "weight": server.weight,
                "share": round(server.weight / weights, 4),
                "addresses": {role: str(a) for role, a in server.addresses.items()},
                "first_for": firsts[server.name],
                "guests": _slice(site, server),
            }
            for server in site.servers
        ],
        "stations": {
            "known": len(site.stations),
            "guests": site.defaults.guests,
            "lease": site.defaults.lease,
            "known_range": str(net.known or ""),
            "guests_range": str(net.guests or ""),
        },
        "images": {
            name: {
                "source": image.source,
                "suite": image.suite,
                "kernel": image.kernel,
                "packages": len(image.packages),
                "stations": images[name],
                "guests": site.defaults.guests and site.defaults.image == name,
            }
            for name, image in site.images.items()
        },
    }


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _slice(site: Site, server: Server) -> dict[str, Any]:
    """The server's own part of the guests' range."""
    part = guest_slice(site, server)
    return {"range": str(part or ""), "addresses": len(part) if part else 0}


def show_site(site: Site, file: str, console: Console) -> None:
    """The site on one screen."""
    facts = summary(site)
    well = Text.assemble((file, "bold"), ": well. Site ", (site.name, "bold"))
    console.print(well + Text(f", {site.domain}, {site.timezone}"), soft_wrap=True)
    roles = [role for role in ROLES if role in site.networks]

    servers = Table("server", "weight", "first for", *roles, "guests", box=None, pad_edge=False)
    for server in facts["servers"]:
        servers.add_row(
            server["name"],
            f"{server['weight']:g} ({server['share']:.0%})",
            _counted(server["first_for"], "station"),
            *(server["addresses"].get(role, "–") for role in roles),
            str(guests) if (guests := server["guests"]["addresses"]) else "–",
        )
    networks = Table("network", "interface", "subnet", box=None, pad_edge=False)
    for role in roles:
        networks.add_row(role, *facts["networks"][role].values())
    images = Table("image", "from", "kernel", "stations", box=None, pad_edge=False)
    for name, image in facts["images"].items():
        origin = image["suite"] if image["source"] == "recipe" else "this server's tree"
        users = f"{image['stations']}{' and guests' if image['guests'] else ''}"
        images.add_row(name, origin, image["kernel"], users)
    for table in (servers, networks, images):
        console.print(Padding(table, (1, 0, 0, 2)))
    known = _counted(len(site.stations), "known station")
    guests = "guests are served" if site.defaults.guests else "no guests"
    console.print(
        Padding(Text(f"{known}, {guests}, leases of {site.defaults.lease} s"), (1, 0, 0, 2))
    )
