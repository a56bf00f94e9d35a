"""Archives: GNU tar at both ends (pax, so names, times and attributes of every kind pass), told by
a list what to take, and watched.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from ets.clone import stream
from ets.clone.listing import parent
from ets.clone.stream import Receiver
from ets.errors import CloneError

#: bytes of a header that holds times to the nanosecond
HEADER = 1536
#: ACLs of files that overwrite others; into an empty tree they pass as what they are on the disk,
#: extended attributes, which spares two system calls for every file
ACLS = "--acls"

_TAR = (
    "--format=posix", "--pax-option=delete=atime,delete=ctime", "--sparse", "--xattrs",
    "--xattrs-include=*", "--numeric-owner", "--no-recursion", "--ignore-failed-read",
    "--blocking-factor=512", "--null",
)  # fmt: skip
_UNTAR = (
    "tar", "--extract", "--preserve-permissions", "--same-owner", "--numeric-owner", "--xattrs",
    "--xattrs-include=*", "--delay-directory-restore", "--blocking-factor=512",
    "--warning=no-timestamp", "--file=-",
)  # fmt: skip

# what tar says of files that other programs work on while it reads; a later pass brings them
_HARMLESS = re.compile(
    r"file changed as we read it|File removed before we read it|File shrank by|"
    r"No such file or directory|socket ignored|Exiting with failure status|Removing leading"
)
#: as many words of tar's as anybody reads
_WORDS = 20


class Packer:
    """tar, reading files below ``root``; ``paths`` has their names (``names``, ``Survey.names``).
    ``complaints`` are known afterwards."""

    def __init__(
        self,
        root: Path,
        paths: AbstractContextManager[int],
        *options: str,
        into: IO[bytes] | None = None,
    ) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        with paths as descriptor:
            listed = f"--files-from=/dev/fd/{descriptor}"
            self._tar = subprocess.Popen(
                ["tar", *options, *_TAR, "-C", str(root), listed],
                stdin=subprocess.DEVNULL,
                stdout=into or subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, "LC_ALL": "C"},
                pass_fds=[descriptor],
            )
        self.complaints: list[str] = []

    def fileno(self) -> int:
        """Where the archive comes out."""
        if self._tar.stdout is None:
            raise CloneError("tar has no output")
        return self._tar.stdout.fileno()

    def __enter__(self) -> Packer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self._tar.kill()
        if self._tar.stdout is not None:
            self._tar.stdout.close()
        status = self._tar.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        self._said.close()
        self.complaints = [line for line in lines if not _HARMLESS.search(line)][:_WORDS]
        if kind is None and status not in (0, 1) and not lines:
            self.complaints = [f"tar ended with status {status}"]


def take_out(archive: Path, into: Path, paths: Sequence[bytes]) -> None:
    """Extract ``paths`` from an archive that lies on the disk."""
    with names(paths) as descriptor:
        listed = f"--files-from=/dev/fd/{descriptor}"
        subprocess.run(
            ["tar", "--extract", f"--file={archive}", "--null", "-C", str(into), listed],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            pass_fds=[descriptor],
        )


@contextlib.contextmanager
def names(paths: Sequence[bytes]) -> Iterator[int]:
    """A file for tar with these names, which lies nowhere but in memory."""
    descriptor = os.memfd_create("names", 0)
    try:
        stream.write_all(descriptor, b"".join(b"./" + path + b"\0" for path in paths))
        yield descriptor
    finally:
        os.close(descriptor)


class Unpacker:
    """tar, and zstd before it, writing into a directory; what it ``said`` is known afterwards, a
    full disk at once."""

    def __init__(
        self, into: Path, counted: Callable[[int], None], *options: str, compressed: bool
    ) -> None:
        self._counted = counted
        self._tar = subprocess.Popen(
            [*_UNTAR, *options, "-C", str(into)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        if self._tar.stdin is None or self._tar.stderr is None:
            raise CloneError("tar has no pipes")
        self._stdin, self._stderr = self._tar.stdin, self._tar.stderr
        stream.widen(self._stdin.fileno())
        self.said: list[str] = []
        self.full = False
        self._watch = threading.Thread(target=self._listen, daemon=True)
        self._watch.start()
        argv = ["zstd", "--decompress", "--quiet", "--stdout"]
        self._zstd = stream.Filter(argv, self._stdin.fileno(), counted) if compressed else None

    def feed(self, receiver: Receiver, length: int) -> None:
        """The next bytes of the stream."""
        try:
            receiver.pass_to((self._zstd or self._stdin).fileno(), length)
        except (BrokenPipeError, EOFError):
            self._explain()
        if self.full:
            self._explain()
        if self._zstd is None:
            self._counted(length)

    def __enter__(self) -> Unpacker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Wait until everything is written; after an error, stop at once."""
        if kind is not None:
            self._tar.kill()
        status = self._zstd.close(kill=kind is not None) if self._zstd else 0
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        tar = self._tar.wait()
        self._watch.join()
        if kind is not None:
            return
        if self.full or status != 0:
            self._explain()
        if tar != 0 and not self.said:
            self.said = [f"tar ended with status {tar}"]

    def _listen(self) -> None:
        for line in self._stderr:
            words = line.decode(errors="replace").strip()
            if "No space left on device" in words or "Disk quota exceeded" in words:
                self.full = True
            if len(self.said) < _WORDS and "Exiting with failure status" not in words:
                self.said.append(words)

    def _explain(self) -> None:
        if self.full:
            raise CloneError(
                "the disk of the new server is full",
                hint="it needs a larger one; what was copied is kept and counts at the next try",
            )
        raise CloneError(
            f"what came could not be written: {'; '.join(self.said[:3]) or 'tar ended'}"
        )


def remove(into: Path, paths: Sequence[bytes]) -> None:
    """Remove these from the target, whatever they are there; links are not followed."""
    base = os.fsencode(into)
    real: dict[bytes, bool] = {b"": True}

    def is_real(folder: bytes) -> bool:
        if folder not in real:
            above = is_real(parent(folder))
            real[folder] = above and _is_directory(base + b"/" + folder)
        return real[folder]

    for path in paths:
        if path and is_real(parent(path)):
            whole = base + b"/" + path
            with contextlib.suppress(FileNotFoundError):
                if _is_directory(whole):
                    shutil.rmtree(whole)
                else:
                    os.unlink(whole)  # noqa: PTH108 - bytes


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
