"""What ``plan``, ``apply`` and ``verify`` share: this server's part of the site, and pictures of
steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from rich.console import Console
from rich.text import Text

from ets import paths, services
from ets.cli import _site
from ets.errors import InputError
from ets.facts.observe import observe
from ets.host.transport import Host
from ets.plan import plan as plans
from ets.plan.desired import Command, Desired, Probe
from ets.plan.diff import Status, Step
from ets.plan.journal import read_owned
from ets.plan.plan import Plan
from ets.site.model import Server, Site

STYLES: dict[Status, tuple[str, str]] = {
    "create": ("+", "green"),
    "change": ("~", "yellow"),
    "remove": ("-", "red"),
}

#: lines of one file's change on the screen
DIFF_LINES = 40


@dataclass(frozen=True, slots=True)
class Target:
    """A server and all that its services ask of it."""

    site: Site
    server: Server

    @property
    def desired(self) -> Desired:
        """What the server should be."""
        return services.desired(self.site, self.server)

    @property
    def probes(self) -> list[Probe]:
        """How to ask whether its services answer."""
        return [
            probe
            for service in services.of(self.site, self.server)
            for probe in service.probes(self.site, self.server)
        ]

    def validators(self, root: PurePosixPath) -> Iterator[Command]:
        """The daemons' own checks of the files staged below ``root``."""
        for service in services.of(self.site, self.server):
            yield from service.validators(root)

    def plan(self, host: Host) -> Plan:
        """A plan from what ``host`` is now."""
        desired, owned = self.desired, read_owned(host)
        return plans.make(
            site=self.site.digest,
            server=self.server.name,
            desired=desired,
            observed=observe(host, desired, owned),
            owned=owned,
            validators=self.validators,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def target(site_file: str, name: str | None, host: Host) -> Target:
    """This server (or the one of that name) in the site file.

    Raises SiteError with the file's problems, InputError when the site has no such server.
    """
    site = _site.read(site_file)
    if name is None:
        content = host.read(str(paths.SERVER_NAME))
        if content is None:
            raise InputError(
                f"which server is this? {paths.SERVER_NAME} is missing",
                hint=f"write its name there (echo {site.servers[0].name} > {paths.SERVER_NAME}), "
                "or say --server NAME",
            )
        name = content.decode(errors="replace").strip()
    try:
        return Target(site, site.server(name))
    except KeyError:
        known = ", ".join(server.name for server in site.servers)
        raise InputError(
            f"the site {site.name} has no server {name!r}", hint=f"it has: {known}"
        ) from None


def describe(step: Step) -> Text:
    """A step on one line."""
    sign, style = STYLES[step.status]
    line = Text.assemble((f"  {sign} ", style), f"{step.verb} {step.kind} ", (step.target, "bold"))
    return line.append(f"  ({step.why})", "dim") if step.why else line


def show_steps(steps: Sequence[Step], console: Console) -> None:
    """Every step, with what changes in text files, and a count."""
    for step in steps:
        console.print(describe(step), soft_wrap=True)
        if step.diff and step.verb == "change":
            _show_diff(step.diff, console)
    counts = Counter(step.status for step in steps)
    console.print(
        f"{counts['create']} to create, {counts['change']} to change, {counts['remove']} to remove"
    )


def _show_diff(diff: str, console: Console) -> None:
    styles = {"+": "green", "-": "red", "@": "cyan"}
    lines = diff.splitlines()[2:]
    for line in lines[:DIFF_LINES]:
        console.print(Text(f"      {line}", styles.get(line[:1], "dim")), soft_wrap=True)
    if len(lines) > DIFF_LINES:
        more = f"      … {len(lines) - DIFF_LINES} more lines: ets plan --json"
        console.print(Text(more, "dim"), soft_wrap=True)
