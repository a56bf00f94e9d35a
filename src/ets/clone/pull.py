"""The target's end of a copy: everything, or what an earlier copy lacks, then what changed
meanwhile, then the state of one moment.

Invariants: killed at any point and called again, it continues and ends equal; a file counts as
there only when its size, time and every attribute are right, and, after a power cut, when it had
reached the disk before. Nothing on the target is written outside ``into``.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ets.clone import flags, listing, stream, view
from ets.clone.archive import ACLS, Unpacker, remove, reset
from ets.clone.marker import MARKER, Marker
from ets.clone.stream import (
    ALIVE,
    DATA,
    END,
    FLAGS,
    HAVE,
    NEWS,
    ORDER,
    REMOVE,
    RESET,
    Receiver,
    Sender,
)
from ets.errors import CloneError
from ets.host.run import run
from ets.host.transport import Wrap

#: bytes per second on the wire below which compressing (zstd, level 1) is faster than not, where
#: the primary has one or two processors, and where it has more
SLOW = (150e6, 400e6)
_PROBES = (4 << 20, 32 << 20)
#: passes before the last one, while everything goes on, and the seconds of a pass in which so
#: little changes that none is needed
_PASSES = 3
_SHORT = 20.0


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` bytes of this stage, ``rate`` bytes per second, ``left`` seconds."""

    stage: str
    done: int
    total: int
    rate: float
    left: float | None
    path: str = ""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy was: ``bytes`` written here, ``wire`` received, ``paused`` seconds of silence on
    the primary, ``method`` of the first pass; ``notes`` are for people."""

    bytes: int
    wire: int
    seconds: float
    files: int
    paused: float
    method: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What there is to copy: ``needed`` bytes on a disk, ``files`` of all kinds, ``method`` of the
    last pass; ``site`` is the text of the site file, empty when there is none, ``cards`` the MACs
    of its network cards by name."""

    server: str
    site: str
    needed: int
    files: int
    method: str
    notes: tuple[str, ...] = ()
    cards: Mapping[str, str] = field(default_factory=dict)


Events = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """An ``Events`` that shows nothing."""


def facts(wrap: Wrap) -> SourceFacts:
    """Ask the primary what there is to copy. Raises CloneError, HostError."""
    answer = json.loads(run(wrap(["ets", "clone", "facts"]), deadline=600).stdout)
    return SourceFacts(**{**answer, "notes": tuple(answer.get("notes", ()))})


def facts_json(found: SourceFacts) -> str:
    """``found`` as ``facts`` reads it."""
    return json.dumps(asdict(found))


def pull(
    wrap: Wrap,
    into: Path,
    *,
    exclude: Sequence[str] = (),
    compress: bool | None = None,
    events: Events = silent,
    final: bool = True,
    source: str = "/",
) -> Copied:
    """Copy the server behind ``wrap`` into the directory ``into``.

    What is there already, from an earlier copy, is brought up to date; what does not belong there
    is removed, but for what is left out of copies. ``compress`` None: measured. Without ``final``
    nothing is stopped on the primary and the copy is of no single moment. Raises CloneError, also
    when either end's disk is full; then, or when killed, call it again.
    """
    began = time.monotonic()
    argv = [
        "ets",
        "clone",
        "send",
        f"--source={source}",
        *(f"--exclude={path}" for path in exclude),
    ]
    with connected(wrap(argv)) as link:
        copy = _Copy(link, into, exclude, compress, events)
        copy.first()
        for _ in range(_PASSES):
            if final and copy.last_pass < _SHORT:
                break
            copy.ask("changed", "what changed meanwhile")
        if final:
            copy.ask("final", "the last changes")
        copy.flags()
        copy.over()
    return Copied(
        copy.written, link.receiver.got, time.monotonic() - began, copy.files, copy.paused,
        copy.method, tuple(copy.notes),
    )  # fmt: skip


