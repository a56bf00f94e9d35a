"""What an inventory tells of a server: one file per kind of fact, all of one shape.

A kind is a module with ``KIND`` (what an admin calls it), ``ASK`` (the programs that are asked,
each an argument list; all only read) and ``parse``, which is pure: what they printed, in this
order, becomes name → attribute → value. A new kind is a new file here. May import what is pure.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Protocol, cast

#: name → attribute → value
Facts = Mapping[str, Mapping[str, str]]


class Kind(Protocol):
    """The shape of such a module."""

    KIND: str
    ASK: Sequence[Sequence[str]]

    def parse(self, *texts: str) -> Facts:
        """The facts in what the programs of ``ASK`` printed. Tolerant: what is no fact is passed
        over, an empty text is a program that had nothing to say."""


def load() -> tuple[Kind, ...]:
    """All kinds, by name."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return tuple(cast(Kind, import_module(f"{__name__}.{name}")) for name in names)
