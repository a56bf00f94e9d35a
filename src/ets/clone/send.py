"""The primary's end of a copy: one process for one target, which it serves until that goes away.

It holds a listing of what the target has been given, so that each pass is only what changed since,
and the last one, in a short silence (``quiesce``), leaves the target with the state of one moment.
Nothing is kept anywhere else: when this process ends, the primary is as if it had never been.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import tomllib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ets import paths
from ets.clone import databases, flags, listing, quiesce, stream
from ets.clone import view as views
from ets.clone.archive import ACLS, HEADER, Packer, names, take_out
from ets.clone.disks import parse_nics
from ets.clone.listing import Delta, Listing
from ets.clone.pull import SourceFacts
from ets.clone.snapshot import points, possible, snapshots
from ets.clone.stream import DATA, END, FLAGS, HAVE, NEWS, ORDER, REMOVE, RESET, Receiver, Sender
from ets.clone.survey import Survey, Tell
from ets.errors import CloneError, EtsError
from ets.host.run import run

#: seconds of silence at most, in the first and in the second attempt
LIMITS = (5.0, 10.0)
#: seconds after which a target that says nothing counts as gone
_STALL = 900.0

_ZSTD = ("zstd", "-1", "--threads=0", "--quiet", "--stdout")


class Session:
    """Everything that one target is given. ``source`` is what is copied, normally ``/``."""

    def __init__(self, source: str, exclude: Sequence[str], sender: Sender) -> None:
        self._source = source.rstrip("/")
        self._exclude = (*exclude, *site_excludes(Path(source)))
        self._excludes = views.Excludes(self._exclude)
        self._out = sender
        self._view = views.enter(source)
        self._base = self._last = Listing({})
        self._survey = Survey(self._scan)
        self._packed = b""
        self._flags: dict[bytes, int] = {}
        self._reader = threading.Thread(target=self._read_flags, daemon=True)

    def begin(self) -> dict[str, Any]:
        """What the target has to know at once."""
        cpus = os.cpu_count() or 1
        return {"cpus": cpus, "exclude": self._exclude, "notes": list(self._view.notes)}

    @property
    def method(self) -> str:
        """How the last pass comes to be of one moment: ``btrfs`` (snapshots) or ``passes``."""
        return "btrfs" if possible(self._view, self._base) else "passes"

    def listed(self) -> Listing:
        """The first listing, once it is there."""
        with self._out.alive():
            self._base = self._survey.result()
        return self._base

    def orders(self, receiver: Receiver) -> Iterator[Mapping[str, Any]]:
        """The target's orders, until it goes away; before one there may be what it has already."""
        while True:
            try:
                kind, length = receiver.head()
            except CloneError:
                return
            if kind == HAVE:
                self._packed += receiver.take(length)
            elif kind == ORDER:
                yield receiver.json(length)
                self._packed = b""
            else:
                raise CloneError("an order was expected")

    def obey(self, order: Mapping[str, Any]) -> None:
        """Do what the target asks for; it ends with one frame that says how it went."""
        compress = bool(order.get("compress"))
        match order.get("do"):
            case "probe":
                self._out.send(DATA, bytes(min(int(order.get("bytes", 0)), 1 << 28)))
                self._out.tell(END)
            case "all":
                self._all(compress)
            case "missing":
                self._missing(compress)
            case "changed":
                self._changed(compress)
            case "final":
                self._final(compress)
            case "flags":
                self._give_flags()
            case other:
                raise CloneError(f"there is no order {other!r}")

    def _scan(self, tell: Tell | None = None) -> Listing:
        for point in ("", *points(self._view)):
            listing.settle(self._view.root / point.lstrip("/"))
        return listing.scan(self._view.root, self._excludes.keep, self._excludes.prune, tell)

    def _all(self, compress: bool) -> None:
        """Everything, sent while it is still being listed."""
        self._out.tell(NEWS, files=0, bytes=0)
        root = self._view.root
        counter = threading.Thread(target=self._count, daemon=True)
        with self._out.alive(), Packer(root, self._survey.names(), "--create") as packer:
            counter.start()
            self._pass(packer.fileno(), compress)
        counter.join()
        self._out.tell(END, files=len(self.listed().entries), unread=packer.complaints)

    def _count(self) -> None:
        """Once all is listed: how much it is, and beside the sending, which leaves Python idle,
        what flags it has."""
        with contextlib.suppress(EtsError, OSError):  # whoever waits for the listing hears of it
            base = self._base = self._survey.result()
            size = base.content + HEADER * len(base.entries)
            self._out.tell(NEWS, files=len(base.entries), bytes=size)
            self._reader.start()

    def _missing(self, compress: bool) -> None:
        base = self.listed()
        self._reader.start()
        with self._out.alive():
            theirs = listing.unpack(zlib.decompress(self._packed))
            changed = listing.differing(listing.portable(base, self._view.root), theirs)
            kinds = {path: digest[:1] for path, digest in theirs.items()}
            what = listing.delta(base, changed, kinds)
        self._give(what, compress, ACLS)

    def _changed(self, compress: bool) -> None:
        with self._out.alive():
            new = self._scan()
            what = listing.compare(self._base, new)
        self._base = new
        self._give(what, compress, ACLS)

    def _final(self, compress: bool) -> None:
        """One state for all: put aside in silence, then sent while everything goes on."""
        with spool() as place:
            archive = place / "changed.tar"
            with self._out.alive():
                words, held, what, unread = self._put_aside(archive)
                self._base = self._last
                notes = [words] if words else []
                if held.late:
                    notes.append(f"did not stop in time: {', '.join(held.late)}")
                notes += self._mend(what, archive, place)
            self._announce(what, archive.stat().st_size)
            with subprocess.Popen(["cat", str(archive)], stdout=subprocess.PIPE) as cat:
                self._pass(cat.stdout.fileno() if cat.stdout else -1, compress)
        self._remember_flags(what)
        self._out.tell(
            END,
            files=what.files,
            unread=unread,
            paused=held.paused,
            stopped=held.units,
            notes=notes,
        )

    def _put_aside(self, archive: Path) -> tuple[str, quiesce.Silence, Delta, list[str]]:
        """What changed, of one moment. Raises CloneError when that would take too long."""
        for limit in LIMITS:
            with snapshots(self._view, self._base) as snapshot:
                with databases.still() as words, quiesce.silence(limit) as held:
                    if snapshot:
                        snapshot.take()
                    else:
                        what, unread = self._archive(self._view.root, archive)
                if snapshot:
                    what, unread = self._archive(snapshot.show(), archive)
            if not held.broken and not (held.late and limit < LIMITS[-1]):
                return words, held, what, unread
        raise CloneError(
            f"what changes on this server cannot be put aside within {LIMITS[-1]:g} s",
            hint="stop the service that writes most for as long as the copy takes, or leave its "
            "files out: [clone] exclude in the site file",
        )

    def _archive(self, root: Path, archive: Path) -> tuple[Delta, list[str]]:
        """What differs at ``root`` from what the target has."""
        new = listing.scan(root, self._excludes.keep, self._excludes.prune)
        what = listing.compare(self._base, new, self._restless(new))
        with archive.open("wb") as file:
            named = names(what.send)
            with Packer(root, named, "--create", ACLS, into=file) as packer:
                pass
        self._last = new
        return what, packer.complaints

    def _restless(self, new: Listing) -> set[bytes]:
        """Files that may change without their times telling."""
        top = os.fsencode(self._source + "/")
        found = {path[len(top) :] for path in databases.mapped() if path.startswith(top)}
        return found | {path for path in new.entries if path.endswith((b".tdb", b".ldb"))}

    def _mend(self, what: Delta, archive: Path, place: Path) -> list[str]:
        """Check the databases in ``archive``; what is torn is copied again by its own means."""
        found = databases.suspects(self._view.root, what.send)
        files = databases.with_sidecars(found, frozenset(what.send))
        if not files:
            return []
        check = place / "check"
        check.mkdir()
        take_out(archive, check, files)
        notes, mended = [], []
        for path, kind in found.items():
            copy, live = check / os.fsdecode(path), Path(f"{self._source}/{os.fsdecode(path)}")
            if not copy.exists() or databases.sound(copy, kind) is not False:
                continue
            if kind == "tdb" and databases.backup(live, copy):
                mended.append(path)
            else:
                notes.append(f"{live} does not pass its own check; look at it on both servers")
        if mended:
            with Packer(check, names(mended), "--append", f"--file={archive}"):
                pass
        return notes

    def _give(self, what: Delta, compress: bool, *options: str) -> None:
        """One pass while everything goes on."""
        values = (self._base.entries[path] for path in what.send)
        self._announce(what, sum(HEADER + listing.content(value) for value in values))
        with Packer(self._view.root, names(what.send), "--create", *options) as packer:
            self._pass(packer.fileno(), compress)
        self._remember_flags(what)
        self._out.tell(END, files=what.files, unread=packer.complaints)

    def _announce(self, what: Delta, size: int) -> None:
        self._out.tell(NEWS, files=what.files, bytes=size)
        self._out.paths(REMOVE, what.remove)
        self._out.paths(RESET, what.reset)

    def _pass(self, source: int, compress: bool) -> None:
        """Everything from the pipe ``source`` to the target."""
        stream.widen(source)
        if not compress:
            self._out.pump(source)
            return
        with subprocess.Popen(_ZSTD, stdin=source, stdout=subprocess.PIPE) as zstd:
            if zstd.stdout is None:
                raise CloneError("zstd has no output")
            try:
                stream.widen(zstd.stdout.fileno())
                self._out.pump(zstd.stdout.fileno())
            except BaseException:
                zstd.kill()
                raise
        if zstd.returncode != 0:
            raise CloneError(f"zstd ended with status {zstd.returncode}")

    def _read_flags(self) -> None:
        """Beside the sending, which leaves Python idle."""
        found = (path for path, value in self._base.entries.items() if value[:1] in b"fd")
        self._flags.update(flags.read(self._view.root, found))

    def _remember_flags(self, what: Delta) -> None:
        self._reader.join()
        for path in (*what.remove, *what.send):
            self._flags.pop(path, None)
        self._flags.update(flags.read(self._view.root, what.send))

    def _give_flags(self) -> None:
        with self._out.alive():
            self._reader.join()
        lines = tuple(b"%x %s" % (value, path) for path, value in self._flags.items())
        self._out.paths(FLAGS, lines)
        self._out.tell(END, files=len(lines))


