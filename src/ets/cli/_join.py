"""What ``join`` and ``rebuild`` share: opening a join, and watching what becomes of it."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ets import paths
from ets.cli import status
from ets.clone import states
from ets.clone.joins import Joins
from ets.clone.states import Join
from ets.cluster.mac import parse
from ets.errors import AgentError, CloneError, HostError, InputError
from ets.host import ask
from ets.host.atomic import write_atomic
from ets.host.local import LocalHost
from ets.site.model import Server, Site

Json = dict[str, Any]
#: seconds between two looks
EVERY = 0.5
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
ANY = "any"
#: how long a join may stay open
SHORTEST, LONGEST = 60.0, 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was said on the command line."""

    name: str
    token_file: str | None
    unattended: bool
    mac: str | None
    seconds: float
    erase: bool
    wait: bool


def options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of opening a join."""
    for option in reversed(
        [
            click.option("--token-file", metavar="FILE", help="Write the token there (0600) and do "
                         "not show it."),
            click.option("--unattended", is_flag=True, help="Ask nobody: whatever boots with the "
                         "server's network card becomes it. For a wire that you trust."),
            click.option("--mac", metavar="MAC", help="The new machine's network card, or any "
                         "[default: the server's mac in the site file]."),
            click.option("--for", "lasting", default="2h", show_default=True, metavar="TIME",
                         help="How long the join stays open (30m, 2h, 1d)."),
            click.option("--erase", is_flag=True, help="The new machine's disks may hold data: "
                         "it is lost."),
            click.option("--no-wait", is_flag=True, help="Do not wait for the new machine."),
            click.option("--site", default=str(paths.SITE_FILE), show_default=True,
                         help="The site file."),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def joins() -> Joins:
    """The joins of this server."""
    return Joins(Path(paths.JOINS), Path(paths.PKI))


def seconds(text: str) -> float:
    """``30m`` as seconds. Raises InputError."""
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text.strip())
    length = int(found[1]) * _UNITS[found[2]] if found else 0
    if not SHORTEST <= length <= LONGEST:
        raise InputError(
            f"{text!r} is no time that a join may stay open", hint="say 30m, 2h or 1d, at most 7d"
        )
    return float(length)


def newcomer(site: Site, me: Server, name: str) -> Server:
    """The server of that name that may be made from this one. Raises InputError."""
    try:
        server = site.server(name)
    except KeyError:
        known = ", ".join(s.name for s in site.peers(me.name)) or "no other server"
        raise InputError(
            f"the site {site.name} has no server {name!r}",
            hint=f"it has {known}; add it to the site file as [[servers]], apply that here first",
        ) from None
    if server == me:
        raise InputError(
            f"{name} is this very server", hint="run it on the server that is to be copied"
        )
    return server


def answering(server: Server) -> list[str]:
    """Where a server answers now, in words: there must be no second one of its name."""
    ports = ((22, "ssh"), (paths.PORT_HTTP, "HTTP"), (paths.PORT_AGENT_PEERS, "its agent"))
    asked = [
        (str(address), port, f"{what} at {address} ({role})")
        for role, address in server.addresses.items()
        for port, what in ports
    ]

    def answer(one: tuple[str, int, str]) -> str:
        try:
            ask.tcp(one[0], one[1], timeout=1.0)
        except HostError:
            return ""
        return one[2]

    with ThreadPoolExecutor(len(asked)) as pool:
        return [said for said in pool.map(answer, asked) if said]


def open_join(site: Site, me: Server, wanted: Wanted, *, rebuild: bool) -> tuple[Join, str]:
    """Open the join and say what to do now. Raises InputError, CloneError."""
    server = newcomer(site, me, wanted.name)
    mac = None if wanted.mac == ANY else parse(wanted.mac) if wanted.mac else server.mac
    if wanted.mac not in {None, ANY} and mac is None:
        raise InputError(
            f"{wanted.mac!r} is not the address of a network card",
            hint="six pairs of hexadecimal digits, such as 52:54:00:77:00:01",
        )
    if wanted.unattended and mac is None:
        raise InputError(
            f"an unattended join needs the network card of {server.name}",
            hint=f'say --mac, or mac = "…" at {server.name} in the site file',
        )
    if mac is not None and site.station(mac) is not None:
        raise InputError(
            f"{mac} is the card of a station in the site file", hint="name another one"
        )
    _agent_knows(site)
    now = time.time()
    join = Join(
        name=server.name, id="", opened=now, until=now + wanted.seconds, mac=mac,
        unattended=wanted.unattended, erase=wanted.erase, rebuild=rebuild,
    )  # fmt: skip
    return joins().open(site, me, join)


def _agent_knows(site: Site) -> None:
    """Raises AgentError when no agent runs, CloneError when it runs by another site file."""
    told = status.fetch(Path(paths.AGENT_SOCKET))["site"]["digest"]
    if told != site.digest:
        raise CloneError(
            "this server runs by another site file than the one that was read",
            hint="apply it here first, and on the other servers: ets apply",
        )


def explain(site: Site, join: Join, token: str, wanted: Wanted, console: Console) -> None:
    """What the administrator has to do now, and what is in the way."""
    card = f"the card {join.mac}" if join.mac else "any card"
    end = time.strftime("%H:%M", time.localtime(join.until))
    console.print(f"{join.name} may join until {end}, by a machine with {card}.")
    if token and wanted.token_file:
        write_atomic(wanted.token_file, token.encode() + b"\n", mode=0o600)
        console.print(f"The token is in {wanted.token_file}.")
    elif token:
        console.print(Text.assemble("The token, for its screen: ", (token, "bold")))
    if join.unattended:
        console.print("Unattended: nobody is asked; whoever uses that card now gets a copy of all.")
    key = "it starts the installer by itself" if join.mac else "press J when it offers to install"
    console.print(f"Let the machine boot from the network: {key}.")
    if site.installer is None:
        console.print(
            Text("This site has no installer image: add one with role = \"installer\", build and "
                 "publish it, or boot the machine from ETS' medium.", "yellow")
        )  # fmt: skip


def fetch(socket: Path = Path(paths.AGENT_SOCKET)) -> Json:
    """The agent's joins and who asks. Raises AgentError."""
    import httpx

    hint = "is it running? systemctl status ets-agent"
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=5) as client:
            document = client.get("http://agent/v1/joins").json()
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise AgentError(f"the agent does not answer at {socket}: {error}", hint=hint) from error
    if not isinstance(document, dict) or "joins" not in document:
        raise AgentError("the agent answers something unknown", hint="systemctl restart ets-agent")
    return document


