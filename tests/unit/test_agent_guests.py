"""Guests: no address for two, whatever the servers know of each other."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from ets.cluster import guests
from ets.cluster.guests import Guest, Lease
from ets.site.model import AddressRange

LEASE = 3600
NOW = 1_700_000_000


def address(n: int) -> IPv4Address:
    return IPv4Address(int(IPv4Address("10.0.0.0")) + n)


SLICES = {
    "alpha": AddressRange(address(0), address(9)),
    "beta": AddressRange(address(10), address(19)),
}
ALPHA, POOL = SLICES["alpha"], AddressRange(address(0), address(19))

macs = st.integers(0, 12).map(lambda n: f"52:54:00:00:00:{n:02x}")
some_guests = st.lists(
    st.builds(
        Guest,
        mac=macs,
        address=st.integers(0, 25).map(address),
        since=st.integers(NOW - 9000, NOW),
        until=st.integers(NOW - 9000, NOW + 9000),
    ),
    max_size=12,
)
some_leases = st.lists(
    st.builds(
        Lease,
        mac=macs,
        address=st.integers(0, 25).map(address),
        start=st.integers(NOW - 9000, NOW),
        length=st.just(LEASE),
    ),
    max_size=12,
    unique_by=lambda lease: lease.address,  # as Kea keeps them
)


def learn(
    held: list[Guest] | tuple[Guest, ...],
    leases: list[Lease],
    renewed: list[Guest] | None = None,
    *,
    now: int = NOW,
    may_forget: bool = True,
) -> tuple[Guest, ...]:
    return guests.learn(
        held, leases, renewed or [], own=ALPHA, lease=LEASE, now=now, may_forget=may_forget
    )


@given(held=some_guests, leases=some_leases, renewed=some_guests, may=st.booleans())
def test_a_record_holds_own_addresses_only_and_each_once(
    held: list[Guest], leases: list[Lease], renewed: list[Guest], may: bool
) -> None:
    learned = learn(held, leases, renewed, may_forget=may)
    assert all(guest.address in ALPHA for guest in learned)
    assert len({guest.address for guest in learned}) == len(learned)
    assert len({guest.mac for guest in learned}) == len(learned)
    assert learned == tuple(sorted(learned))


@given(records=st.dictionaries(st.sampled_from(["alpha", "beta", "x"]), some_guests))
def test_no_address_and_no_mac_is_reserved_twice(records: dict[str, list[Guest]]) -> None:
    reserved = guests.reservations(records, SLICES, known={"52:54:00:00:00:00"})
    assert len({guest.address for guest in reserved}) == len(reserved)
    assert len({guest.mac for guest in reserved}) == len(reserved)
    assert all(guest.address in POOL for guest in reserved)
    assert "52:54:00:00:00:00" not in {guest.mac for guest in reserved}
    for guest in reserved:
        owner = "alpha" if guest.address in ALPHA else "beta"
        assert guest in records[owner]


@given(leases=some_leases)
def test_who_has_a_lease_of_ours_is_learned(leases: list[Lease]) -> None:
    learned = {guest.mac for guest in learn([], leases)}
    for lease in leases:
        if lease.address in ALPHA and lease.end > NOW:
            assert lease.mac in learned


@given(held=some_guests, leases=some_leases, later=st.integers(0, 10**9))
def test_in_a_partition_nothing_is_forgotten(
    held: list[Guest], leases: list[Lease], later: int
) -> None:
    before = learn(held, leases)
    after = learn(before, [], now=NOW + later, may_forget=False)
    assert after == before


def test_a_guest_is_forgotten_when_its_time_is_over_and_everybody_was_asked() -> None:
    (guest,) = learn([], [Lease("52:54:00:00:00:01", address(3), NOW, LEASE)])
    assert guest.until > NOW + 2 * LEASE - LEASE
    assert learn([guest], [], now=guest.until - 1) == (guest,)
    assert learn([guest], [], now=guest.until) == ()


def test_a_renewal_elsewhere_keeps_a_guest() -> None:
    (guest,) = learn([], [Lease("52:54:00:00:00:01", address(3), NOW, LEASE)])
    renewal = Lease(guest.mac, guest.address, guest.until - 10, LEASE)
    told = guests.renewals(
        [renewal], own=SLICES["beta"], pool=POOL, lease=LEASE, now=guest.until - 5
    )
    (kept,) = learn([guest], [], list(told), now=guest.until + 5)
    assert (kept.mac, kept.address, kept.since) == (guest.mac, guest.address, guest.since)
    assert kept.until > renewal.end


def test_a_renewal_of_another_machine_keeps_nobody() -> None:
    held = Guest("52:54:00:00:00:01", address(3), NOW - LEASE, NOW)
    other = Guest("52:54:00:00:00:02", address(3), NOW, NOW + 5 * LEASE)
    assert learn([held], [], [other], now=NOW + 1) == ()


def test_renewing_rarely_changes_the_record() -> None:
    mac, start = "52:54:00:00:00:01", NOW // LEASE * LEASE
    seen = set()
    held: tuple[Guest, ...] = ()
    for moment in range(start, start + 4 * LEASE, 300):
        held = learn(held, [Lease(mac, address(3), moment, LEASE)], now=moment)
        seen.add(held)
    assert len(seen) <= 5


def test_who_met_two_servers_keeps_the_newer_address() -> None:
    mac = "52:54:00:00:00:01"
    records = {
        "alpha": [Guest(mac, address(1), NOW - 2, NOW + LEASE)],
        "beta": [Guest(mac, address(11), NOW, NOW + LEASE)],
    }
    assert guests.reservations(records, SLICES, known=()) == (records["beta"][0],)


@given(held=some_guests)
def test_guests_survive_being_stored(held: list[Guest]) -> None:
    once = learn(held, [], may_forget=False)
    assert guests.from_json(guests.to_json(once)) == once


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | macs, inner),
        max_leaves=20,
    )
)
def test_anything_in_a_record_ends_in_guests(value: object) -> None:
    assert all(isinstance(guest, Guest) for guest in guests.from_json(value))
