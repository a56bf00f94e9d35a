"""The agent's part in audits: what a peer may ask about this server, gathered by a process apart.

One of a kind at a time. A tree belongs to one comparison (``Question.audit``) and stays for
``KEEP`` seconds after its last question; another comparison has it taken anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process

from ets.agent.place import Place
from ets.audit.exchange import Question
from ets.errors import AuditError

#: seconds that a tree is kept, and that gathering and one answer may take
KEEP, GATHER = 15.0, 600.0
#: bytes of an inventory
MAX_FACTS = 16_000_000


class Audits:
    """Answers peers' audits. One per agent."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._facts = asyncio.Lock()
        self._tree = asyncio.Lock()
        self._child: Process | None = None
        self._audit = ""
        self._end: asyncio.TimerHandle | None = None

    async def facts(self) -> bytes:
        """The inventory. Raises AuditError."""
        async with self._facts:
            child = await self._start("facts", paranoid=False)
            try:
                async with asyncio.timeout(GATHER):
                    content, _ = await child.communicate()
            except TimeoutError as error:
                raise AuditError("gathering the facts takes too long") from error
            finally:
                _kill(child)
        if child.returncode or not content or len(content) > MAX_FACTS:
            raise AuditError("the facts could not be gathered", hint="try: ets audit")
        return content

    async def tree(self, question: Question) -> bytes:
        """The nodes asked for. Raises AuditError."""
        async with self._tree:
            if (
                self._child is None
                or self._child.returncode is not None
                or (self._audit != question.audit)
            ):
                self.close()
                self._child = await self._start("tree", paranoid=question.paranoid)
                self._audit = question.audit
            if self._end is not None:
                self._end.cancel()
            try:
                async with asyncio.timeout(GATHER):
                    content = await _asked(self._child, question)
            except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError) as error:
                self.close()
                raise AuditError("the files could not be listed", hint="try: ets audit") from error
            except BaseException:  # the peer went away in the middle of an answer
                self.close()
                raise
            self._end = asyncio.get_running_loop().call_later(KEEP, self.close)
            return content

    def close(self) -> None:
        """End what is kept."""
        if self._end is not None:
            self._end.cancel()
        if self._child is not None:
            _kill(self._child)
        self._child = None

    async def _start(self, what: str, *, paranoid: bool) -> Process:
        told = {
            "what": what,
            "exclude": self._place.site.clone.exclude,
            "cache": str(self._place.tree.runtime / "audit.cache"),
            "paranoid": paranoid,
        }
        argv = (sys.executable, "-m", "ets.audit.serve", json.dumps(told))
        return await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE)


async def _asked(child: Process, question: Question) -> bytes:
    if child.stdin is None or child.stdout is None:
        raise ValueError("a process without pipes")
    child.stdin.write(json.dumps(question.directories).encode() + b"\n")
    await child.stdin.drain()
    return await child.stdout.readexactly(int(await child.stdout.readline()))


def _kill(child: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.kill()
