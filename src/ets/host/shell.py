"""A machine that can only be given commands: everything a ``Host`` does, as small shell scripts.

Needs Debian's essential packages there (coreutils, findutils, util-linux). Two writers of one file
at the same time are not kept apart, as they are on this machine; ``hold`` is.
"""

from __future__ import annotations

import contextlib
import stat
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

from ets.errors import CommandFailed, HostError
from ets.host.run import Completed, run
from ets.host.transport import Entry, kind_of

NOTHING_THERE = 44
HELD = 75

_TEMPORARY = 'd=$(dirname -- "$1"); t="$d/.$(basename -- "$1").ets-new"; '
_READ = '[ -e "$1" ] || exit 44; exec cat -- "$1"'
_PREPARE = (
    "set -e; "
    + _TEMPORARY
    + '(umask 022; mkdir -p -- "$d"); umask 077; rm -f -- "$t"; '
    + 'trap \'rm -f -- "$t"\' EXIT; cat >"$t"; chown -- "$3:$4" "$t"; chmod -- "$2" "$t"; '
    + 'sync -- "$t"; trap - EXIT'
)
_COMMIT = "set -e; " + _TEMPORARY + 'mv -fT -- "$t" "$1"; sync -- "$d"'
_DISCARD = _TEMPORARY + 'rm -f -- "$t"'
_REMOVE = (
    "set -e; "
    + _TEMPORARY
    + '[ -d "$d" ] || exit 0; rm -f -- "$t"; '
    + 'if [ -d "$1" ] && [ ! -L "$1" ]; then rmdir -- "$1"; else rm -f -- "$1"; fi; sync -- "$d"'
)
_APPEND = (
    'set -e; umask 077; d=$(dirname -- "$1"); (umask 022; mkdir -p -- "$d"); '
    'if [ -s "$1" ] && [ -n "$(tail -c 1 -- "$1")" ]; then echo >>"$1"; fi; '
    'cat >>"$1"; sync -- "$1" "$d"'
)
_DIRECTORY = (
    'set -e; d=$(dirname -- "$1"); (umask 022; mkdir -p -- "$d"); [ ! -L "$1" ]; '
    '[ -d "$1" ] || mkdir -m 0700 -- "$1"; chown -- "$3:$4" "$1"; chmod -- "$2" "$1"; '
    'sync -- "$1" "$d"'
)
_HOLD = (
    'mkdir -p -- "$(dirname -- "$1")" && '
    'exec flock --nonblock --conflict-exit-code=75 "$1" sh -c "echo held; exec cat >/dev/null"'
)


