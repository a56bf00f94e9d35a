"""The runtime records of this server: in memory, on the disk, and what is wrong with them.

Invariant: a version that anyone else has seen is on the disk. So an agent that is killed at any
moment cannot give one version number to two different contents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import structlog

from ets.cluster import records
from ets.cluster.records import Record
from ets.errors import HostError
from ets.host.atomic import write_atomic

log = structlog.get_logger("ets.agent.state")
MAX_ALARMS = 50
#: seconds for which an alarm is shown: what happened once, what is found anew while it lasts
EVENT = 86400.0
STANDING = 60.0


class Alarms:
    """What a person must look at: each once, at most ``MAX_ALARMS``, for as long as it holds.

    ``keep`` seconds after it was last raised, an alarm is gone: long for what happened once,
    short for what is found again and again while it lasts.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float, int]] = {}

    def raise_(self, text: str, now: float, keep: float) -> None:
        """Note an alarm; it is logged the first time."""
        first, _, times = self._seen.pop(text, (now, 0.0, 0))
        if times == 0:
            log.error("alarm", text=text)
        self._seen[text] = (first, now + keep, times + 1)
        while len(self._seen) > MAX_ALARMS:
            del self._seen[next(iter(self._seen))]

    def standing(self, now: float) -> list[dict[str, object]]:
        """The alarms that hold at ``now``: text, since when, how often raised."""
        for text in [text for text, (_, end, _) in self._seen.items() if end < now]:
            del self._seen[text]
        return [
            {"text": text, "since": since, "times": times}
            for text, (since, _, times) in self._seen.items()
        ]


class State:
    """The records, persisted in ``directory``/records.json, and the number of this start."""

    def __init__(
        self,
        directory: Path,
        me: str,
        servers: Collection[str],
        *,
        clock: Callable[[], float],
    ) -> None:
        """Read what is there; a damaged file is put aside, not overwritten, and alarmed.

        Raises HostError when ``directory`` cannot be written.
        """
        self.me = me
        self.servers = tuple(servers)
        self.alarms = Alarms()
        self._clock = clock
        self._file = directory / "records.json"
        self._held: Mapping[str, Record] = {}
        self.start = self._next_start(directory / "start")
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            content = b"[]"
        except OSError as error:
            raise HostError(f"cannot read {self._file}: {error.strerror}") from error
        try:
            found = records.from_json(json.loads(content))
            self._held = records.absorb({}, found, self.servers).records
        except (ValueError, RecursionError) as error:
            aside = self._file.with_name("records.json.damaged")
            self._file.replace(aside)
            self.alarm(f"the runtime state was damaged ({error}); it is kept in {aside}")
        self.version = records.versions(self._held)

    @property
    def held(self) -> Mapping[str, Record]:
        """All records by key. Never changed in place: a change makes a new mapping."""
        return self._held

    def alarm(self, text: str, *, keep: float = EVENT) -> None:
        """Note something that a person must look at, for ``keep`` seconds."""
        self.alarms.raise_(text, self._clock(), keep)

    def value(self, key: str) -> object:
        """The value of a record, or None."""
        record = self._held.get(key)
        return None if record is None else record.value

    def write(self, key: str, value: object) -> bool:
        """Change a record of this server; true when it was a change, which is then on the disk.

        Raises HostError when it cannot be stored: nothing has changed then.
        """
        return self._keep(records.write(self._held, key, self.me, value))

    def put(self, record: Record) -> bool:
        """Store a record whose version is given from outside (an image's generation)."""
        old = self._held.get(record.key)
        if old is not None and record.version <= old.version:
            return False
        return self._keep({**self._held, record.key: record})

    def absorb(self, incoming: Iterable[Record]) -> tuple[str, ...]:
        """Take over what peers wrote; the keys that changed. Raises HostError as ``write``."""
        result = records.absorb(self._held, incoming, self.servers)
        for text in result.alarms:
            self.alarm(text, keep=STANDING)
        self._keep(result.records)
        return result.changed

    def _keep(self, held: Mapping[str, Record]) -> bool:
        if held is self._held or held == self._held:
            return False
        body = json.dumps(records.to_json(held), separators=(",", ":")).encode() + b"\n"
        write_atomic(self._file, body, mode=0o600)
        self._held = held
        self.version = records.versions(held)
        return True

    def _next_start(self, file: Path) -> int:
        """A number that rises with every start: the clock where that is higher than the last
        one, so that a server whose disk is new is not taken for a replay of its old self."""
        try:
            last = int(file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            last = 0
        start = max(last + 1, int(self._clock())) if last < 2**61 else last
        write_atomic(file, b"%d\n" % start, mode=0o600)
        return start
