"""Every error that ETS raises on purpose.

::

    EtsError                 something failed; a person can act on it        exit 1
    ├── InputError           what was given is wrong                         exit 2
    │   └── SiteError        a site file with one or more Problems           exit 2
    ├── HostError            the machine did not do what was asked           exit 1
    │   ├── CommandFailed    a program ended badly (carries the replayable command)
    │   └── DeadlinePassed   a wait ended without what it waited for
    ├── PlanError            a plan cannot be applied: a daemon refused it … exit 1
    │   └── StalePlan        the server changed since the plan was made      exit 1
    ├── ImageError           an image is missing, damaged or in use          exit 1
    ├── AgentError           an agent did not answer, or answered badly      exit 1
    ├── AuditError           servers could not be compared                   exit 1
    ├── CloneError           a server could not be copied, joined or rebuilt exit 1
    └── LabError             the lab could not be brought up or torn down    exit 1

A traceback that reaches a user is a bug of ours. Exit code 3 is no error: it means drift was
found.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_INPUT = 2
EXIT_DRIFT = 3


class EtsError(Exception):
    """An error for a person: what went wrong with which object, and what to do next.

    Parameters: ``message`` names the object and the value; ``hint`` is the next step, one
    sentence, empty only where there is none.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.hint}" if self.hint else self.message


class InputError(EtsError):
    """What was given (an argument, a file) is wrong."""

    exit_code = EXIT_INPUT


class HostError(EtsError):
    """The machine did not do what was asked of it."""


class CommandFailed(HostError):
    """A program ended with a status that was not expected.

    ``command`` is the line that can be pasted into a shell, ``status`` the exit status
    (negative: the signal), ``output`` what it printed (both streams, at most the last 4 kB).
    """

    def __init__(self, command: str, status: int, output: str, *, hint: str = "") -> None:
        tail = output.strip()[-4000:]
        said = f": {tail}" if tail else ""
        super().__init__(f"command failed with status {status}: {command}{said}", hint=hint)
        self.command = command
        self.status = status
        self.output = tail


class DeadlinePassed(HostError):
    """A wait ended. Says what it waited for and what it saw last."""


class PlanError(EtsError):
    """A plan cannot be applied, or a daemon refused the staged configuration."""


class StalePlan(PlanError):
    """The server is not any more what it was when the plan was made."""


class ImageError(EtsError):
    """An image is missing, damaged, in use, or could not be built."""


class AgentError(EtsError):
    """An agent did not answer, or answered something unusable."""


class AuditError(EtsError):
    """Servers could not be compared: one of them sent what is no answer, or goes by other rules."""


class CloneError(EtsError):
    """A server could not be copied, or may not join the site."""


class LabError(EtsError):
    """The lab could not be brought up, changed or torn down."""