@contextlib.contextmanager
def spool() -> Iterator[Path]:
    """A directory of the primary for what is put aside, away from what is copied. What an earlier
    process left there when it was killed is removed."""
    views.SPOOL.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in views.SPOOL.glob("pass-*"):
        if not Path(f"/proc/{left.name.split('-')[1]}").exists():
            shutil.rmtree(left, ignore_errors=True)
    place = Path(tempfile.mkdtemp(prefix=f"pass-{os.getpid()}-", dir=views.SPOOL))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def site_excludes(source: Path) -> tuple[str, ...]:
    """``[clone] exclude`` of the site file in that tree; none where there is no site file yet."""
    try:
        text = _text(source / str(paths.SITE_FILE).lstrip("/"))
        found = tomllib.loads(text).get("clone", {}).get("exclude", [])
    except tomllib.TOMLDecodeError as error:
        raise CloneError(f"{paths.SITE_FILE} cannot be read: {error}", hint="ets check") from error
    return tuple(str(path) for path in found)


def serve(source: str = "/", exclude: Sequence[str] = ()) -> None:
    """Serve a target on standard input and output until it goes away."""
    sender = Sender(os.dup(1))
    os.dup2(2, 1)  # whatever a program prints is no part of the copy
    receiver = Receiver(0, stall=_STALL, who="the target")
    try:
        session = Session(source, exclude, sender)
        sender.tell(NEWS, version=1, **session.begin())
        for order in session.orders(receiver):
            session.obey(order)
    except BrokenPipeError:
        return
    except EtsError as error:
        with contextlib.suppress(OSError):
            sender.tell(END, error=error.message, hint=error.hint)


def facts(source: str = "/", exclude: Sequence[str] = ()) -> SourceFacts:
    """What there is to copy on this server."""
    with Path(os.devnull).open("wb") as nowhere:
        session = Session(source, exclude, Sender(nowhere.fileno()))
        hello, found = session.begin(), session.listed()
    return SourceFacts(
        server=_text(Path(source) / str(paths.SERVER_NAME).lstrip("/")).strip(),
        site=_text(Path(source) / str(paths.SITE_FILE).lstrip("/")),
        needed=found.size,
        files=len(found.entries),
        method=session.method,
        notes=(*hello["notes"], *found.complaints[:5]),
        cards={nic.name: nic.mac for nic in parse_nics(_links())},
    )


def _links() -> bytes:
    return run(["ip", "-json", "-details", "address"]).stdout


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
