"""``ets lab``: a whole site on this machine, to look around in and to break."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from types import FrameType
from typing import get_args

import click
from rich.console import Console
from rich.table import Table

from ets.cli.demo import Voice
from ets.errors import InputError
from ets.lab import console, faults
from ets.lab.drills.material import gather
from ets.lab.lab import Lab, clean, remove
from ets.lab.machine import Boot, MachineServer
from ets.lab.qemu import Firmware
from ets.lab.state import LabState, all_labs

name_option = click.option("--name", default="lab", show_default=True, help="The lab's name.")


@click.group()
def command() -> None:
    """A whole site on this machine: real servers, real stations, faults."""


@command.command()
@click.argument("site", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@name_option
@click.option(
    "--stations",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="How many of the known stations to switch on, BIOS and UEFI in turn.",
)
@click.option("--no-image", is_flag=True, help="Servers only; no image is built.")
@click.option(
    "--blank",
    multiple=True,
    metavar="SERVER",
    help="This server is a machine with blank disks, switched off (ets lab machine).",
)
def up(site: Path, name: str, stations: int, no_image: bool, blank: tuple[str, ...]) -> None:
    """Bring up the SITE's servers, and leave them running when this command ends.

    Builds what is missing (Debian trees, the stations' image). Needs root.
    """
    if no_image and stations:
        raise InputError("stations have nothing to boot without an image", hint="drop --no-image")
    _end_on_term()
    voice = Voice()
    with voice.working():
        material = None if no_image else gather(site, voice.progress, cloneable=bool(blank))
        images = material.images if material else None
        with Lab.up(site, name=name, images=images, events=voice.progress, blank=blank) as lab:
            known = [station.name for station in lab.site.stations]
            if stations > len(known):
                raise InputError(f"{site} has {len(known)} known stations, not {stations}")
            for index, station in enumerate(known[:stations]):
                lab.start_station(station, firmware="uefi" if index % 2 else "bios")
                voice.say(f"{station}: switched on")
            lab.detach()
    voice.say(f"lab {name} is up; ets lab status, ets lab shell HOST, ets lab down")


@command.command()
@name_option
def status(name: str) -> None:
    """Servers, stations and injected faults of a lab; all labs when it is not up."""
    if not any(state.name == name for state in all_labs()):
        others = ", ".join(state.name for state in all_labs()) or "none"
        raise InputError(f"there is no lab {name!r}", hint=f"labs here: {others}")
    lab = Lab.attach(name)
    table = Table("what", "name", "state", "addresses", "faults", box=None, pad_edge=False)
    for server in lab.servers.values():
        addresses = " ".join(str(address) for address in server.server.addresses.values())
        has = ", ".join(lab.state.faults.get(server.name, {}))
        table.add_row("server", server.name, server.status(), addresses, has)
    for station in lab.stations.values():
        said = ", ".join(str(event.get("event")) for event in station.events())
        table.add_row(
            "station", station.name, "on" if station.running else "off", station.mac, said
        )
    Console(highlight=False).print(table)


@command.command(context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("argv", metavar="[COMMAND]...", nargs=-1, type=click.UNPROCESSED)
@name_option
def shell(host: str, argv: tuple[str, ...], name: str) -> None:
    """A shell on the server HOST, or COMMAND run there; for a station its serial line
    (Ctrl-] leaves it). The exit status is the command's."""
    lab = Lab.attach(name)
    if host in lab.stations:
        if argv:
            raise InputError(f"{host} is a station: only its serial line can be reached")
        click.echo(f"the serial line of {host}; Ctrl-] leaves it", err=True)
        console.attach(lab.station(host).line)
        return
    server = lab.server(host)
    if isinstance(server, MachineServer) and not argv:
        click.echo(f"the serial line of {host}; Ctrl-] leaves it", err=True)
        console.attach(server.machine.line)
        return
    program = argv or ("/bin/bash", "--login")
    if len(argv) == 1:
        program = ("/bin/sh", "-c", argv[0])
    line = server.shell(program)
    os.execvp(line[0], line)  # noqa: S606


@command.command()
@click.argument("station")
@name_option
@click.option("--firmware", type=click.Choice(["bios", "uefi"]), default="bios")
@click.option("--nic", type=click.Choice(["virtio", "e1000", "e1000e"]), default="virtio")
@click.option("--http", is_flag=True, help="UEFI HTTP boot instead of PXE.")
@click.option("--memory", type=click.IntRange(256), default=512, help="MiB.")
@click.option("--off", is_flag=True, help="Switch it off instead.")
def station(
    station: str, name: str, firmware: str, nic: str, http: bool, memory: int, off: bool
) -> None:
    """Switch a known STATION on, or a guest under a name that is not known."""
    lab = Lab.attach(name)
    if off:
        lab.station(station).stop()
        return
    lab.start_station(station, firmware=firmware, nic=nic, http=http, memory=memory)


@command.command()
@click.argument("server")
@name_option
@click.option("--boot", type=click.Choice(get_args(Boot)), default="disk", show_default=True,
              help="once: from the network now, from its disk from the next reset on.")  # fmt: skip
@click.option("--firmware", type=click.Choice(["bios", "uefi"]), help="It stays with that.")
@click.option("--off", is_flag=True, help="Pull its plug instead.")
def machine(server: str, name: str, boot: Boot, firmware: Firmware | None, off: bool) -> None:
    """Switch a SERVER on that is a machine with disks of its own (ets lab up --blank)."""
    chosen = Lab.attach(name).machine(server)
    if off:
        chosen.power_off()
    elif firmware:
        chosen.start(boot=boot, firmware=firmware)
    else:
        chosen.start(boot=boot)


@command.command()
@click.argument("fault", type=click.Choice(faults.names()))
@click.argument("target")
@click.argument("options", nargs=-1, metavar="[KEY=VALUE]...")
@name_option
def fault(fault: str, target: str, options: tuple[str, ...], name: str) -> None:
    """Inject FAULT into the server TARGET."""
    lab = Lab.attach(name)
    lab.inject(fault, target, **_options(options))
    click.echo(f"{target}: {fault}; ets lab heal {target} ends it")


fault.epilog = "Faults: " + "; ".join(
    f"{name}: {faults.get(name).ABOUT}" for name in faults.names()
)


@command.command()
@click.argument("target", required=False)
@name_option
def heal(target: str | None, name: str) -> None:
    """End all faults of TARGET, or of every server; one that is down boots again."""
    healed = Lab.attach(name).heal(target)
    click.echo("\n".join(f"healed {line}" for line in healed) or "there was nothing to heal")


@command.command()
@name_option
@click.option("--all", "every", is_flag=True, help="All labs of this machine.")
def down(name: str, every: bool) -> None:
    """Remove a lab and everything of it; also what a killed one left behind."""
    cleaned = clean()
    states = list(all_labs()) if every else [s for s in all_labs() if s.name == name]
    if not states and not every and name not in cleaned:
        LabState.load(name)
    for state in states:
        remove(state)
    for removed in [*cleaned, *(state.name for state in states)]:
        click.echo(f"lab {removed} is gone")


def _options(words: tuple[str, ...]) -> dict[str, float | str]:
    """``key=value`` arguments; numbers become numbers."""
    found: dict[str, float | str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"{shlex.quote(word)} is not KEY=VALUE")
        try:
            found[key] = int(value) if value.isdigit() else float(value)
        except ValueError:
            found[key] = value
    return found


def _end_on_term() -> None:
    """Let SIGTERM unwind as Ctrl-C does, so that a lab that is half up is taken down."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
