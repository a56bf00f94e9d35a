"""The process in which a server answers another one's audit: ``python -m ets.audit.serve``.

Its argument is JSON: ``what`` (facts or tree), ``exclude``, ``cache``, ``paranoid``. Facts are
written once. A tree is taken once, and then each line of standard input (JSON, a list of
directories) is answered by a line with a length and as many bytes. It makes way for everything
else, and is the first to go when memory is short.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

from ets.audit import exchange, tree
from ets.facts import inventory
from ets.host.local import LocalHost


def main(argument: str) -> None:
    """Answer until standard input ends. Raises EtsError."""
    told = json.loads(argument)
    os.nice(19)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    out = sys.stdout.buffer
    if told["what"] == "facts":
        out.write(inventory.gather(LocalHost()).dump().encode())
        return
    taken = tree.take(exclude=told["exclude"], cache=Path(told["cache"]), paranoid=told["paranoid"])
    for line in sys.stdin.buffer:
        answer = exchange.answer(taken, json.loads(line))
        out.write(b"%d\n" % len(answer) + answer)
        out.flush()


if __name__ == "__main__":
    main(sys.argv[1])
