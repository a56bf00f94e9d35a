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
import shutil
import stat
import subprocess
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ets.clone import flags, listing, stream, view
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
from ets.host.atomic import write_atomic
from ets.host.run import run
from ets.host.transport import Wrap

#: bytes per second on the wire below which compressing (zstd, level 1) is faster than not, where
#: the primary has one or two processors, and where it has more
SLOW = (150e6, 400e6)
_PROBES = (4 << 20, 32 << 20)
#: seconds between two moments up to which everything is known to be on the disk
_CHECKPOINT = 15.0
#: passes before the last one, while everything goes on; the next is skipped after a small one
_PASSES = 3
_SMALL = 32 << 20

UNTAR = (
    "tar", "--extract", "--preserve-permissions", "--same-owner", "--numeric-owner", "--xattrs",
    "--xattrs-include=*", "--acls", "--delay-directory-restore", "--blocking-factor=512",
    "--warning=no-timestamp", "--file=-",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` bytes of this stage; ``rate`` in bytes per second, ``left`` in seconds."""

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
        copy = _Copy(link, into, view.Excludes(exclude), compress, events)
        copy.first()
        for _ in range(_PASSES):
            if copy.ask("changed", "what changed meanwhile") < _SMALL:
                break
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
    with tempfile.TemporaryFile() as said, subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, start_new_session=True
    ) as process:
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
        excludes: view.Excludes,
        compress: bool | None,
        events: Events,
    ) -> None:
        self._link = link
        self._into = into
        self._excludes = excludes
        self._events = events
        self._marker = Marker(into)
        self.written = self.files = 0
        self.paused = 0.0
        self.method = ""
        self.notes: list[str] = []
        self.unread: list[str] = []
        hello = self._news()
        self.notes += hello["notes"]
        self._cpus = int(hello["cpus"])
        self._compress = compress

    def first(self) -> None:
        """Everything into an empty directory, or what is missing in one that is not."""
        there = self._there()
        with self._marker.kept():
            blank = not there.entries.keys() - {b""}
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

    def ask(self, order: str, stage: str) -> int:
        """Give an order and take what comes; how many bytes it was."""
        self._order(order)
        show = _Meter(stage, self._events)
        taker: Unpacker | None = None
        try:
            while True:
                kind, length = self._link.receiver.head()
                if kind == DATA:
                    taker = taker or Unpacker(self._into, show, compressed=bool(self._compress))
                    taker.feed(self._link.receiver, length)
                elif kind == NEWS:
                    news = self._link.receiver.json(length)
                    show.total = news["bytes"]
                    self.files = max(self.files, news["files"])
                elif kind == REMOVE:
                    remove(self._into, self._link.receiver.take(length).split(b"\0")[:-1])
                elif kind == RESET:
                    reset(self._into, self._link.receiver.take(length).split(b"\0")[:-1])
                elif kind == END:
                    end = self._ended(length)
                    break
                elif kind != ALIVE:
                    raise CloneError("the primary sends something that is no copy")
            complaints = taker.close() if taker else []
        except BaseException:
            if taker:
                taker.kill()
            raise
        self._judge(order, end, complaints)
        self.written += show.done
        return show.done

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


class Unpacker:
    """tar, and zstd before it, writing into a directory; what it complains about is watched."""

    def __init__(self, into: Path, show: _Meter, *, compressed: bool) -> None:
        self._show = show
        self._tar = subprocess.Popen(
            [*UNTAR, "-C", str(into)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        if self._tar.stdin is None or self._tar.stderr is None:
            raise CloneError("tar has no pipes")
        self._stdin, self._stderr = self._tar.stdin, self._tar.stderr
        stream.widen(self._stdin.fileno())
        self._said: list[str] = []
        self.full = False
        self._watch = threading.Thread(target=self._listen, daemon=True)
        self._watch.start()
        argv = ["zstd", "--decompress", "--quiet", "--stdout"]
        self._zstd = stream.Filter(argv, self._stdin.fileno(), show.add) if compressed else None

    def feed(self, receiver: Receiver, length: int) -> None:
        """The next bytes of the stream."""
        try:
            receiver.pass_to((self._zstd or self._stdin).fileno(), length)
        except (BrokenPipeError, EOFError):
            self._explain()
        if self.full:
            self._explain()
        if self._zstd is None:
            self._show.add(length)

    def close(self) -> list[str]:
        """Wait until everything is written; what tar complained about."""
        status = self._zstd.close() if self._zstd else 0
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        tar = self._tar.wait()
        self._watch.join()
        if self.full or status != 0:
            self._explain()
        if tar != 0 and not self._said:
            return [f"tar ended with status {tar}"]
        return self._said

    def kill(self) -> None:
        """Stop at once."""
        self._tar.kill()
        if self._zstd:
            self._zstd.kill()
        self._tar.wait()

    def _listen(self) -> None:
        for line in self._stderr:
            words = line.decode(errors="replace").strip()
            if "No space left on device" in words or "Disk quota exceeded" in words:
                self.full = True
            if len(self._said) < 20 and "Exiting with failure status" not in words:
                self._said.append(words)

    def _explain(self) -> None:
        if self.full:
            raise CloneError(
                "the disk of the new server is full",
                hint="it needs a larger one; what was copied is kept and counts at the next try",
            )
        raise CloneError(
            f"what came could not be written: {'; '.join(self._said[:3]) or 'tar ended'}"
        )


class _Meter:
    """Counts bytes and tells how fast they come, twice a second."""

    def __init__(self, stage: str, events: Events) -> None:
        self._stage = stage
        self._events = events
        self._began = self._told = time.monotonic()
        self.total = self.done = 0

    def add(self, count: int) -> None:
        """So many more."""
        self.done += count
        now = time.monotonic()
        if now - self._told >= 0.5:
            self._told = now
            rate = self.done / (now - self._began)
            total = max(self.total, self.done)
            self._events(Progress(self._stage, self.done, total, rate, (total - self.done) / rate))


MARKER = ".ets-copying"


class Marker:
    """A file in the target while it is being copied: up to which moment everything written there
    is known to be on the disk, and in which run of the machine."""

    def __init__(self, into: Path) -> None:
        self._path = into / MARKER
        self._into = into
        self._boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._offset = time.time() - time.monotonic()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep it while the work inside goes on."""
        self._write(self._safe())
        over = threading.Event()

        def keep() -> None:
            while not over.wait(_CHECKPOINT):
                now = time.time_ns()
                # a clock that was set meanwhile says nothing about files from before
                if abs(time.time() - time.monotonic() - self._offset) < 1:
                    listing.settle(self._into)
                    self._write(now)

        thread = threading.Thread(target=keep, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def trusted(self, there: listing.Listing, digests: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """``digests`` without those of files that a power cut may have taken the content of."""
        about = self._read()
        if about is None or about.get("boot") == self._boot:
            return digests
        safe = int(about.get("safe", 0))
        entries = there.entries
        return {
            path: digest[:1] + bytes(8)
            if digest[:1] == b"f" and listing.parse(entries[path]).ctime >= safe
            else digest
            for path, digest in digests.items()
        }

    def remove(self) -> None:
        """The copy is whole."""
        about = self._into.stat()
        self._path.unlink(missing_ok=True)
        os.utime(self._into, ns=(about.st_atime_ns, about.st_mtime_ns))

    def _safe(self) -> int:
        about = self._read()
        return int(about.get("safe", 0)) if about and about.get("boot") == self._boot else 0

    def _read(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self._path.read_bytes()))
        except (OSError, ValueError):
            return None

    def _write(self, safe: int) -> None:
        with contextlib.suppress(Exception):
            content = json.dumps({"boot": self._boot, "safe": safe}).encode()
            write_atomic(self._path, content, mode=0o600)


def remove(into: Path, paths: Sequence[bytes]) -> None:
    """Remove these from the target, whatever they are there; links are not followed."""
    base = os.fsencode(into)
    real: dict[bytes, bool] = {b"": True}

    def is_real(folder: bytes) -> bool:
        if folder not in real:
            above = is_real(os.path.dirname(folder))
            real[folder] = above and _is_directory(base + b"/" + folder)
        return real[folder]

    for path in paths:
        if path and is_real(os.path.dirname(path)):
            whole = base + b"/" + path
            with contextlib.suppress(FileNotFoundError):
                if _is_directory(whole):
                    shutil.rmtree(whole)
                else:
                    os.unlink(whole)


def reset(into: Path, paths: Sequence[bytes]) -> None:
    """Take away the attributes of these directories, which are written again after it."""
    base = os.fsencode(into)
    for path in paths:
        whole = base + b"/" + path
        with contextlib.suppress(OSError):
            for name in os.listxattr(whole, follow_symlinks=False):
                os.removexattr(whole, name, follow_symlinks=False)


def _is_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
