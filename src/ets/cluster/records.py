"""The runtime state of a site: small records, each with one owner, that every agent holds.

An owner raises the version with every change; everybody else copies. Invariants:

1. a record changes only to a higher version, and only as its owner wrote it;
2. exchanging records in any order, any number of times, over any peers, ends in the same state;
3. two different records of one version are an alarm. Neither replaces the other and nothing is
   merged: both stay where they are until the owner writes the next version.

Kinds, by the first part of the key:

``server/NAME``   state of the server: {"state": "in service" | "drained" | "joining"}; owner NAME
``guests/NAME``   guests with an address of NAME's slice; owner NAME
``renewed/NAME``  guests of other slices that hold a lease of NAME; owner NAME
``keys/NAME``     the certificate of the server: {"serial"}, so that it can be revoked when the
                  server is lost; owner NAME
``join/NAME``     a join of NAME that is open (see ``ets.cluster.newcomers``), or {} when none is;
                  owner the server that takes it
``crl/site``      revoked certificates: {"pem"}; the version is the list's number, the owner the
                  server where it was signed. Nobody takes one that the site's CA did not sign
``image/NAME``    which image is published under NAME: {"digest", "previous"}; the version is the
                  generation, the owner the server where it was published
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ets.cluster.heartbeat import fingerprint as _fingerprint

MAX_BODY = 1_000_000
MAX_RECORDS = 512
OWNED_KINDS = ("server", "guests", "renewed", "keys")
KINDS = (*OWNED_KINDS, "image", "join", "crl")


@dataclass(frozen=True, slots=True)
class Record:
    """One record. ``body`` is canonical JSON (sorted keys, compact), so equal means equal text."""

    key: str
    owner: str
    version: int
    body: str

    @property
    def value(self) -> object:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Absorbed:
    """The records after an exchange, the keys that changed, and what is wrong, in words."""

    records: Mapping[str, Record]
    changed: tuple[str, ...]
    alarms: tuple[str, ...]


def canonical(value: object) -> str:
    """The one way to write ``value`` as JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def made(key: str, owner: str, version: int, value: object) -> Record:
    """A record of a value."""
    return Record(key, owner, version, canonical(value))


def write(held: Mapping[str, Record], key: str, owner: str, value: object) -> Mapping[str, Record]:
    """The owner's change: ``held`` with ``key`` at the next version, or ``held`` itself when the
    value is what it was."""
    body = canonical(value)
    old = held.get(key)
    if old is not None and old.body == body and old.owner == owner:
        return held
    version = 1 if old is None else old.version + 1
    return {**held, key: Record(key, owner, version, body)}


def fault(record: Record, servers: Collection[str]) -> str | None:
    """What is wrong with a record that a peer sent, or None when it may be absorbed."""
    kind, _, name = record.key.partition("/")
    if kind not in KINDS or not name or len(record.key) > 200:
        return f"{record.key[:80]!r} is no record that this version knows"
    if record.owner not in servers:
        return f"{record.key} belongs to {record.owner[:80]!r}, which is no server of this site"
    if kind in OWNED_KINDS and record.owner != name:
        return f"{record.key} belongs to {name}, but comes as written by {record.owner}"
    if not 0 < record.version < 2**62:
        return f"{record.key} has the impossible version {record.version}"
    if len(record.body) > MAX_BODY:
        return f"{record.key} is too large ({len(record.body)} bytes)"
    return None


def absorb(
    held: Mapping[str, Record], incoming: Iterable[Record], servers: Collection[str]
) -> Absorbed:
    """Take over what is newer; see the invariants above. ``servers`` are the site's names."""
    records = dict(held)
    changed: list[str] = []
    alarms: list[str] = []
    for record in incoming:
        wrong = fault(record, servers)
        mine = records.get(record.key)
        if wrong is None and mine is None and len(records) >= MAX_RECORDS:
            wrong = f"more than {MAX_RECORDS} records; {record.key} is left out"
        if wrong is not None:
            alarms.append(wrong)
        elif mine is None or record.version > mine.version:
            records[record.key] = record
            changed.append(record.key)
        elif record.version == mine.version and record != mine:
            alarms.append(_conflict(mine, record))
    return Absorbed(records, tuple(changed), tuple(alarms))


def _conflict(mine: Record, theirs: Record) -> str:
    owners = " and ".join(sorted({mine.owner, theirs.owner}))
    return (
        f"two different records {mine.key} of version {mine.version}, written by {owners}:"
        f" neither is followed until a newer one is written"
    )


def versions(held: Mapping[str, Record]) -> str:
    """A fingerprint: two agents with the same one need not talk."""
    return _fingerprint({key: record.version for key, record in held.items()})


def to_json(held: Mapping[str, Record]) -> list[dict[str, object]]:
    """As they are stored and sent: a list sorted by key."""
    return [
        {"key": r.key, "owner": r.owner, "version": r.version, "value": r.value}
        for _, r in sorted(held.items())
    ]


def from_json(content: object) -> list[Record]:
    """The records in what ``to_json`` made. Raises ValueError for anything else."""
    if not isinstance(content, list) or len(content) > MAX_RECORDS:
        raise ValueError("not a list of records")
    found = []
    for item in content:
        if not isinstance(item, dict) or set(item) != {"key", "owner", "version", "value"}:
            raise ValueError("a record needs key, owner, version and value, and nothing else")
        key, owner, version = item["key"], item["owner"], item["version"]
        if not (isinstance(key, str) and isinstance(owner, str) and type(version) is int):
            raise ValueError("a record's key and owner are texts, its version a whole number")
        try:
            found.append(made(key, owner, version, item["value"]))
        except RecursionError as error:
            raise ValueError("a record is nested too deeply") from error
    return found
