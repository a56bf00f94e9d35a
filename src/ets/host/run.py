"""The one way to run a program on this machine."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from ets.errors import CommandFailed, DeadlinePassed, HostError

log = structlog.get_logger("ets.run")


def log_to_stderr(*, verbose: bool) -> None:
    """Log warnings to standard error and, with ``verbose``, every program that is run."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if verbose else logging.WARNING
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended. ``status`` is negative when a signal ended it."""

    command: str
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """What it printed on standard output, as text."""
        return self.stdout.decode(errors="replace")


def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    deadline: float = 60.0,
    check: bool = True,
    hint: str = "",
) -> Completed:
    """Run ``argv`` to its end, at most ``deadline`` seconds; log a line that can be pasted.

    ``env`` is added to the environment (never put a secret in ``argv``; use ``stdin``).
    Raises CommandFailed on a non-zero status unless ``check`` is false, DeadlinePassed when it
    does not end (it is killed, with its process group), HostError when it cannot be started.
    """
    line = shlex.join(argv)
    log.debug("run", command=line)
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **env} if env else None,
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise HostError(f"cannot start {line}: {error.strerror}", hint=hint) from error
    try:
        out, err = process.communicate(stdin, timeout=deadline)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, 9)
        out, err = process.communicate()
        raise DeadlinePassed(
            f"{line} did not end within {deadline:g} s; it had printed: {(out + err)[-1000:]!r}",
            hint=hint,
        ) from error
    if check and process.returncode != 0:
        output = (out + err).decode(errors="replace")
        raise CommandFailed(line, process.returncode, output, hint=hint)
    return Completed(line, process.returncode, out, err)
