"""Named faults, one file each: a module here with ``ABOUT``, ``inject`` and ``heal`` is a fault;
nothing has to be registered. A file name's underscores are hyphens in the fault's name.

Clock skew is not among them: most of the lab's servers are containers, which share the machine's
clock (time namespaces cover only monotonic clocks), and a container that could set it would set
everybody's. It needs a server with a kernel of its own.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any, Protocol, cast

from ets.errors import InputError
from ets.lab.server import LabServer


class Fault(Protocol):
    """The shape of a fault module."""

    #: one line: what happens to the server
    ABOUT: str

    def inject(self, server: LabServer, **options: Any) -> dict[str, Any]:
        """Make it happen; returns what ``heal`` has to remember, as JSON values."""

    def heal(self, server: LabServer, memory: dict[str, Any]) -> None:
        """Undo it. Works also after an ``inject`` that was interrupted (empty ``memory``)."""


def names() -> tuple[str, ...]:
    """All faults, sorted."""
    return tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)))


def get(name: str) -> Fault:
    """The fault of that name. Raises InputError naming those that there are."""
    if name not in names():
        raise InputError(f"there is no fault {name!r}", hint=f"there are: {', '.join(names())}")
    return cast(Fault, import_module(f"{__name__}.{name.replace('-', '_')}"))
