"""The primary's end of a copy: one process for one target, which it serves until that goes away.

It holds a listing of what the target has been given, so that each pass is only what changed since,
and the last one, in a short silence (``quiesce``), leaves the target with the state of one moment.
Nothing is kept anywhere else: when this process ends, the primary is as if it had never been.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ets import paths
from ets.clone import databases, flags, listing, quiesce, stream
from ets.clone import view as views
from ets.clone.disks import parse_nics
from ets.clone.listing import Delta, Listing
from ets.clone.pull import SourceFacts
from ets.clone.stream import DATA, END, FLAGS, HAVE, NEWS, ORDER, REMOVE, RESET, Receiver, Sender
from ets.errors import CloneError, EtsError
from ets.host.run import run

#: seconds of silence at most, in the first and in the second attempt
LIMITS = (5.0, 10.0)
#: seconds after which a target that takes nothing and says nothing counts as gone
_STALL = 900.0
#: bytes of a header in a tar archive that holds times to the nanosecond
HEADER = 1536

TAR = (
    "tar", "--create", "--format=posix", "--pax-option=delete=atime,delete=ctime", "--sparse",
    "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--no-recursion",
    "--ignore-failed-read", "--blocking-factor=512", "--null",
)  # fmt: skip
ZSTD = ("zstd", "-1", "--threads=0", "--quiet", "--stdout")

# what tar says of files that other programs work on while it reads; a later pass brings them
_HARMLESS = re.compile(
    r"file changed as we read it|File removed before we read it|File shrank by|"
    r"No such file or directory|socket ignored|Exiting with failure status|Removing leading"
)


class Session:
    """Everything that one target is given. ``source`` is what is copied, normally ``/``."""

    def __init__(self, source: str, exclude: Sequence[str], sender: Sender) -> None:
        self._excludes = views.Excludes(exclude)
        self._out = sender
        self._view = views.enter(source)
        self._source = source
        self._base = Listing({})
        self._flags: dict[bytes, int] = {}
        self._reader: threading.Thread | None = None

    def begin(self) -> dict[str, Any]:
        """List the server; what there is to copy."""
        self._base = self._scan()
        return {
            "files": len(self._base.entries),
            "bytes": self._base.content + HEADER * len(self._base.entries),
            "needed": self._base.size,
            "cpus": os.cpu_count() or 1,
            "notes": [*self._view.notes, *self._base.complaints[:5]],
        }

    def obey(self, order: Mapping[str, Any]) -> None:
        """Do what the target asks for; it ends with one frame that says how it went."""
        compress = bool(order.get("compress"))
        match order.get("do"):
            case "probe":
                self._out.send(DATA, bytes(min(int(order.get("bytes", 0)), 1 << 28)))
                self._out.tell(END)
            case "all":
                self._read_flags()
                names = tuple(self._base.entries)
                everything = Delta(send=names, files=len(names))
                self._give(everything, self._view.root, compress)
            case "missing":
                self._read_flags()
                self._missing(zlib.decompress(self._packed), compress)
            case "changed":
                self._changed(compress)
            case "final":
                self._final(compress)
            case "flags":
                self._give_flags()
            case other:
                raise CloneError(f"there is no order {other!r}")

    def hear(self, receiver: Receiver) -> Iterator[Mapping[str, Any]]:
        """The target's orders, and the listings that it sends before one, until it goes away."""
        self._packed = b""
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

    def _scan(self, *, settled: bool = True) -> Listing:
        if settled:
            for mount in (
                "",
                *(mount.point[len(self._source.rstrip("/")) :] for mount in self._view.mounts),
            ):
                listing.settle(self._view.root / mount.lstrip("/"))
        return listing.scan(self._view.root, self._excludes.keep, self._excludes.prune)

    def _missing(self, packed: bytes, compress: bool) -> None:
        with self._out.alive():
            theirs = listing.unpack(packed)
            mine = listing.portable(self._base, self._view.root)
            changed = listing.differing(mine, theirs)
            kinds = {path: digest[:1] for path, digest in theirs.items()}
            what = listing.delta(self._base, changed, kinds)
        self._give(what, self._view.root, compress)

    def _changed(self, compress: bool) -> None:
        with self._out.alive():
            new = self._scan()
            what = listing.compare(self._base, new)
        self._base = new
        self._give(what, self._view.root, compress)

    def _final(self, compress: bool) -> None:
        """One state for all: put aside in silence, then sent while everything goes on."""
        with self._out.alive(), spool() as place:
            for limit in LIMITS:
                with databases.still() as words, quiesce.silence(limit) as held:
                    new = self._scan(settled=False)
                    what = listing.compare(self._base, new, self._restless(new))
                    archive = place / "changed.tar"
                    complaints = self._archive(what.send, archive)
                if not held.broken:
                    break
            else:
                raise CloneError(
                    f"what changes on this server could not be put aside within {limit:g} s",
                    hint="stop the service that writes most, or leave its files out: "
                    "[clone] exclude",
                )
            notes = (
                [words, *self._mend(what, archive, place)]
                if words
                else self._mend(what, archive, place)
            )
            if held.late:
                notes.append(f"did not stop in time: {', '.join(held.late)}")
            self._base = new
            # the spool is open still, though it has no name any more
            self._announce(what, archive.stat().st_size)
            with archive.open("rb") as stored:
                self._pass(stored.fileno(), compress)
        self._remember_flags(what)
        self._out.tell(
            END, files=what.files, unread=complaints, paused=held.paused, stopped=list(held.units),
            notes=notes,
        )  # fmt: skip

    def _restless(self, new: Listing) -> set[bytes]:
        """Files that change without their times telling: mapped ones and tdbs."""
        top = os.fsencode(self._source.rstrip("/") + "/")
        found = {path[len(top) :] for path in databases.mapped() if path.startswith(top)}
        return found | {path for path in new.entries if path.endswith((b".tdb", b".ldb"))}

    def _mend(self, what: Delta, archive: Path, place: Path) -> list[str]:
        """Check the databases in ``archive``; what is torn is copied again by its own means."""
        sent = frozenset(what.send)
        found = databases.suspects(self._view.root, what.send)
        names = databases.with_sidecars(found, sent)
        if not names:
            return []
        check = place / "check"
        check.mkdir()
        _run_tar(["tar", "--extract", f"--file={archive}", "--null"], check, names)
        notes, mended = [], []
        for path, kind in found.items():
            copy = check / os.fsdecode(path)
            state = databases.sound(copy, kind) if copy.exists() else True
            if state or state is None:
                continue
            live = Path(self._source) / os.fsdecode(path)
            if kind == "tdb" and databases.backup(live, copy):
                mended.append(path)
            else:
                notes.append(f"{live} does not pass its own check; look at it on both servers")
        if mended:
            argv = [word for word in TAR if word != "--create"]
            _run_tar([*argv, "--append", f"--file={archive}"], check, mended)
        return notes

    def _archive(self, send: Sequence[bytes], archive: Path) -> list[str]:
        with archive.open("wb") as file, _names(send) as names, tempfile.TemporaryFile() as said:
            done = subprocess.run(
                [*TAR, "-C", str(self._view.root), f"--files-from={names}"],
                stdin=subprocess.DEVNULL, stdout=file, stderr=said, check=False,
                env={**os.environ, "LC_ALL": "C"}, pass_fds=[int(names.rsplit("/", 1)[1])],
            )  # fmt: skip
            complaints = _complaints(said)
            if done.returncode not in (0, 1) and not complaints:
                complaints = [f"tar ended with status {done.returncode}"]
        return complaints

    def _give(self, what: Delta, root: Path, compress: bool) -> None:
        """One pass while everything goes on."""
        self._announce(what, None)
        with _names(what.send) as names, tempfile.TemporaryFile() as said:
            with subprocess.Popen(
                [*TAR, "-C", str(root), f"--files-from={names}"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said,
                env={**os.environ, "LC_ALL": "C"}, pass_fds=[int(names.rsplit("/", 1)[1])],
            ) as tar:  # fmt: skip
                if tar.stdout is None:
                    raise CloneError("tar has no output")
                try:
                    self._pass(tar.stdout.fileno(), compress)
                except BaseException:
                    tar.kill()
                    raise
            unread = _complaints(said)
        self._remember_flags(what)
        self._out.tell(END, files=what.files, unread=unread)

    def _announce(self, what: Delta, size: int | None) -> None:
        entries = (self._base.entries[path] for path in what.send if path in self._base.entries)
        if size is None:
            size = sum(_bytes(value) for value in entries)
        self._out.tell(NEWS, files=what.files, bytes=size)
        self._out.paths(REMOVE, what.remove)
        self._out.paths(RESET, what.reset)

    def _pass(self, source: int, compress: bool) -> None:
        """Everything from ``source`` to the target."""
        stream.widen(source)
        if not compress:
            if os.path.isfile(f"/proc/self/fd/{source}"):
                with subprocess.Popen(["cat"], stdin=source, stdout=subprocess.PIPE) as cat:
                    if cat.stdout is not None:
                        self._out.pump(cat.stdout.fileno())
            else:
                self._out.pump(source)
            return
        with subprocess.Popen(ZSTD, stdin=source, stdout=subprocess.PIPE) as zstd:
            if zstd.stdout is None:
                raise CloneError("zstd has no output")
            stream.widen(zstd.stdout.fileno())
            try:
                self._out.pump(zstd.stdout.fileno())
            except BaseException:
                zstd.kill()
                raise
        if zstd.returncode != 0:
            raise CloneError(f"zstd ended with status {zstd.returncode}")

    def _read_flags(self) -> None:
        """Read all files' flags beside the sending, which leaves Python idle."""
        paths = [path for path, value in self._base.entries.items() if value[:1] in b"fd"]
        self._reader = threading.Thread(
            target=lambda: self._flags.update(flags.read(self._view.root, paths)), daemon=True
        )
        self._reader.start()

    def _remember_flags(self, what: Delta) -> None:
        if self._reader is None or len(what.send) == len(self._base.entries):
            return
        self._reader.join()
        for path in (*what.remove, *what.send):
            self._flags.pop(path, None)
        self._flags.update(flags.read(self._view.root, what.send))

    def _give_flags(self) -> None:
        if self._reader is not None:
            with self._out.alive():
                self._reader.join()
        lines = tuple(b"%x %s" % (value, path) for path, value in self._flags.items())
        self._out.paths(FLAGS, lines)
        self._out.tell(END, files=len(lines))


def _bytes(value: bytes) -> int:
    entry = listing.parse(value)
    return HEADER + (min(entry.size, entry.blocks * 512) if entry.kind == "f" else 0)


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


@contextlib.contextmanager
def _names(paths: Sequence[bytes]) -> Iterator[str]:
    """A file with these names for tar that is nowhere but in memory; its path for a child."""
    descriptor = os.memfd_create("names", 0)
    try:
        stream.write_all(descriptor, b"".join(b"./" + path + b"\0" for path in paths))
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.set_inheritable(descriptor, True)
        yield f"/dev/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _run_tar(argv: Sequence[str], where: Path, paths: Sequence[bytes]) -> None:
    with _names(paths) as names:
        subprocess.run(
            [*argv, "-C", str(where), f"--files-from={names}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            check=False, pass_fds=[int(names.rsplit("/", 1)[1])],
        )  # fmt: skip


def _complaints(said: Any) -> list[str]:
    """What tar could not do, from what it said, without what was to be expected."""
    said.seek(0)
    lines = said.read().decode(errors="replace").splitlines()
    return [line for line in lines if not _HARMLESS.search(line)][:20]


def serve(source: str = "/", exclude: Sequence[str] = ()) -> None:
    """Serve a target on standard input and output until it goes away."""
    out = os.dup(1)
    os.dup2(2, 1)
    sender = Sender(out)
    receiver = Receiver(0, stall=_STALL, who="the target")
    try:
        with sender.alive():
            session = Session(source, exclude, sender)
            hello = session.begin()
        sender.tell(NEWS, version=1, **hello)
        for order in session.hear(receiver):
            session.obey(order)
    except BrokenPipeError:
        return
    except EtsError as error:
        with contextlib.suppress(OSError):
            sender.tell(END, error=error.message, hint=error.hint)


def facts(source: str = "/", exclude: Sequence[str] = ()) -> SourceFacts:
    """What there is to copy on this server."""
    with open(os.devnull, "wb") as nowhere:
        session = Session(source, exclude, Sender(nowhere.fileno()))
        about = session.begin()
    top = Path(source)
    return SourceFacts(
        server=_text(top / str(paths.SERVER_NAME).lstrip("/")).strip(),
        site=_text(top / str(paths.SITE_FILE).lstrip("/")),
        needed=about["needed"],
        files=about["files"],
        method="passes",
        notes=tuple(about["notes"]),
        cards={nic.name: nic.mac for nic in parse_nics(_links())},
    )


def _links() -> bytes:
    return run(["ip", "-json", "-details", "address"]).stdout


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
