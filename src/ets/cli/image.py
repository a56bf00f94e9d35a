"""``ets image``: build, list, publish, roll back, check, copy and remove the images that stations
boot. Every command says what it did, and what it did not do and why."""

from __future__ import annotations

import json
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ets import paths
from ets.cli import _site
from ets.errors import AgentError, ImageError, InputError
from ets.host.atomic import write_atomic
from ets.image import build as builder
from ets.image import copy, publish
from ets.image import scrub as scrubber
from ets.image.progress import Event, Events
from ets.image.recipe import load
from ets.image.store import Store
from ets.site import lock
from ets.site.model import Site

# Where nobody watches, lines are as long as they are: somebody will search them.
console = Console(
    highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200
)

store_option = click.option(
    "--store", "root", type=click.Path(path_type=Path), default=Path(paths.IMAGES),
    show_default=True, help="Where the images lie.",
)  # fmt: skip
site_option = click.option(
    "--site", "site_file", type=click.Path(path_type=Path), default=Path(paths.SITE_FILE),
    show_default=True, help="The site file.",
)  # fmt: skip


@click.group()
def command() -> None:
    """The images that stations boot."""


@command.command()
@click.argument("name")
@site_option
@store_option
@click.option("--cache", type=click.Path(path_type=Path), help="Debian trees [/var/cache/ets].")
@click.option("--publish", "and_publish", is_flag=True, help="Give it to the stations at once.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def build(
    name: str, site_file: Path, root: Path, cache: Path | None, and_publish: bool, as_json: bool
) -> None:
    """Build the image NAME from its recipe in the site file and put it into the store.

    Nothing changes for any station until it is published. Needs root, and Debian's mirror the
    first time; a second build with the same packages takes seconds.
    """
    site = _site.read(site_file)
    store = Store(root)
    began = time.monotonic()
    with _shown() as events:
        recipe = load(site, name, site_file.resolve().parent)
        digest = builder.build(recipe, store, cache, events=events)
    beside = lock.beside(site_file)
    lock.write(beside, {**lock.read(beside), name: digest})
    manifest = store.manifest(digest)
    if as_json:
        click.echo(
            json.dumps({"name": name, "digest": digest, "seconds": time.monotonic() - began})
        )
    else:
        console.print(
            f"built {name} in {time.monotonic() - began:.0f} s: {digest[:12]}, "
            f"{manifest.size / 1e6:.0f} MB, kernel {manifest.kernel}"
        )
    if and_publish:
        _say_published(publish.publish(store, name, digest))
    elif not as_json:
        console.print(f"stations do not get it yet: ets image publish {name}")


@command.command("list")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def list_(root: Path, as_json: bool) -> None:
    """Show all images here, and which one is published under which name."""
    store = Store(root)
    publications = publish.published(store)
    rows = []
    for digest in store.digests():
        manifest = store.manifest(digest)
        state = next((v.reason for v in publish.judge([digest], publications, ())), "")
        rows.append((manifest.name, digest, manifest.size, manifest.kernel, state,
                     store.exported(digest)))  # fmt: skip
    missing = [p for p in publications if p.digest not in store.digests()]
    if as_json:
        keys = ("name", "digest", "size", "kernel", "state", "served")
        click.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
        return
    table = Table(box=None, pad_edge=False)
    for title in ("IMAGE", "DIGEST", "SIZE", "KERNEL", "STATE"):
        table.add_column(
            title, justify="right" if title == "SIZE" else "left", no_wrap=title != "STATE"
        )
    for name, digest, size, kernel, state, served in rows:
        note = state if served else f"{state}, NOT served: run 'ets image verify'"
        table.add_row(name, digest[:12], f"{size / 1e6:.0f} MB", kernel, note)
    console.print(table if rows else f"no image in {root}: build one with 'ets image build NAME'")
    for lost in missing:
        console.print(
            f"{lost.name} is published as {lost.digest[:12]}, which is NOT here: fetch it"
        )


@command.command("publish")
@click.argument("name")
@click.argument("digest", required=False)
@site_option
@store_option
def publish_(name: str, digest: str | None, site_file: Path, root: Path) -> None:
    """Give stations of NAME the image DIGEST (its beginning is enough) from their next boot on.

    Without DIGEST: what site.lock beside the site file names, which is what was built last.
    Stations that run keep what they booted. 'ets image rollback NAME' undoes it.
    """
    store = Store(root)
    beside = lock.beside(site_file)
    wanted = digest or lock.read(beside).get(name)
    if wanted is None:
        raise InputError(
            f"{beside} names no image {name}",
            hint=f"build one: ets image build {name}; or name a digest of 'ets image list'",
        )
    _say_published(publish.publish(store, name, store.find(wanted)))


@command.command()
@click.argument("name")
@store_option
def rollback(name: str, root: Path) -> None:
    """Publish again what was published before under NAME."""
    _say_published(publish.rollback(Store(root), name))


@command.command()
@store_option
@click.option(
    "--keep", default=1, show_default=True, help="How many earlier ones to keep per name."
)
@click.option("--offline", is_flag=True, help="Do not ask the agent which images stations run.")
def prune(root: Path, keep: int, offline: bool) -> None:
    """Remove images that are not published, not in use, and not kept for a rollback."""
    in_use = set() if offline else digests_in_use(Path(paths.AGENT_SOCKET))
    store = Store(root)
    freed = 0
    sizes = {d: sum(e.size for e in store.manifest(d).files.values()) for d in store.digests()}
    for verdict in publish.prune(store, in_use, keep=keep):
        word = "kept   " if verdict.keep else "removed"
        freed += 0 if verdict.keep else sizes.get(verdict.digest, 0)
        console.print(f"{word} {verdict.digest[:12]}: {verdict.reason}")
    console.print(f"{freed / 1e6:.0f} MB freed")