class ShellHost(ABC):
    """A ``Host`` behind a command line. Kinds of it say how in ``wrap``."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self._name

    @abstractmethod
    def wrap(self, argv: Sequence[str]) -> list[str]:
        """The command line on this machine that runs ``argv`` there."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        deadline: float = 60.0,
        check: bool = True,
        hint: str = "",
    ) -> Completed:
        """As ``ets.host.run.run``, there."""
        return run(self.wrap(argv), stdin=stdin, deadline=deadline, check=check, hint=hint)

    def read(self, path: str) -> bytes | None:
        """The content of a file; None when there is none."""
        done = self._script(_READ, path, check=False)
        if done.status == NOTHING_THERE:
            return None
        if done.status != 0:
            raise HostError(f"cannot read {path}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def write(
        self,
        path: str,
        content: bytes,
        *,
        mode: int = 0o644,
        owner: str = "root",
        group: str = "root",
    ) -> None:
        """Replace a file atomically and durably."""
        self.prepare(path, content, mode=mode, owner=owner, group=group)
        self.commit(path)

    def prepare(
        self,
        path: str,
        content: bytes,
        *,
        mode: int = 0o644,
        owner: str = "root",
        group: str = "root",
    ) -> None:
        """The first half of ``write``."""
        self._script(_PREPARE, path, f"{mode:o}", owner, group, stdin=content)

    def commit(self, path: str) -> None:
        """The second half: swap in what was prepared."""
        self._script(_COMMIT, path)

    def discard(self, path: str) -> None:
        """Take back what was prepared."""
        self._script(_DISCARD, path)

    def remove(self, path: str) -> None:
        """Remove a file, or an empty directory; well when there is none."""
        self._script(_REMOVE, path)

    def append(self, path: str, line: bytes) -> None:
        """Append a line to a file and wait for the disk."""
        self._script(_APPEND, path, stdin=line)

    def look(self, paths: Sequence[str], *, follow: bool = False) -> Mapping[str, Entry]:
        """What lies at ``paths``, in two round trips."""
        ask = ["stat", *(["--dereference"] if follow else [])]
        ask.append(r"--printf=%f\t%U\t%u\t%G\t%g\t%n\0")
        found = {}
        for record in self._each(ask, paths):
            mode, user, uid, group, gid, path = record.split("\t", 5)
            owners = (uid if user == "UNKNOWN" else user, gid if group == "UNKNOWN" else group)
            found[path] = (int(mode, 16), *owners)
        files = [path for path, (mode, *_) in found.items() if stat.S_ISREG(mode)]
        sums = (line.split("  ", 1) for line in self._each(["sha256sum", "--zero"], files))
        digests = {path: digest for digest, path in sums}
        if missing := set(files) - digests.keys():
            raise HostError(f"cannot read {', '.join(sorted(missing))}")
        return {
            path: Entry(kind_of(mode), stat.S_IMODE(mode), owner, group, digests.get(path, ""))
            for path, (mode, owner, group) in found.items()
        }

    def make_directory(
        self, path: str, *, mode: int = 0o755, owner: str = "root", group: str = "root"
    ) -> None:
        """Make a directory, or give the one that is there this mode and owner."""
        # five digits: with fewer, chmod(1) keeps a directory's set-group-id bit
        self._script(_DIRECTORY, path, f"{mode:05o}", owner, group)

    def names(self, path: str) -> tuple[str, ...]:
        """The names in a directory, sorted."""
        command = ["find", path, "-mindepth", "1", "-maxdepth", "1", "-printf", r"%f\0"]
        return tuple(sorted(_records(self.run(command, check=False).stdout)))

    @contextlib.contextmanager
    def hold(self, path: str) -> Iterator[None]:
        """An exclusive lock on a file there; given back when the connection ends."""
        process = subprocess.Popen(
            self.wrap(["sh", "-c", _HOLD, "sh", path]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        with process:
            if process.stdout is None or process.stdout.readline() != b"held\n":
                status = process.wait()
                if status == HELD:
                    raise HostError(
                        f"another run of ets is changing {self.name}",
                        hint=f"wait for it to end; it holds {path}",
                    )
                raise HostError(f"cannot lock {path} on {self.name} (status {status})")
            yield

    def _script(
        self, script: str, *arguments: str, stdin: bytes = b"", check: bool = True
    ) -> Completed:
        """Run a script there with a path as its first argument. Raises HostError, naming a full
        disk as such."""
        argv = ["sh", "-c", script, "sh", *arguments]
        try:
            return self.run(argv, stdin=stdin, check=check)
        except CommandFailed as error:
            path = arguments[0]
            if "No space left" in error.output or "quota exceeded" in error.output:
                raise HostError(
                    f"the disk that holds {path} is full: {len(stdin)} bytes could not be written",
                    hint=f"make room there (df -h {path}), then run it again",
                ) from error
            last = error.output.splitlines()[-1:] or [f"status {error.status}"]
            raise HostError(f"cannot change {path} on {self.name}: {last[0]}") from error

    def _each(self, argv: Sequence[str], paths: Sequence[str]) -> list[str]:
        """The NUL-ended records that a program prints for ``paths``; those it cannot open are
        missing."""
        if not paths:
            return []
        stdin = b"".join(path.encode() + b"\0" for path in paths)
        done = self.run(["xargs", "--null", *argv, "--"], stdin=stdin, check=False)
        return _records(done.stdout)


def _records(output: bytes) -> list[str]:
    return [record.decode(errors="surrogateescape") for record in output.split(b"\0") if record]
