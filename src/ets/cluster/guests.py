"""Guests: stations that nobody wrote into the site file, and how they keep their address.

A guest is given an address by one server, out of the slice of the guests' range that is that
server's alone. The server's agent learns it (``learn``), tells its peers, and every server then
holds a reservation for it (``reservations``), so that any of them can renew it. Invariants:

1. an address is reserved for one MAC, a MAC has one reservation, and an address stands only in
   the record of the server whose slice it is from: so no address is reserved twice, whatever the
   servers know of each other;
2. an owner forgets a guest (and may give its address to another) only when no server of the site
   can still have renewed it: its own time is over, and every other server has told it since then
   of no renewal (``may_forget``). In a partition nothing is forgotten.

Times are whole seconds since 1970. ``until`` is rounded up to whole leases, so that a renewal
rarely changes a record that all servers must be told of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from ets.cluster.mac import parse
from ets.site.model import AddressRange


@dataclass(frozen=True, slots=True, order=True)
class Guest:
    """A guest's address, since when it has it, and until when it may use it."""

    mac: str
    address: IPv4Address
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as Kea holds it: ``start`` is the client's last transaction, ``length`` seconds."""

    mac: str
    address: IPv4Address
    start: int
    length: int

    @property
    def end(self) -> int:
        """When it expires."""
        return self.start + self.length


def round_up(moment: int, lease: int) -> int:
    """``moment`` rounded up to a whole number of leases, and one more."""
    return (moment // lease + 2) * lease


def learn(
    held: Iterable[Guest],
    leases: Iterable[Lease],
    renewed: Iterable[Guest],
    *,
    own: AddressRange,
    lease: int,
    now: int,
    may_forget: bool,
) -> tuple[Guest, ...]:
    """The guests of ``own``'s slice: those held, those with a lease here, less those gone.

    ``renewed`` is what the peers say that they renewed. Sorted by MAC, one entry a MAC (the one
    with the newer lease) and one a address.
    """
    by_address = {guest.address: guest for guest in held if guest.address in own}
    for found in leases:
        if found.address not in own or found.end <= now:
            continue
        old = by_address.get(found.address)
        until = round_up(found.end, lease)
        if old is not None and old.mac == found.mac:
            until, since = max(until, old.until), old.since
        else:
            since = found.start
        by_address[found.address] = Guest(found.mac, found.address, since, until)
    for other in renewed:
        old = by_address.get(other.address)
        if old is not None and old.mac == other.mac and other.until > old.until:
            by_address[other.address] = Guest(old.mac, old.address, old.since, other.until)
    kept = (guest for guest in by_address.values() if not may_forget or guest.until > now)
    return _one_each(kept)


def renewals(
    leases: Iterable[Lease], *, own: AddressRange | None, pool: AddressRange, lease: int, now: int
) -> tuple[Guest, ...]:
    """The leases that this server holds for guests of other servers' slices."""
    found = (
        Guest(item.mac, item.address, item.start // lease * lease, round_up(item.end, lease))
        for item in leases
        if item.end > now and item.address in pool and (own is None or item.address not in own)
    )
    return _one_each(found)


def reservations(
    records: Mapping[str, Iterable[Guest]],
    slices: Mapping[str, AddressRange],
    known: Collection[str],
) -> tuple[Guest, ...]:
    """What every server reserves, from the guests in all servers' records: see invariant 1.

    A MAC that two servers gave an address (it met both before they told each other) keeps the
    newer one. Known stations are no guests. Sorted by MAC.
    """
    valid = (
        guest
        for owner, guests in records.items()
        for guest in guests
        if owner in slices and guest.address in slices[owner] and guest.mac not in known
    )
    return _one_each(valid)


def _one_each(guests: Iterable[Guest]) -> tuple[Guest, ...]:
    newest: dict[str, Guest] = {}
    taken: set[IPv4Address] = set()
    for guest in sorted(guests, key=lambda g: (-g.since, g.address, g.mac)):
        if guest.mac not in newest and guest.address not in taken:
            newest[guest.mac] = guest
            taken.add(guest.address)
    return tuple(sorted(newest.values()))


def to_json(guests: Iterable[Guest]) -> dict[str, list[object]]:
    """As they stand in a record: MAC to address, since, until."""
    return {g.mac: [str(g.address), g.since, g.until] for g in guests}


def from_json(value: object, limit: int = 100_000) -> tuple[Guest, ...]:
    """The guests in a record's value; entries that make no sense are left out."""
    if not isinstance(value, dict) or len(value) > limit:
        return ()
    return tuple(guest for item in value.items() if (guest := _entry(*item)) is not None)


def _entry(mac: object, value: object) -> Guest | None:
    if not isinstance(mac, str) or parse(mac) != mac:
        return None
    if not isinstance(value, list) or len(value) != 3:
        return None
    address, since, until = value
    if not isinstance(address, str) or type(since) is not int or type(until) is not int:
        return None
    try:
        return Guest(mac, IPv4Address(address), since, until)
    except ValueError:
        return None
