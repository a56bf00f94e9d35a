"""What a check finds: one thing, in words for the person who has to act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

#: question → what the machine printed; a question whose program is missing there is missing
Facts = Mapping[str, str]

#: ``critical``: do not clone before it is mended; ``warning``: mend it soon; ``note``: to know
Severity = Literal["critical", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """``subject`` is the thing (``eth0``, ``/dev/sda``), ``words`` what was found about it,
    ``means`` what it means on the day a server dies, ``step`` the exact next step."""

    severity: Severity
    subject: str
    words: str
    means: str
    step: str

    @property
    def matters(self) -> bool:
        """Whether a server with it is not fit."""
        return self.severity != "note"
