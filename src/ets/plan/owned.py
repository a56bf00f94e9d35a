"""What earlier applies made theirs on a server, and what an interrupted one still owes.

Kept in ``/var/lib/ets/owned.json``, one file, replaced atomically, so that no crash can tear its
parts apart. Invariants, kept by ``apply``:

1. a path is recorded here *before* it is first changed, and forgotten only *after* it was removed
   or restored: nothing that ETS wrote is ever unrecorded;
2. the content that was there before ETS is in the backup before the path is recorded;
3. a unit is in ``due`` before the first file that it must be restarted for is swapped, and leaves
   it only after the restart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from ets.errors import PlanError
from ets.plan.observed import PathFact

FORMAT = 1
#: what reading something else than what was written may raise
NOT_ONE = (ValueError, ValidationError, AttributeError, KeyError, TypeError, RecursionError)


@dataclass(frozen=True, slots=True)
class OwnedPath:
    """A file or directory that ETS keeps. ``before`` is what lay there first; None: nothing did,
    or a symbolic link, which is not put back."""

    kind: Literal["file", "directory"]
    before: PathFact | None = None


@dataclass(frozen=True, slots=True)
class OwnedUnit:
    """A unit that ETS keeps. ``enabled`` and ``active``: its state before ETS."""

    enabled: bool
    active: bool
    restart_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Owned:
    """``packages`` are those that ETS installed itself.

    What an interrupted apply left: ``due``, units to the verb (restart or reload) they still need;
    ``reload``, whether systemd must read its units again; ``prepared``, paths beside which a
    prepared file may lie; ``plan``, the id of that apply's plan (empty: none was interrupted).
    """

    paths: Mapping[str, OwnedPath] = field(default_factory=dict)
    units: Mapping[str, OwnedUnit] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    due: Mapping[str, Literal["restart", "reload"]] = field(default_factory=dict)
    reload: bool = False
    prepared: tuple[str, ...] = ()
    plan: str = ""


def dumps(owned: Owned) -> bytes:
    """As JSON: sorted, indented, ended by a newline."""
    text = json.dumps({"format": FORMAT, **asdict(owned)}, sort_keys=True, indent=1)
    return text.encode() + b"\n"


def loads(content: bytes | None, *, where: str) -> Owned:
    """From JSON; None (no such file) is nothing owned. Raises PlanError naming ``where``."""
    if content is None:
        return Owned()
    try:
        data = json.loads(content)
        if data.pop("format") != FORMAT:
            raise PlanError(f"{where} was written by another version of ETS")
        return _OWNED.validate_python(data)
    except NOT_ONE as error:
        raise PlanError(
            f"{where} is damaged: {error}",
            hint=f"restore it from a backup, or remove it: ETS then forgets what it made ({where})",
        ) from error


_OWNED: TypeAdapter[Owned] = TypeAdapter(Owned)
