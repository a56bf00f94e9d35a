"""Single real daemons from the server tree, without booting a server: for tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from ets.errors import HostError, LabError
from ets.host.deadline import Deadline, wait_for
from ets.host.run import Completed, run
from ets.lab.topology import Namespace
from ets.lab.tree import cache_directory, server_layers

# The keeper holds the mount and process namespaces. It ends with the pipe on its standard input,
# that is with the process that made it, even a killed one; and with it, as it is the process
# namespace's init, everything that was started there.
_KEEPER = r"""
set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cd "$2/root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
chmod 1777 tmp
echo ready
exec cat >/dev/null
"""


class Daemon:
    """A program that runs in a ``ServerRoot``."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process  # nsenter, which waits for the program
        self._log = log
        self._pid = 0

    @property
    def pid(self) -> int:
        """Its process, as numbered on this machine. Raises HostError when it has ended."""
        if not self._pid:
            self._pid = wait_for("the program to start", self._child, Deadline(5), every=0.01)
        return self._pid

    @property
    def running(self) -> bool:
        """True until it has ended."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """What it has printed so far, both streams."""
        return self._log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send it a signal; well when it has ended."""
        if self.running:
            # it may end between any two of these
            with contextlib.suppress(ProcessLookupError, HostError):
                os.kill(self.pid, number)

    def stop(self, deadline: float = 5.0) -> int:
        """SIGTERM, then SIGKILL when it has not ended by the deadline. Returns its status."""
        self.signal(signal.SIGTERM)
        try:
            return self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            return self._process.wait(10)

    def _child(self) -> int | None:
        if not self.running:
            raise HostError(f"it has ended: {self.output.strip()}")
        return _only_child(self._process.pid)


class ServerRoot:
    """A throw-away copy of the server tree with namespaces of its own for mounts and processes.

    Only as a context. Whatever happens in it is gone at the end: files, mounts, processes.
    """

    def __init__(self, packages: Iterable[str] = (), cache: Path | None = None) -> None:
        self._packages = tuple(packages)
        self._cache = cache or cache_directory()
        self._started: list[Daemon] = []

    def __enter__(self) -> Self:
        layers = server_layers(self._packages, self._cache)
        # overlayfs takes no overlay as its upper directory, so not /tmp, which may be one
        self._cache.mkdir(parents=True, exist_ok=True)
        self._directory = Path(tempfile.mkdtemp(prefix="root-", dir=self._cache))
        for name in ("upper", "work", "root", "log"):
            (self._directory / name).mkdir(mode=0o755)
        lower = ":".join(str(layer) for layer in layers)
        self._keeper = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child",
             "sh", "-c", _KEEPER, "keeper", lower, str(self._directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        try:
            self._inside = self._wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything and remove it."""
        self._keeper.stdin.close()  # type: ignore[union-attr]
        try:
            self._keeper.wait(10)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait(10)
        for daemon in self._started:
            daemon.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def path(self) -> Path:
        """The root directory as this process can open it."""
        return Path(f"/proc/{self._inside}/cwd")

    def file(self, path: str) -> Path:
        """Where an absolute path of the root lies for this process."""
        return self.path / PurePosixPath(path).relative_to("/")

    def write(self, path: str, content: bytes | str, *, mode: int = 0o644) -> Path:
        """Write a file in the root, with the directories above it."""
        target = self.file(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)
        return target

    def entering(self, argv: Sequence[str], net: Namespace | None = None) -> list[str]:
        """``argv``, changed so that it runs in the root (and in the network namespace)."""
        network = [f"--net={net.path}"] if net else []
        return [
            "nsenter", f"--target={self._inside}", "--mount", "--pid", "--ipc", "--uts",
            *network, f"--root={self.path}", "--wdns=/", "--", *argv,
        ]  # fmt: skip

    def run(
        self,
        argv: Sequence[str],
        *,
        net: Namespace | None = None,
        stdin: bytes = b"",
        deadline: float = 60.0,
        check: bool = True,
    ) -> Completed:
        """Run a program in the root to its end, as ``ets.host.run.run``."""
        return run(self.entering(argv, net), stdin=stdin, deadline=deadline, check=check)

    def start(self, argv: Sequence[str], *, net: Namespace | None = None) -> Daemon:
        """Start a daemon in the root; it must stay in the foreground. Without ``net`` it shares
        this process's network, so give it one. Raises HostError when it ends at once."""
        log = self._directory / "log" / f"{len(self._started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.entering(argv, net),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8",
                     "PYTHONPATH": "/opt/ets/lib"},
            )  # fmt: skip
        daemon = Daemon(process, log)
        self._started.append(daemon)
        try:
            status = process.wait(0.05)
        except subprocess.TimeoutExpired:
            return daemon
        if status != 0:
            raise HostError(f"{argv[0]} ended with status {status}: {daemon.output.strip()}")
        return daemon

    def _wait_ready(self) -> int:
        if self._keeper.stdout is None or self._keeper.stdout.readline() != b"ready\n":
            raise LabError("the server tree could not be mounted", hint="is this root?")
        return wait_for("the keeper", lambda: _only_child(self._keeper.pid), Deadline(5))


def _only_child(pid: int) -> int | None:
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(words[0]) if words else None