@dataclass(slots=True)
class Link:
    """The connection: both ends of it, and what the primary's side said on standard error."""

    receiver: Receiver
    sender: Sender


@contextlib.contextmanager
def connected(argv: list[str]) -> Iterator[Link]:
    """A running ``ets clone send``. Raises CloneError with what it said when it fails."""
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, start_new_session=True
        ) as process,
    ):
        if process.stdin is None or process.stdout is None:
            raise CloneError("there is no connection")
        try:
            yield Link(Receiver(process.stdout.fileno()), Sender(process.stdin.fileno()))
            process.stdin.close()
            process.wait(30)
        except BaseException as error:
            process.kill()
            process.wait()
            said.seek(0)
            words = said.read()[-2000:].decode(errors="replace").strip()
            if isinstance(error, (CloneError, BrokenPipeError)) and words:
                message = getattr(error, "message", "the connection to the primary broke")
                hint = getattr(error, "hint", "")
                raise CloneError(f"{message}: {words}", hint=hint) from error
            raise


class _Copy:
    """One call of ``pull``."""

    def __init__(
        self,
        link: Link,
        into: Path,
        exclude: Sequence[str],
        compress: bool | None,
        events: Events,
    ) -> None:
        self._link = link
        self._into = into
        self._events = events
        self._marker = Marker(into)
        self.written = self.files = 0
        self.last_pass = 0.0
        self.paused = 0.0
        self.method = ""
        self.notes: list[str] = []
        self.unread: list[str] = []
        hello = self._news()
        self.notes += hello["notes"]
        self._excludes = view.Excludes([*exclude, *hello["exclude"]])
        self._cpus = int(hello["cpus"])
        self._compress = compress

    def first(self) -> None:
        """Everything into an empty directory, or what is missing in one that is not."""
        with self._marker.kept():
            there = self._there()
            blank = all(value.startswith(b"d") for value in there.entries.values())
            if self._compress is None:
                self._compress = self._is_slow(_PROBES if blank else _PROBES[:1])
            if blank:
                self.method = "all"
                self.ask("all", "everything")
                return
            self.method = "missing"
            flags.clear(self._into, there.entries)
            known = self._marker.trusted(there, listing.portable(there, self._into))
            packed = zlib.compress(listing.pack(known), 1)
            self._link.sender.send(HAVE, packed)
            self.ask("missing", "what is missing")

    def ask(self, order: str, stage: str) -> None:
        """Give an order and take what comes."""
        began = time.monotonic()
        self._order(order)
        show = _Meter(stage, self._events)
        options = () if order == "all" else (ACLS,)
        with contextlib.ExitStack() as stack:

            def unpacker() -> Unpacker:
                compressed = bool(self._compress)
                return stack.enter_context(
                    Unpacker(self._into, show.add, *options, compressed=compressed)
                )

            end, taker = self._take(show, unpacker)
        self._judge(order, end, taker.said if taker else [])
        self.written += show.done
        self.last_pass = time.monotonic() - began

    def _take(
        self, show: _Meter, unpacker: Callable[[], Unpacker]
    ) -> tuple[dict[str, Any], Unpacker | None]:
        """One pass, to its end."""
        link, taker = self._link.receiver, None
        while True:
            kind, length = link.head()
            if kind == DATA:
                taker = taker or unpacker()
                taker.feed(link, length)
            elif kind == NEWS:
                news = link.json(length)
                show.total = news["bytes"]
                self.files = max(self.files, news["files"])
            elif kind == REMOVE:
                remove(self._into, link.take(length).split(b"\0")[:-1])
            elif kind == RESET:
                reset(self._into, link.take(length).split(b"\0")[:-1])
            elif kind == END:
                return self._ended(length), taker
            elif kind != ALIVE:
                raise CloneError("the primary sends something that is no copy")

    def _judge(self, order: str, end: Mapping[str, Any], complaints: list[str]) -> None:
        """In passes while everything goes on something may go wrong; what the last one lacks is
        lacking."""
        unread = end.get("unread", [])
        if order == "final":
            self.paused = end["paused"]
            self.notes += end["notes"]
            if not end["stopped"]:
                self.notes.append("nothing had to be stopped on the primary")
        if order != "all" and (unread or complaints):
            what = "; ".join([*unread, *complaints][:3])
            raise CloneError(
                f"not everything could be copied: {what}",
                hint="look at these files on the primary (is its disk well?), or leave them out: "
                "[clone] exclude",
            )
        self.unread += unread

    def flags(self) -> None:
        """Files' flags (chattr), last of all, for they may forbid everything else."""
        self._order("flags")
        wanted: dict[bytes, int] = {}
        while True:
            kind, length = self._link.receiver.head()
            if kind == FLAGS:
                for line in self._link.receiver.take(length).split(b"\0")[:-1]:
                    value, _, path = line.partition(b" ")
                    wanted[path] = int(value, 16)
            elif kind == END:
                self._ended(length)
                break
        failed = flags.apply(self._into, wanted)
        if failed:
            named = ", ".join(os.fsdecode(path) for path in failed[:3])
            self.notes.append(f"{len(failed)} files lost their flags (chattr): {named}")

    def over(self) -> None:
        """Nothing is missing any more."""
        self._marker.remove()

    def _there(self) -> listing.Listing:
        """What lies in the target already, without what is left out of copies and the target's
        own mounts."""
        prune = [*self._excludes.prune, b"/" + os.fsencode(MARKER), b"/lost+found"]
        prune += [os.fsencode(point) for point in mounted_in(self._into)]
        return listing.scan(self._into, self._excludes.keep, prune)

    def _order(self, do: str, **more: Any) -> None:
        self._link.sender.tell(ORDER, do=do, compress=bool(self._compress), **more)

    def _news(self) -> dict[str, Any]:
        while True:
            kind, length = self._link.receiver.head()
            if kind == NEWS:
                return self._link.receiver.json(length)
            if kind == END:
                self._ended(length)

    def _ended(self, length: int) -> dict[str, Any]:
        end = self._link.receiver.json(length)
        if "error" in end:
            raise CloneError(end["error"], hint=end.get("hint", ""))
        return end

    def _is_slow(self, probes: Sequence[int]) -> bool:
        """Would compressing win on this wire?"""
        limit, rate = SLOW[self._cpus > len(SLOW)], 0.0
        for size in probes:
            self._order("probe", bytes=size)
            began = time.monotonic()
            while (head := self._link.receiver.head())[0] != END:
                for _ in range(0, head[1], stream.PIPE):
                    self._link.receiver.take(min(stream.PIPE, head[1]))
            self._ended(head[1])
            rate = size / (time.monotonic() - began)
            if rate < limit / 2:
                break
        return rate < limit


def mounted_in(into: Path) -> list[str]:
    """Where file systems that no copy goes to (the firmware's, the kernel's) are mounted below
    ``into``, seen from there."""
    top = str(into.resolve())
    mounts = view.parse_mounts(Path("/proc/self/mountinfo").read_text())
    return [
        mount.point[len(top) :]
        for mount in mounts
        if mount.point.startswith(top + "/") and mount.type not in view.DISKS
    ]


class _Meter:
    """Counts bytes and tells how fast they come, twice a second."""

    def __init__(self, stage: str, events: Events) -> None:
        self._stage = stage
        self._events = events
        self._began, self._told = time.monotonic(), 0.0
        self.total = self.done = 0

    def add(self, count: int) -> None:
        """So many more."""
        self.done += count
        now = time.monotonic()
        if now - self._told >= 0.5:
            self._told = now
            rate = self.done / max(now - self._began, 0.001)
            total = max(self.total, self.done)
            self._events(Progress(self._stage, self.done, total, rate, (total - self.done) / rate))
