"""Reading a site file the way every verb does: with what the services find wrong in it, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ets import services
from ets.site import load
from ets.site.model import Problem, Site


def read(path: Path | str, *, sources: bool = False) -> Site:
    """The site at ``path``; with ``sources`` the files that its images are made from must exist.
    Raises SiteError with every problem.
    """
    return load.read(path, further=_found_by_services, sources=sources)


def _found_by_services(site: Site) -> Iterator[Problem]:
    for service in services.load():
        yield from service.check(site)
