"""``ets demo``: a whole site on this machine, its servers taken away in every way there is, and
what the stations noticed of it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType

import click
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from ets.errors import EtsError
from ets.lab.drills import verdict
from ets.lab.drills.join import join, write_load
from ets.lab.drills.material import Material, Progress, block_sums, gather
from ets.lab.drills.pair import STATIONS
from ets.lab.drills.play import Play
from ets.lab.drills.stage import Stage
from ets.lab.lab import Lab
from ets.report.page import render_page
from ets.report.promises import Promise, figure, to_json
from ets.report.timeline import Timeline
from ets.site import load

#: how many stations run beside a server that is a machine itself, and wants a processor
_BESIDE_A_MACHINE = 2

_EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "pair.toml"


class Voice:
    """Says on the terminal what happens: a line for what is worth keeping, and on a terminal a
    changing one for what goes on meanwhile (elsewhere at most a line in five seconds each)."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        self.begun = time.monotonic()
        self._last: dict[str, tuple[float, str]] = {}
        self._status: Status | None = None

    @contextmanager
    def working(self) -> Iterator[None]:
        """Within it the changing line is shown."""
        if not self.console.is_terminal:
            yield
            return
        with self.console.status("") as self._status:
            yield
        self._status = None

    def say(self, text: str) -> None:
        """A line with the time since the beginning."""
        # one call: servers and images are worked on by several threads at once
        when = f"[dim]{time.monotonic() - self.begun:6.1f} s[/dim]"
        self.console.print(f"{when}  {escape(text)}")
        if self._status is not None:
            self._status.update("")

    def progress(self, event: Progress) -> None:
        """A step of the lab's or an image's work."""
        share = "" if event.done is None or event.done >= 1 else f" ({event.done:.0%})"
        line = f"{event.what}: {event.doing}"
        when, before = self._last.get(event.what, (0.0, ""))
        now = time.monotonic()
        if self._status is not None and (share or event.doing.startswith("unpacking")):
            self._status.update(f"{line}{share}")
            return
        if line == before or (share and now - when < 5):
            return
        self._last[event.what] = (now, line)
        self.say(f"{line}{share}")


