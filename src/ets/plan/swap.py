"""Files on their way to their place: staged, kept aside, prepared. Used by ``apply`` alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ets import paths
from ets.errors import HostError, PlanError
from ets.host.transport import Host
from ets.plan.act import remove_tree
from ets.plan.desired import Copy, Desired, Directory, File
from ets.plan.diff import Step
from ets.plan.observed import PathFact
from ets.plan.owned import Owned
from ets.plan.plan import STAGED, staged_at

BACKUP = paths.STATE / "backup"


@dataclass(frozen=True, slots=True)
class Content:
    """What will lie at a path."""

    content: bytes
    mode: int
    owner: str = "root"
    group: str = "root"


def items(desired: Desired) -> list[tuple[str, File | Copy | Directory]]:
    """All files, copies and directories of ``desired``, with their paths."""
    everything: list[File | Copy | Directory] = [
        *desired.files,
        *desired.copies,
        *desired.directories,
    ]
    return [(item.path, item) for item in everything]


def make_directory(host: Host, item: Directory) -> None:
    """Make a desired directory, or correct the one that is there."""
    host.make_directory(item.path, mode=item.mode, owner=item.owner, group=item.group)


def staged(plan_id: str) -> str:
    """The folder of a plan's staged files."""
    return str(staged_at(plan_id))


def kept(path: str) -> str:
    """Where the backup of ``path`` lies."""
    return f"{BACKUP}{path}"


def desired_content(host: Host, desired: Desired) -> dict[str, Content]:
    """The content of all desired files and copies, by path. Raises PlanError when the source of a
    copy is not there."""
    found = {
        file.path: Content(file.content, file.mode, file.owner, file.group)
        for file in desired.files
    }
    for copy in desired.copies:
        content = host.read(copy.source)
        if content is None:
            raise PlanError(
                f"{copy.path} should be a copy of {copy.source}, which is not there",
                hint="is the package that holds it among the service's packages?",
            )
        found[copy.path] = Content(content, copy.mode)
    return found


def stage(host: Host, plan_id: str, new: Mapping[str, Content]) -> None:
    """Write all desired files below the plan's folder, which only root may enter."""
    folder = staged(plan_id)
    host.make_directory(str(STAGED), mode=0o700)
    for path, item in sorted(new.items()):
        host.write(folder + path, item.content, mode=item.mode)


def back_up(host: Host, before: Mapping[str, PathFact | None]) -> None:
    """Keep the files that lie at these paths and are not ETS's."""
    for path, fact in sorted(before.items()):
        if fact is None or fact.kind != "file":
            continue
        content = host.read(path)
        if content is not None:
            host.make_directory(str(BACKUP), mode=0o700)
            host.write(kept(path), content, mode=0o600)


def backup_of(host: Host, owned: Owned, step: Step) -> Content:
    """What lay at a step's path before ETS. Raises HostError when the backup is gone."""
    fact = owned.paths[step.target].before
    content = host.read(kept(step.target))
    if fact is None or content is None:
        raise HostError(
            f"what lay at {step.target} before ETS cannot be restored: "
            f"{kept(step.target)} is missing",
            hint=f"put a file there, or remove {step.target} yourself, and plan again",
        )
    return Content(content, fact.mode, fact.owner, fact.group)


def prepare(host: Host, new: Mapping[str, Content]) -> None:
    """Put each file beside its place, complete and on the disk."""
    for path, item in sorted(new.items()):
        host.prepare(path, item.content, mode=item.mode, owner=item.owner, group=item.group)


def sweep(host: Host, owned: Owned) -> None:
    """Remove what killed applies left: staged files, prepared files, backups of nothing owned."""
    for name in host.names(str(STAGED)):
        remove_tree(host, f"{STAGED}/{name}")
    for path in owned.prepared:
        host.discard(path)
    wanted = {kept(path) for path, item in owned.paths.items() if item.before is not None}
    _sweep_backups(host, str(BACKUP), wanted)


def _sweep_backups(host: Host, folder: str, wanted: set[str]) -> None:
    for name in host.names(folder):
        path = f"{folder}/{name}"
        entry = host.look([path]).get(path)
        if entry is not None and entry.kind == "directory":
            _sweep_backups(host, path, wanted)
            if not host.names(path):
                host.remove(path)
        elif path not in wanted:
            host.remove(path)
