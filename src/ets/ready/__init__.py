"""Is a server fit to be cloned? One file per check, all of one shape: ``NAME``, ``ask`` (raw facts
as text, changing nothing) and ``judge`` (pure: facts in, findings out). A new check is a new file
here; a module whose name begins with ``_``, and those in ``OTHERS``, are no checks. Imports
``ets.host``, ``ets.facts``, ``ets.plan``, ``ets.services``, ``ets.site`` and below.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import Protocol, cast

from ets.host.transport import Host
from ets.ready.finding import Facts, Finding
from ets.site.model import Server, Site

OTHERS = ("examine", "finding", "restart")


class Check(Protocol):
    """The shape of a check. ``site`` and ``server`` are None where no site file says what the
    machine is: every check works there, too."""

    NAME: str

    def ask(self, host: Host, site: Site | None, server: Server | None) -> Facts:
        """What the machine says, by question; changes nothing. Raises HostError."""

    def judge(self, facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
        """What is wrong. What a missing question would have told is not judged."""


def load() -> tuple[Check, ...]:
    """All checks, by name."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    names = sorted(name for name in found if not name.startswith("_") and name not in OTHERS)
    return tuple(cast(Check, import_module(f"{__name__}.{name}")) for name in names)