@click.command()
@click.option(
    "--site",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=_EXAMPLE,
    help="Site file with two servers; the pair of examples/ unless given.",
)
@click.option(
    "--stations",
    type=click.IntRange(1, len(STATIONS)),
    default=None,
    help=f"How many stations run from the beginning [default: {len(STATIONS)}, with --from-clone"
    f" {_BESIDE_A_MACHINE}].",
)
@click.option(
    "--from-clone",
    is_flag=True,
    help="Make the second server from the first one: a blank machine joins, then the same drill.",
)
@click.option("--keep", is_flag=True, help="Leave the site up, and say how to look around.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Report's folder.")
@click.option("--name", default="demo", show_default=True, help="The lab's name.")
def command(
    site: Path, stations: int | None, from_clone: bool, keep: bool, out: Path | None, name: str
) -> None:
    """Show a whole site that survives the loss of its servers.

    Brings up two servers and diskless stations on this machine, kills, unplugs, stops, slows down
    and damages the servers, and measures what the stations notice. Exits 0 only when every
    promise was held.
    """
    began = datetime.now().astimezone()
    folder = out or Path("report") / began.strftime("%Y-%m-%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    voice = Voice()
    count = stations or (_BESIDE_A_MACHINE if from_clone else len(STATIONS))
    with _interrupted_by_term(), voice.working():
        material = gather(site, voice.progress, cloneable=from_clone)
        voice.say(f"image {material.manifest.name} {material.manifest.digest[:12]} is ready")
        servers = [server.name for server in load.read(site).servers]
        blank = servers[-1:] if from_clone else []
        with Lab.up(
            site, name=name, images=material.images, events=voice.progress, blank=blank
        ) as lab:
            if from_clone:
                _copy_a_server(lab, servers[0], servers[-1], voice)
            promises, timeline, failure = _drill(lab, count, keep, material, voice)
    title = f"ETS demo: {site.name}, {began:%Y-%m-%d %H:%M}"
    (folder / "report.html").write_text(render_page(title, promises, timeline))
    (folder / "report.json").write_text(to_json(promises))
    voice.console.print(_table(promises))
    if failure is not None:
        click.echo(f"ets: the drill broke off: {failure}", err=True)
    if keep:
        _how_to_look_around(voice.console, name, site)
    took = time.monotonic() - voice.begun
    held = sum(promise.held for promise in promises)
    print(f"{held} of {len(promises)} promises held, after {took:.0f} s")
    print(f"report: {folder.resolve()}")
    if failure is not None or held < len(promises):
        sys.exit(1)


def _copy_a_server(lab: Lab, source: str, name: str, voice: Voice) -> None:
    """A blank machine becomes the server ``name``, while ``source`` is being written to."""
    with write_load(lab.server(source).host):
        how = join(lab, name, source=source, say=voice.say)
    reached = ", ".join(f"{stage} after {after:.0f} s" for stage, after in how.stages.items())
    voice.say(f"{name} was a blank machine: {reached}")


def _drill(
    lab: Lab, stations: int, keep: bool, material: Material, voice: Voice
) -> tuple[list[Promise], Timeline, EtsError | None]:
    """The drill. An error on the way is no reason to show nothing: it is given back
    with the promises, of which those that were not reached are not held."""
    failure: EtsError | None = None
    voice.say(f"{' and '.join(lab.servers)} are up; switching the stations on")
    if keep:
        lab.detach()
    with Stage(lab, voice.say) as stage:
        play = Play(stage)
        try:
            play.run(stations)
        except EtsError as error:
            failure = error
        voice.say("looking at what was seen")
    rows = stage.rows()
    with block_sums(material.root) as good:
        promises = verdict.promises(play.notes, rows, stage.faults, good)
    timeline = verdict.timeline(stage, play.notes, rows, _facts(lab, material))
    if not keep:
        voice.say("taking the site down")
    return promises, timeline, failure


def _facts(lab: Lab, material: Material) -> Sequence[tuple[str, str]]:
    servers = ", ".join(f"{server.name} {server.stations}" for server in lab.site.servers)
    stations = ", ".join(f"{actor.name} {actor.mac}" for actor in lab.site.stations)
    manifest = material.manifest
    return (
        ("servers", servers),
        ("stations", stations),
        ("image", f"{manifest.name} {manifest.digest}"),
        ("its root", f"{manifest.size / 1e6:.0f} MB, root hash {manifest.roothash}"),
        ("kernel", manifest.kernel),
    )


def _table(promises: Sequence[Promise]) -> Table:
    table = Table(title="What was promised, and what was measured", title_justify="left")
    table.add_column("promise")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("limit", justify="right", no_wrap=True)
    table.add_column("held")
    for promise in promises:
        well = promise.held
        table.add_row(
            promise.name if well else f"{promise.name}\n[dim]{promise.detail}[/dim]",
            promise.shown,
            f"≤ {figure(promise.limit)} {promise.unit}",
            "[green]yes[/green]" if well else "[red]NO[/red]",
        )
    return table


def _how_to_look_around(console: Console, name: str, site: Path) -> None:
    first = "alpha" if site == _EXAMPLE else "SERVER"
    lines = (
        (f"ets lab status --name {name}", "what runs"),
        (f"ets lab shell --name {name} {first}", "a shell on a server; try `ets status` there"),
        (f"ets lab fault --name {name} kill {first}", "do it again yourself"),
        (f"ets lab heal --name {name}", "mend everything"),
        (f"ets lab down --name {name}", "take it all away"),
    )
    console.print("\nThe site is still up. To look around:", markup=False)
    for line, what in lines:
        console.print(f"  .venv/bin/{line:45} {what}", markup=False)


@contextmanager
def _interrupted_by_term() -> Iterator[None]:
    """SIGTERM takes the lab down as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: Callable[[int, FrameType | None], object] | int | None
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
