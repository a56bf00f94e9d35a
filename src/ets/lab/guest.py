"""Commands in a QEMU machine through its guest agent (qemu-guest-agent, a Debian package): a serial
port that needs no network, so it goes on when every cable is pulled.

``python3 -m ets.lab.guest SOCKET PROGRAM …`` runs one from a shell. Protocol: QEMU's
docs/interop/qemu-ga-ref; an answer belongs to us when it comes after our own ``guest-sync``.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ets.errors import CommandFailed, DeadlinePassed, EtsError, HostError
from ets.host.deadline import Deadline
from ets.host.run import Completed
from ets.host.shell import HELD, ShellHost

_ENVIRONMENT = ("HOME=/root", "TERM=linux", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8")
#: seconds for one exchange with an agent that runs; emulated machines take their time
EXCHANGE = 10.0

_numbers = itertools.count(1)


class GuestAgent:
    """Talks to the agent behind the socket ``path``, one exchange each: QEMU serves one at a
    time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def execute(self, command: str, deadline: float = EXCHANGE, **arguments: Any) -> Any:
        """Send a command; returns what it returns. Raises HostError when nobody answers."""
        end = Deadline(deadline)
        try:
            with self._turn(end), socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(max(0.1, end.left))
                connection.connect(str(self._path))
                stream = _Stream(connection)
                stream.synchronise()
                stream.send(command, arguments)
                answer = stream.receive()
        except (OSError, ValueError) as error:
            raise HostError(f"no guest agent behind {self._path}: {error}") from error
        if "error" in answer:
            raise HostError(f"{command}: {answer['error'].get('desc', answer['error'])}")
        return answer["return"]

    def start(self, argv: Sequence[str], stdin: bytes = b"", deadline: float = EXCHANGE) -> int:
        """Start a program as root; returns its process id there."""
        given: dict[str, Any] = {"input-data": base64.b64encode(stdin).decode()} if stdin else {}
        started = self.execute(
            "guest-exec",
            deadline,
            path="/usr/bin/env",
            arg=["-i", *_ENVIRONMENT, *argv],
            **{"capture-output": True},
            **given,
        )
        return int(started["pid"])

    def ended(self, pid: int) -> tuple[int, bytes, bytes] | None:
        """Status, output and errors of a started program; None while it runs."""
        status = self.execute("guest-exec-status", pid=pid)
        if not status["exited"]:
            return None
        code = -status["signal"] if "signal" in status else status.get("exitcode", 0)
        texts = [base64.b64decode(status.get(f"{name}-data", "")) for name in ("out", "err")]
        return code, *texts

    def run(self, argv: Sequence[str], stdin: bytes, deadline: float) -> tuple[int, bytes, bytes]:
        """Run a program to its end. Raises DeadlinePassed when that does not come (it is killed),
        HostError when the agent goes."""
        end, pause = Deadline(deadline), 0.01
        pid = self.start(argv, stdin, min(deadline, EXCHANGE))
        while (ended := self.ended(pid)) is None:
            if end.passed:
                self.start(["kill", "-KILL", str(pid)])
                raise DeadlinePassed(f"{shlex.join(argv)} did not end within {deadline:g} s")
            time.sleep(min(pause, end.left))
            pause = min(0.2, pause * 1.5)
        return ended

    @contextlib.contextmanager
    def _turn(self, end: Deadline) -> Iterator[None]:
        """The only one at the socket, among threads and processes."""
        with self._path.with_suffix(".lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if end.passed:
                        raise
                    time.sleep(0.005)
            yield


class _Stream:
    """Lines of JSON, after a mark that nothing before it can contain."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rwb")

    def synchronise(self) -> None:
        """Throw away what was meant for somebody else (the byte 0xFF begins a fresh answer)."""
        number = os.getpid() * 1_000_000 + next(_numbers) % 1_000_000
        self._file.write(b"\xff")
        self.send("guest-sync-delimited", {"id": number})
        while True:
            line = self._line()
            if b"\xff" in line and json.loads(line.rpartition(b"\xff")[2])["return"] == number:
                return

    def send(self, command: str, arguments: dict[str, Any]) -> None:
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        self._file.write(json.dumps(request).encode() + b"\n")
        self._file.flush()

    def receive(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def _line(self) -> bytes:
        line = self._file.readline()
        if not line:
            raise ConnectionError("the machine is off")
        return line


class GuestHost(ShellHost):
    """A running machine as a ``Host``."""

    def __init__(self, name: str, socket: Path) -> None:
        super().__init__(name)
        self._socket = socket
        self._agent = GuestAgent(socket)

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """The command line on this machine that runs ``argv`` there."""
        return [sys.executable, "-m", __name__, str(self._socket), *argv]

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
        line = shlex.join(argv)
        status, out, err = self._agent.run(argv, stdin, deadline)
        if check and status != 0:
            output = (out + err).decode(errors="replace")
            raise CommandFailed(line, status, output, hint=hint)
        return Completed(line, status, out, err)

    @contextlib.contextmanager
    def hold(self, path: str) -> Iterator[None]:
        """An exclusive lock on a file there, until the context ends (or, after this process was
        killed, for ten minutes)."""
        script = (
            'mkdir -p -- "$(dirname -- "$1")" && exec flock --no-fork --nonblock '
            f'--conflict-exit-code={HELD} "$1" sleep 600'
        )
        pid = self._agent.start(["sh", "-c", script, "sh", path])
        time.sleep(0.2)
        if (ended := self._agent.ended(pid)) is not None:
            raise HostError(
                f"cannot lock {path} on {self.name} (status {ended[0]})",
                hint="another run of ets may be changing it",
            )
        try:
            yield
        finally:
            self._agent.start(["kill", str(pid)])


def main() -> None:
    """Entry point."""
    stdin = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()
    try:
        status, out, err = GuestAgent(Path(sys.argv[1])).run(sys.argv[2:], stdin, 3600)
    except EtsError as error:
        sys.exit(f"ets: {error}")
    sys.stdout.buffer.write(out)
    sys.stderr.buffer.write(err)
    sys.exit(status & 0xFF)


if __name__ == "__main__":
    main()
