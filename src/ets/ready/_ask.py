"""Asking programs on a machine, in plain English and at low priority, and reading what they say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ets.host.transport import Host

#: exit status of a program that is not there (sh(1))
MISSING = 127

_RUN = (
    'PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"; LC_ALL=C; export PATH LC_ALL; '
    'command -v -- "$0" >/dev/null || exit 127; exec nice -n 19 "$0" "$@"'
)


def answers(
    host: Host, questions: Mapping[str, Sequence[str]], *, deadline: float = 60.0
) -> dict[str, str]:
    """What each command prints, whatever its exit status; without those whose program is missing.

    Raises HostError when the host cannot be asked, DeadlinePassed for a command that hangs.
    """
    said = {}
    for name, argv in questions.items():
        done = host.run(["sh", "-c", _RUN, *argv], check=False, deadline=deadline)
        if done.status != MISSING:
            said[name] = done.text
    return said


def script(text: str, *arguments: str) -> list[str]:
    """The command line of a shell script; what it prints on standard error is lost."""
    return ["sh", "-c", "exec 2>/dev/null\n" + text, "sh", *arguments]


def document(text: str) -> Any:
    """JSON as it is; None for nothing and for what is no JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def rows(text: str, least: int = 1) -> Iterator[list[str]]:
    """The lines' words, where there are at least so many."""
    for line in text.splitlines():
        words = line.split()
        if len(words) >= least:
            yield words


def fields(text: str, sign: str = "=") -> dict[str, str]:
    """``name=value`` lines; of a name that comes twice, the first."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, there, value = line.partition(sign)
        if there:
            found.setdefault(name.strip(), value.strip())
    return found


def files(text: str) -> Iterator[tuple[str, str]]:
    """Paths and contents of files that a script printed after lines ``== PATH``."""
    parts = re.split(r"^== (.+)\n", text, flags=re.MULTILINE)
    return zip(parts[1::2], parts[2::2], strict=True)


def listed(names: Sequence[str], most: int = 5) -> str:
    """``a, b, c and 4 more``"""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
