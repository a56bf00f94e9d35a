"""What a server should be as a tree of files: for people to read and for golden trees. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ets.plan.desired import Desired

#: lists what is not the content of a file
MANIFEST = "MANIFEST"


def render(desired: Desired) -> dict[str, bytes]:
    """Path below the tree's top → content, in order; ``MANIFEST`` first."""
    manifest = "\n".join(_manifest(desired)) + "\n"
    files = {file.path.lstrip("/"): file.content for file in desired.files}
    return {MANIFEST: manifest.encode(), **files}


def _manifest(desired: Desired) -> Iterator[str]:
    for name in desired.packages:
        yield f"package    {name}"
    for account in desired.accounts:
        yield " ".join((f"account    {account.name} home={account.home}", *account.groups))
    for place in desired.directories:
        yield f"directory  {place.mode:04o} {place.owner}:{place.group} {place.path}"
    for file in desired.files:
        yield f"file       {file.mode:04o} {file.owner}:{file.group} {file.path}"
    for copy in desired.copies:
        yield f"copy       {copy.mode:04o} {copy.path} = {copy.source}"
    for unit in desired.units:
        state = f"{'enabled' if unit.enabled else 'disabled'} {'active' if unit.active else 'off'}"
        then = "reload" if unit.reload else "restart"
        yield f"unit       {unit.name} {state} {then} on: {' '.join(unit.restart_on) or '-'}"
