"""Joins that are open somewhere at the site, as every server knows them from the records.

Pure. A record says where a newcomer may ask, never who may come in: that is for the server that
opened the join alone, and a wrong record costs a machine a boot into an installer that is told no.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Literal

from ets.cluster.mac import parse

KIND = "join/"


@dataclass(frozen=True, slots=True)
class Newcomer:
    """An open join of the server ``name``, taken at ``address``; ``mac`` None: by any machine.

    ``install``: boot the installer; ``disk``: it is copied, boot what lies on its disk.
    """

    name: str
    address: IPv4Address
    mac: str | None
    boots: Literal["install", "disk"]


def record(newcomer: Newcomer, until: float) -> dict[str, object]:
    """The value of its record, good until ``until`` (seconds since 1970)."""
    return {
        "address": str(newcomer.address),
        "mac": newcomer.mac,
        "boots": newcomer.boots,
        "until": round(until),
    }


def read(values: Mapping[str, object], now: float) -> tuple[Newcomer, ...]:
    """The open joins in the values of all records by key, by name; what is not right is left out.
    The clocks of two servers are a little apart, so this is no judgement on who is too late."""
    found = []
    for key, value in sorted(values.items()):
        if not key.startswith(KIND) or not isinstance(value, dict):
            continue
        mac, until = value.get("mac"), value.get("until")
        if not isinstance(until, int | float) or until < now:
            continue
        if mac is not None and (not isinstance(mac, str) or parse(mac) != mac):
            continue
        try:
            address = IPv4Address(str(value.get("address")))
        except AddressValueError:
            continue
        boots: Literal["install", "disk"] = "disk" if value.get("boots") == "disk" else "install"
        found.append(Newcomer(key.removeprefix(KIND), address, mac, boots))
    return tuple(found)


def of_card(newcomers: Iterable[Newcomer], mac: str) -> Newcomer | None:
    """The join that is for this card and no other."""
    return next((one for one in newcomers if one.mac == mac), None)


def for_anybody(newcomers: Iterable[Newcomer]) -> tuple[Newcomer, ...]:
    """The joins that any machine may ask for."""
    return tuple(one for one in newcomers if one.mac is None and one.boots == "install")
