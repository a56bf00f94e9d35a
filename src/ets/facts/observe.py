"""Everything about a server that a desired state asks."""

from __future__ import annotations

from ets.facts import accounts, files, packages, units
from ets.host.transport import Host
from ets.plan.desired import Desired
from ets.plan.observed import Observed
from ets.plan.owned import Owned


def observe(host: Host, desired: Desired, owned: Owned) -> Observed:
    """The facts about all that ``desired`` names and all that ETS owns; changes nothing.

    Raises HostError when the host cannot be looked at.
    """
    paths = files.read(
        host,
        [
            *(file.path for file in desired.files),
            *(copy.path for copy in desired.copies),
            *(directory.path for directory in desired.directories),
            *owned.paths,
        ],
    )
    return Observed(
        packages=packages.read(host, [*desired.packages, *owned.packages]),
        accounts=accounts.read(host, (account.name for account in desired.accounts)),
        paths=paths,
        sources=files.digests(host, (copy.source for copy in desired.copies)),
        units=units.read(host, [*(unit.name for unit in desired.units), *owned.units]),
        contents=files.contents(host, desired.files, paths),
        systemd=units.systemd(host),
    )