def watch(name: str, console: Console, socket: Path = Path(paths.AGENT_SOCKET)) -> None:
    """Show what becomes of a join until it has ended. Raises CloneError when not well."""
    last: tuple[str, ...] = ()
    with console.status("waiting for the machine") as shown:
        while True:
            join = joins().read(name)
            if join is None:
                raise CloneError(f"the join of {name} is gone", hint="ets join --list")
            join = states.expire(join, time.time())
            asking = _asking(name, socket) if join.state == "open" else ()
            lines = (_line(join), *(f"asks: {_asker(row)}" for row in asking))
            shown.update(f"{name}: {join.reason}{_percent(join)}")
            for line in (line for line in lines if line not in last):
                console.print(line, soft_wrap=True, highlight=False)
            last = lines
            if join.state == "done":
                return
            if join.ended:
                raise CloneError(
                    f"the join of {name} is {join.state}: {join.reason}",
                    hint=f"open it again: ets join {name}",
                )
            time.sleep(EVERY)


def _asking(name: str, socket: Path) -> tuple[Json, ...]:
    try:
        return tuple(row for row in fetch(socket)["asking"] if row["name"] == name)
    except AgentError:
        return ()  # it may be restarting; the join itself is on the disk


def _line(join: Join) -> str:
    return f"{join.state}: {join.stage or join.reason}"


def _percent(join: Join) -> str:
    return "" if join.done is None else f" ({join.done:.0%})"


def _asker(row: Json) -> str:
    told = ", ".join(f"{key} {value}" for key, value in row["hardware"].items() if key != "mac")
    seen = f"{row['mac'] or 'no card'} at {row['source']}: {told[:160]}"
    return f"{seen}; approve it with: ets join --approve {row['name']} {row['code']}"


def listed(document: Json) -> Iterator[Table]:
    """The joins, and who asks, as tables."""
    table = Table(title="Joins", title_justify="left", box=None, pad_edge=False)
    for column in ("server", "state", "what", "card", "opened for", "wrong tokens"):
        table.add_column(column, overflow="fold")
    for row in document["joins"]:
        kind = "rebuild" if row["rebuild"] else "join"
        kind += ", unattended" if row["unattended"] else ""
        kind += ", erases disks" if row["erase"] else ""
        done = "" if row["done"] is None else f" ({row['done']:.0%})"
        table.add_row(row["name"], row["state"], row["reason"] + done, row["mac"] or "any", kind,
                      str(row["wrong"]))  # fmt: skip
    yield table
    for row in document["asking"]:
        asks = Table(box=None, pad_edge=False, show_header=False)
        asks.add_row(f"asks to become {row['name']}", _asker(row))
        yield asks


def host() -> LocalHost:
    """This machine."""
    return LocalHost()


def interrupted(name: str) -> None:
    """What to say when the administrator stops watching."""
    click.echo(
        f"\nthe join of {name} goes on; ets join --list shows it, --cancel ends it", err=True
    )
    sys.exit(130)
