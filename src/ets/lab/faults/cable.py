"""cable: the server's cable to one network is pulled at the switch."""

from __future__ import annotations

from typing import Any

from ets.errors import InputError
from ets.lab.server import LabServer
from ets.site.model import ROLES, Role

ABOUT = "the cable to the stations' network (network=lan: another one) is pulled"


def inject(server: LabServer, *, network: str = "stations") -> dict[str, Any]:
    """Both ends lose their carrier; the server's processes go on."""
    role: Role | None = next((role for role in ROLES if role == network), None)
    if role is None or role not in server.server.addresses:
        has = ", ".join(server.server.addresses)
        raise InputError(f"{server.name} has no network {network!r}", hint=f"it has: {has}")
    server.set_cable([role], plugged=False)
    return {"network": role}


def heal(server: LabServer, memory: dict[str, Any]) -> None:
    """Plug it in again."""
    server.set_cable(server.topology.roles(server.server), plugged=True)
