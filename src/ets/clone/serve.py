"""What a newcomer's key may run on the server that it copies: ``ets clone VERB``, and no more.

The dedicated sshd runs this for whatever was asked; it looks at the question and becomes the
verb's process. All verbs read: a newcomer is given a copy of everything, and may change nothing.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping

from ets import paths
from ets.errors import CloneError

#: the verbs of ``ets clone`` that give out; ``finish`` and ``serve`` itself are not among them
VERBS = frozenset({"facts", "give", "manifest", "send"})
MAX_COMMAND = 65536


def allowed(command: str) -> list[str]:
    """The words of a command that a newcomer may run. Raises CloneError for any other."""
    try:
        words = shlex.split(command) if len(command) <= MAX_COMMAND else []
    except ValueError:
        words = []
    if len(words) < 3 or words[:2] != ["ets", "clone"] or words[2] not in VERBS:
        raise CloneError(
            f"a newcomer may not run {command[:100]!r}",
            hint=f"it may run ets clone {', '.join(sorted(VERBS))}",
        )
    return words[2:]


def serve(environment: Mapping[str, str] = os.environ) -> None:
    """Become the process that was asked for (``SSH_ORIGINAL_COMMAND``). Raises CloneError."""
    words = allowed(environment.get("SSH_ORIGINAL_COMMAND", ""))
    sys.stdout.flush()
    command = str(paths.COMMAND)
    os.execv(command, [command, "clone", *words])  # noqa: S606 - words, not a shell
