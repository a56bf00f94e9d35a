"""Runtime records: one owner each, rising versions, and an alarm instead of a merge."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ets.cluster import records
from ets.cluster.records import Record, absorb, made

SERVERS = ("alpha", "beta", "gamma")

#: what the owners wrote, by key and version: one content for each, as owners promise
histories = st.dictionaries(
    st.tuples(st.sampled_from(["server", "guests", "renewed"]), st.sampled_from(SERVERS)),
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
    min_size=1,
)


def written(history: dict[tuple[str, str], list[int]]) -> list[Record]:
    return [
        made(f"{kind}/{name}", name, version, value)
        for (kind, name), values in history.items()
        for version, value in enumerate(values, start=1)
    ]


def apply(held: Mapping[str, Record], batches: list[list[Record]]) -> Mapping[str, Record]:
    for batch in batches:
        result = absorb(held, batch, SERVERS)
        assert result.alarms == ()
        held = result.records
    return held


@given(history=histories, data=st.data())
def test_any_way_of_exchanging_ends_the_same(
    history: dict[tuple[str, str], list[int]], data: st.DataObject
) -> None:
    everything = written(history)
    newest = {record.key: record for record in everything}
    once = apply({}, [everything])
    order = data.draw(st.permutations(everything))
    repeated = data.draw(st.lists(st.sampled_from(everything), max_size=10))
    again = apply({}, [[record] for record in [*order, *repeated]])
    assert once == again == newest
    assert records.versions(once) == records.versions(again)


@given(history=histories, data=st.data())
def test_versions_never_go_back(
    history: dict[tuple[str, str], list[int]], data: st.DataObject
) -> None:
    held: Mapping[str, Record] = {}
    for record in data.draw(st.permutations(written(history))):
        after = absorb(held, [record], SERVERS).records
        for key, old in held.items():
            assert after[key].version >= old.version
        held = after


def test_two_records_of_one_version_are_an_alarm_and_neither_wins() -> None:
    mine = made("server/beta", "beta", 3, {"state": "in service"})
    theirs = made("server/beta", "beta", 3, {"state": "drained"})
    result = absorb({mine.key: mine}, [theirs], SERVERS)
    assert result.records == {mine.key: mine}
    assert result.changed == ()
    assert len(result.alarms) == 1
    assert "two different records server/beta of version 3" in result.alarms[0]
    newer = made("server/beta", "beta", 4, {"state": "drained"})
    solved = absorb(result.records, [newer], SERVERS)
    assert solved.records == {mine.key: newer}
    assert solved.alarms == ()


def test_two_servers_publishing_apart_is_the_same_alarm() -> None:
    mine = made("image/console", "alpha", 2, {"digest": "a"})
    theirs = made("image/console", "beta", 2, {"digest": "b"})
    result = absorb({mine.key: mine}, [theirs], SERVERS)
    assert result.records[mine.key] is mine
    assert "written by alpha and beta" in result.alarms[0]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (Record("server/alpha", "beta", 1, "{}"), "comes as written by beta"),
        (Record("server/mallory", "mallory", 1, "{}"), "no server of this site"),
        (Record("homes/alpha", "alpha", 1, "{}"), "no record that this version knows"),
        (Record("server/", "alpha", 1, "{}"), "no record that this version knows"),
        (Record("server/alpha", "alpha", 0, "{}"), "impossible version"),
        (Record("server/alpha", "alpha", 2**63, "{}"), "impossible version"),
        (Record("guests/alpha", "alpha", 1, "x" * 2_000_000), "too large"),
    ],
)
def test_what_no_owner_wrote_is_refused(record: Record, why: str) -> None:
    result = absorb({}, [record], SERVERS)
    assert result.records == {}
    assert why in result.alarms[0]


def test_their_number_is_bounded() -> None:
    many = [made(f"image/i{n}", "alpha", 1, {}) for n in range(records.MAX_RECORDS + 50)]
    result = absorb({}, many, SERVERS)
    assert len(result.records) == records.MAX_RECORDS
    assert len(result.alarms) == 50


def test_writing_the_same_again_changes_nothing() -> None:
    first = records.write({}, "server/alpha", "alpha", {"b": 1, "a": 2})
    assert first["server/alpha"].version == 1
    assert records.write(first, "server/alpha", "alpha", {"a": 2, "b": 1}) is first
    second = records.write(first, "server/alpha", "alpha", {"a": 3})
    assert second["server/alpha"].version == 2
    assert first["server/alpha"].version == 1


@given(history=histories)
def test_they_survive_being_stored_and_sent(history: dict[tuple[str, str], list[int]]) -> None:
    held = apply({}, [written(history)])
    text = json.dumps(records.to_json(held))
    back = {record.key: record for record in records.from_json(json.loads(text))}
    assert back == held


@given(
    content=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_anything_at_all_is_records_or_a_value_error(content: object) -> None:
    try:
        found = records.from_json(content)
    except ValueError:
        return
    assert all(isinstance(record, Record) for record in found)
