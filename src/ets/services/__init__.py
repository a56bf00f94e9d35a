"""One file per server-side role, all of one shape, all pure: site and server in, data out.

A service is a module with ``NAME``, ``enabled(site, server)``, ``check(site)``,
``desired(site, server)``, ``validators(root)`` and ``probes(site, server)``, in this order (see
``dhcp.py``). A new service is a new file here; nothing else changes. May import ``ets.site``,
``ets.cluster``, ``ets.paths`` and ``ets.plan.desired``.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import PurePath
from typing import Protocol, cast

from ets.plan.desired import Command, Desired, Probe, merge
from ets.site.model import Problem, Server, Site


class Service(Protocol):
    """The shape of a service module."""

    NAME: str

    def enabled(self, site: Site, server: Server) -> bool:
        """Does this server run the service?"""

    def check(self, site: Site) -> Iterator[Problem]:
        """What is wrong in the site file, as far as this service is concerned."""

    def desired(self, site: Site, server: Server) -> Desired:
        """What the service asks of the server."""

    def validators(self, root: PurePath) -> list[Command]:
        """The daemon's own check of the configuration staged below ``root``."""

    def probes(self, site: Site, server: Server) -> list[Probe]:
        """How to ask whether it answers."""


def load() -> tuple[Service, ...]:
    """All services, by name. A module whose name begins with ``_`` is a part of one, not one."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    names = sorted(name for name in found if not name.startswith("_"))
    return tuple(cast(Service, import_module(f"{__name__}.{name}")) for name in names)


def of(site: Site, server: Server) -> tuple[Service, ...]:
    """The services that ``server`` runs."""
    return tuple(service for service in load() if service.enabled(site, server))


def desired(site: Site, server: Server) -> Desired:
    """What all services together ask of ``server``."""
    return merge(service.desired(site, server) for service in of(site, server))
