"""``ets status``: servers, stations, images and shares, as this server's agent sees them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ets import paths
from ets.errors import AgentError, InputError

Json = dict[str, Any]
GOOD, BAD, DIM = "green", "bold red", "dim"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the whole document as JSON.")
@click.option("--watch", is_flag=True, help="Show it anew every second, until interrupted.")
@click.option("--server", "only", metavar="NAME", help="Only what concerns this server.")
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    default=Path(paths.AGENT_SOCKET),
    hidden=True,
)
def command(*, as_json: bool, watch: bool, only: str | None, socket: Path) -> None:
    """Show servers, stations, images and how the load is shared, from any server."""
    if as_json:
        while True:
            sys.stdout.write(json.dumps(narrow(fetch(socket), only), sort_keys=True) + "\n")
            sys.stdout.flush()
            if not watch:
                return
            time.sleep(1)
    console = Console()
    if not watch:
        console.print(render(narrow(fetch(socket), only)))
        return
    first = render(narrow(fetch(socket), only))
    with Live(first, console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(1)
            try:
                shown = render(narrow(fetch(socket), only))
            except AgentError as error:  # it may be restarting: go on watching
                shown = Text(str(error), BAD)
            live.update(shown, refresh=True)


def fetch(socket: Path) -> Json:
    """The agent's status document. Raises AgentError when the agent does not answer."""
    import httpx

    hint = "is it running? systemctl status ets-agent; journalctl -u ets-agent"
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=5) as client:
            answer = client.get("http://agent/v1/status")
        document = answer.json() if answer.status_code == httpx.codes.OK else None
    except httpx.TimeoutException as error:
        raise AgentError("the agent on this server hangs: no answer in 5 s", hint=hint) from error
    except (httpx.HTTPError, OSError) as error:
        if "ermission denied" in str(error):
            raise AgentError(f"only root may ask the agent at {socket}", hint="use sudo") from error
        raise AgentError(
            f"the agent on this server does not answer at {socket}: {error}", hint=hint
        ) from error
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("format") != 1:
        raise AgentError(
            "the agent on this server answers something unknown",
            hint="it may be of another version: systemctl restart ets-agent",
        )
    return document


def narrow(document: Json, server: str | None) -> Json:
    """The document with what concerns one server. Raises InputError for an unknown name."""
    if server is None:
        return document
    names = [row["name"] for row in document["servers"]]
    if server not in names:
        raise InputError(
            f"there is no server {server!r} at site {document['site']['name']}",
            hint=f"its servers are {', '.join(names)}",
        )
    return {
        **document,
        "servers": [row for row in document["servers"] if row["name"] == server],
        "stations": [row for row in document["stations"] if row["order"][:1] == [server]],
        "shares": [row for row in document["shares"] if row["server"] == server],
        "alarms": [row for row in document["alarms"] if row["server"] == server],
    }


def render(document: Json) -> RenderableType:
    """The document for a terminal."""
    site = document["site"]
    head = Text.assemble(
        ("Site ", DIM), (site["name"], "bold"), (" as seen by ", DIM), (document["server"], "bold")
    )
    parts: list[RenderableType] = [head, _servers(document)]
    for row in document["servers"]:
        parts += [
            Text(f"  {row['name']}, {s['name']}: {s['detail']}", BAD)
            for s in row["services"]
            if not s["well"]
        ]
    parts.append(_stations(document))
    parts += [_images(document), _shares(document)]
    dhcp = document["dhcp"]
    if dhcp["trouble"]:
        parts.append(Text(f"DHCP on {document['server']}: {dhcp['trouble']}", BAD))
    parts += [Text(f"{name}: {text}", BAD) for name, text in sorted(document["tasks"].items())]
    parts += [Text(f"ALARM {row['server']}: {row['text']}", BAD) for row in document["alarms"]]
    return Group(*parts)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False, box=None)
    for column in columns:
        table.add_column(column, header_style=DIM, overflow="fold")
    return table


def _servers(document: Json) -> Table:
    table = _table("Servers", "name", "state", "seen", "age", "clock", "load", "services")
    for row in document["servers"]:
        verdict = row["verdict"]
        seen = Text(row["reason"], GOOD if verdict == "alive" else BAD)
        if row["same_site"] is False:
            seen.append("; ANOTHER site file", BAD)
        if row["trouble"] and verdict == "alive" and not row["self"]:
            seen.append(f"; {row['trouble']}", BAD)
        ill = [s for s in row["services"] if not s["well"]]
        if ill:
            services = Text("not well: " + ", ".join(s["name"] for s in ill), BAD)
        else:
            count = len(row["services"])
            services = Text(f"{count} well" if count else "–", GOOD if count else DIM)
        skew = "–" if row["self"] else _number(row["skew"], "{:+.2f} s")
        table.add_row(
            row["name"],
            row["state"],
            seen,
            "–" if row["self"] else _number(row["age"], "{:.1f} s"),
            skew,
            _number(row["load"], "{:.2f}"),
            services,
        )
    return table


def _stations(document: Json) -> Table:
    reporting = sum(1 for row in document["stations"] if row["report"])
    title = f"Stations ({reporting} of {len(document['stations'])} report)"
    table = _table(title, "name", "address", "order", "connected", "longest stall", "wrong", "seen")
    for row in document["stations"]:
        report = row["report"]
        if report is None:
            cells: list[str | Text] = [Text("–", DIM)] * 4
        else:
            cells = [_connected(report), f"{report['longest_stall_us'] / 1e6:.2f} s"]
            cells.append(Text(str(report["wrong"]), BAD if report["wrong"] else DIM))
            cells.append(f"{report['age']:.0f} s ago")
        name = row["name"] if row["known"] else f"{row['name']} (guest)"
        table.add_row(name, row["address"], " › ".join(row["order"]), *cells)
    return table


def _connected(report: Json) -> Text:
    text = Text()
    for row in report["servers"]:
        style = GOOD if row["state"] == "up" else BAD
        name = row["server"] or row["address"]
        shown = name if row["state"] == "up" else f"{name} {row['state']}"
        text.append((" " if text else "") + shown, style)
    return text


def _images(document: Json) -> Table:
    table = _table("Images", "name", "published", "generation", "on all servers", "")
    for row in document["images"]:
        digest = row["digest"]
        equal = Text("equal", GOOD) if row["equal"] else _differing(row["servers"])
        published = Text(digest[:12]) if digest else Text("nothing", BAD)
        if digest and not row["here"]:
            published = Text(f"{digest[:12]} (not here yet)", BAD)
        generation = str(row["generation"] or "–")
        table.add_row(row["name"], published, generation, equal, Text(row["trouble"], BAD))
    return table


def _differing(servers: Json) -> Text:
    told = (f"{name}: {digest[:12] if digest else 'unknown'}" for name, digest in servers.items())
    return Text(", ".join(told), BAD)


def _shares(document: Json) -> Table:
    table = _table("Shares", "server", "weight", "wanted", "of the stations", "connected", "first")
    for row in document["shares"]:
        table.add_row(
            row["server"],
            f"{row['weight']:g}",
            f"{row['wanted']:.0%}",
            f"{row['computed']:.0%}",
            str(row["connected"]),
            str(row["reading"]),
        )
    return table


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
