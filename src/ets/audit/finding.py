"""One thing that differs between servers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that differs. ``servers``: what each has; ``harm`` from 0 to 100; ``odd``: the
    servers that are probably wrong, when three or more were compared; ``missing``: where it is
    not at all; ``consequences``: what else differs because of it, in words."""

    kind: str
    subject: str
    harm: int
    words: str
    servers: Mapping[str, str]
    consequences: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    attribute: str = ""
    missing: tuple[str, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)
