"""A QEMU machine's control socket (QMP, docs/interop/qmp-spec of QEMU)."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from ets.errors import LabError


class Qmp:
    """Sends commands, one connection each: QEMU serves one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def execute(self, command: str, deadline: float = 5.0, **arguments: Any) -> Any:
        """Run a command such as ``query-status``; returns what it returns. Raises LabError."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(deadline)
                connection.connect(str(self._path))
                stream = connection.makefile("rwb")
                json.loads(stream.readline())
                for name, given in (("qmp_capabilities", {}), (command, arguments)):
                    request = {"execute": name, "arguments": given}
                    stream.write(json.dumps(request).encode() + b"\n")
                    stream.flush()
                    answer = _answer(stream)
        except (OSError, ValueError) as error:
            raise LabError(
                f"{self._path.parent.name} does not answer {command}: {error}"
            ) from error
        if "error" in answer:
            raise LabError(f"{command}: {answer['error'].get('desc', answer['error'])}")
        return answer["return"]


def _answer(stream: Any) -> dict[str, Any]:
    """The next line that is no event."""
    while True:
        line: dict[str, Any] = json.loads(stream.readline())
        if "event" not in line:
            return line
