"""What lies at paths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ets.host.transport import Host
from ets.plan.desired import File
from ets.plan.observed import PathFact


def read(host: Host, paths: Iterable[str]) -> dict[str, PathFact]:
    """What lies at ``paths``; those with nothing are missing. Raises HostError."""
    return {
        path: PathFact(entry.kind, entry.mode, entry.owner, entry.group, entry.digest)
        for path, entry in host.look(sorted(set(paths))).items()
    }


def digests(host: Host, paths: Iterable[str]) -> dict[str, str]:
    """The sha256 (hex) of the files at ``paths``, links followed; what is none is missing."""
    found = host.look(sorted(set(paths)), follow=True)
    return {path: entry.digest for path, entry in found.items() if entry.kind == "file"}


def contents(host: Host, files: Iterable[File], facts: dict[str, PathFact]) -> dict[str, bytes]:
    """The present content of those ``files`` whose content differs, for showing what changes."""
    found = {}
    for file in files:
        fact = facts.get(file.path)
        if fact is None or fact.kind != "file":
            continue
        if fact.digest != hashlib.sha256(file.content).hexdigest():
            content = host.read(file.path)
            if content is not None:
                found[file.path] = content
    return found