@command.command()
@click.argument("digests", nargs=-1)
@store_option
def verify(digests: tuple[str, ...], root: Path) -> None:
    """Read images (all, or those whose digests begin so) and say whether they are sound."""
    store = Store(root)
    bad = 0
    for digest in [store.find(text) for text in digests] or store.digests():
        with _shown() as events:
            wrong = store.verify(
                digest,
                watch=lambda part, d=digest: events(Event(f"image {d[:12]}", "verifying", part)),  # type: ignore[misc]
            )
        bad += bool(wrong)
        console.print(f"{digest[:12]} {'; '.join(wrong) or 'sound'}")
    if bad:
        raise ImageError(
            f"{bad} damaged image(s) in {root}",
            hint="'ets image scrub --quarantine' stops serving them; fetch them again from a peer",
        )


@command.command()
@store_option
@click.option("--rate", default=20.0, show_default=True, help="MB per second to read, 0: no limit.")
@click.option("--quarantine", "aside", is_flag=True, help="Stop serving damaged images.")
def scrub(root: Path, rate: float, aside: bool) -> None:
    """Read all images slowly, as the agent does in the background, and report damage."""
    store = Store(root)
    with _shown() as events:
        damaged = scrubber.scrub(store, rate=rate * 1e6, events=events)
    for damage in damaged:
        console.print(f"{damage.digest[:12]} is damaged: {'; '.join(damage.wrong)}")
        if aside:
            console.print(f"  moved to {scrubber.quarantine(store, damage.digest)}")
    if damaged:
        raise ImageError(f"{len(damaged)} damaged image(s) in {root}")
    console.print(f"{len(store.digests())} image(s), all sound")


@command.command()
@click.argument("digest")
@click.argument("source")
@store_option
def fetch(digest: str, source: str, root: Path) -> None:
    """Copy the image DIGEST (all 64 digits) from SOURCE: a folder with another store,
    HOST:/FOLDER over ssh, or https://SERVER:8471 (a peer's agent)."""
    with _shown() as events:
        copy.fetch(Store(root), digest, _source(source), events=events)
    console.print(f"fetched {digest[:12]} from {source}: complete and sound")


@command.command()
@click.argument("names", nargs=-1, required=True)
@site_option
@click.option("--cache", type=click.Path(path_type=Path), help="Where to build and look.")
@click.option("--out", type=click.Path(path_type=Path), help="Write {name: digest} to this file.")
def ensure(names: tuple[str, ...], site_file: Path, cache: Path | None, out: Path | None) -> None:
    """Build the images NAMES into the cache unless they are there (what the lab does)."""
    site: Site = _site.read(site_file)
    found = {}
    for name in names:
        with _shown() as events:
            found[name] = builder.ensure(
                site, name, cache, base=site_file.resolve().parent, events=events
            )
        console.print(f"{name} {found[name]}")
    if out is not None:
        write_atomic(out, json.dumps(found, indent=2).encode() + b"\n")


def digests_in_use(socket: Path) -> set[str]:
    """Digests of images that stations run, as the agent knows them from their reports.

    Raises AgentError when it cannot be asked: then nothing may be removed.
    """
    hint = (
        "is ets-agent running? --offline removes without asking: stations that run an image lose it"
    )
    try:
        transport = httpx.HTTPTransport(uds=str(socket))
        with httpx.Client(transport=transport, timeout=10) as client:
            answer = client.get("http://agent/v1/status")
            answer.raise_for_status()
            stations = answer.json()["stations"]
            reports = [station["report"] for station in stations if station.get("report")]
            return {str(report["digest"]) for report in reports if report.get("digest")}
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise AgentError(
            f"the agent cannot be asked which images stations run: {error}", hint=hint
        ) from error


def _source(text: str) -> copy.Source:
    if text.startswith("https://"):
        context = ssl.create_default_context(cafile=str(paths.CA_CERT))
        context.load_cert_chain(str(paths.SERVER_CERT), str(paths.SERVER_KEY))
        return copy.PeerSource(text, context)
    if Path(text).is_dir():
        return copy.FolderSource(Path(text))
    host, colon, folder = text.partition(":")
    if colon and folder.startswith("/") and not host.startswith("-"):
        return copy.SshSource(host, Path(folder))
    raise InputError(
        f"{text!r} is no place to copy from",
        hint="a folder that exists, HOST:/FOLDER, or https://SERVER:8471",
    )


def _say_published(new: publish.Publication) -> None:
    before = f"; before: {new.previous[0][:12]}" if new.previous else ""
    console.print(
        f"published {new.name} = {new.digest[:12]} (generation {new.generation}{before}); "
        "stations get it when they boot next"
    )


@contextmanager
def _shown() -> Iterator[Events]:
    """A live line with what is being done; plain lines where there is no terminal."""
    if not console.is_terminal:
        said = ""

        def plain(event: Event) -> None:
            nonlocal said
            line = f"{event.what}: {event.doing.split(' ', 1)[0]}"
            if line != said and event.doing:
                said = line
                click.echo(f"{event.what}: {event.doing}", err=True)

        yield plain
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def live(event: Event) -> None:
            progress.update(
                task,
                description=f"{event.what}: {event.doing}",
                total=None if event.done is None else 1.0,
                completed=event.done or 0.0,
            )

        yield live
