"""Addresses that follow from the site file alone, so that every server computes the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address

from ets.site.model import AddressRange, Server, Site


def guest_slice(site: Site, server: Server) -> AddressRange | None:
    """The part of the guests' range that belongs to ``server`` alone; None when there is none.

    Invariant: the slices of a site's servers are disjoint and together are the whole range. The
    remainder of an uneven split goes to the first servers, one address each.
    """
    guests = site.stations_net.guests
    if guests is None or not site.defaults.guests:
        return None
    index = site.servers.index(server)
    count = len(site.servers)
    base, extra = divmod(len(guests), count)
    start = int(guests.first) + index * base + min(index, extra)
    size = base + (1 if index < extra else 0)
    if size == 0:
        return None
    return AddressRange(IPv4Address(start), IPv4Address(start + size - 1))


def assign_known(
    macs: Iterable[str], pool: AddressRange, taken: Collection[IPv4Address]
) -> dict[str, IPv4Address]:
    """Addresses for known stations that were given none: a hash of the MAC, probed linearly.

    Independent of the order in the file (MACs are taken sorted), so moving a line changes
    nothing; adding a station may move another only where their hashes collide. Stations for which
    the pool has no address left are missing from the result.
    """
    first, size = int(pool.first), len(pool)
    used = {int(address) for address in taken if address in pool}
    free = size - len(used)
    assigned: dict[str, IPv4Address] = {}
    for mac in sorted(macs):
        if free == 0:
            break
        start = int.from_bytes(hashlib.sha256(mac.encode()).digest()[:8], "big") % size
        while first + start in used:
            start = (start + 1) % size
        used.add(first + start)
        free -= 1
        assigned[mac] = IPv4Address(first + start)
    return assigned
