"""What an apply leaves in writing: what it owns, a journal while it runs, a receipt at its end.

The journal and the receipts are for people. What a killed apply left undone is known from
``owned.json`` and the facts alone, so a journal that cannot be written (a full disk) spoils
nothing once files are being swapped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from ets import paths
from ets.errors import HostError
from ets.host.transport import Host
from ets.plan import owned as ownership
from ets.plan.diff import Step
from ets.plan.owned import Owned
from ets.plan.plan import Plan

JOURNALS_KEPT = 50

Clock = Callable[[], datetime]


def now() -> datetime:
    """The time, UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one apply did. ``path`` is where it lies on the server, ``failures`` what went wrong
    with single units after the files were in place, ``notes`` what else a person should know;
    ``resumed`` is the id of the interrupted plan that this one followed."""

    path: str
    plan: Plan
    steps: tuple[Step, ...]
    started: str
    finished: str
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    resumed: str = ""


def read_owned(host: Host) -> Owned:
    """What ETS owns on ``host``. Raises PlanError when the record is damaged."""
    return ownership.loads(host.read(str(paths.OWNED)), where=str(paths.OWNED))


def write_owned(host: Host, owned: Owned) -> None:
    """Replace the record atomically. Raises HostError."""
    host.write(str(paths.OWNED), ownership.dumps(owned), mode=0o600)


class Journal:
    """JSON lines in ``/var/lib/ets/journal``, each on the disk before the next thing is done."""

    def __init__(self, host: Host, plan: Plan, clock: Clock) -> None:
        self._host = host
        self._clock = clock
        stamp = clock().strftime("%Y%m%dT%H%M%SZ")
        self.path = str(paths.JOURNAL / f"{stamp}-{plan.id}.jsonl")
        #: the first error of a line that could not be written
        self.trouble: HostError | None = None
        #: set once files are being swapped: from then on a journal that fails stops nothing
        self.lenient = False

    def note(self, event: str, **data: object) -> None:
        """Write one line. Raises HostError unless ``lenient``."""
        line = {"time": self._clock().isoformat(timespec="milliseconds"), "event": event, **data}
        try:
            self._host.append(self.path, json.dumps(line, sort_keys=True).encode() + b"\n")
        except HostError as error:
            self.trouble = self.trouble or error
            if not self.lenient:
                raise

    def prune(self) -> None:
        """Remove the oldest journals but the last ones."""
        folder = str(paths.JOURNAL)
        for name in self._host.names(folder)[:-JOURNALS_KEPT]:
            self._host.remove(f"{folder}/{name}")


def write_receipt(host: Host, receipt: Receipt) -> None:
    """Put a receipt where it belongs. Raises HostError."""
    plan = receipt.plan
    data = {
        "format": 1,
        "plan": plan.id,
        "server": plan.server,
        "site": plan.site,
        "ets": plan.ets,
        "planned": plan.created,
        "started": receipt.started,
        "finished": receipt.finished,
        "outcome": "failed" if receipt.failures else "applied",
        "resumed": receipt.resumed,
        "steps": [asdict(step) for step in receipt.steps],
        "failures": receipt.failures,
        "notes": receipt.notes,
    }
    content = json.dumps(data, sort_keys=True, indent=1).encode() + b"\n"
    host.write(receipt.path, content, mode=0o600)
