"""What a server was seen to be, as far as a ``Desired`` asks: plain data that facts return and the
engine compares. Mirrors ``desired.py``. Nothing here acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

PathKind = Literal["file", "directory", "link", "other"]


@dataclass(frozen=True, slots=True, order=True)
class PathFact:
    """What lies at a path. ``digest`` is the sha256 (hex) of a file's content, else empty."""

    kind: PathKind
    mode: int
    owner: str
    group: str
    digest: str = ""

    def __str__(self) -> str:
        text = f"{self.kind} {self.mode:04o} {self.owner}:{self.group}"
        return f"{text} sha256:{self.digest}" if self.digest else text


@dataclass(frozen=True, slots=True, order=True)
class UnitFact:
    """The state of a systemd unit, in systemd's own words (systemctl(1), *show*)."""

    load: str = "not-found"
    file_state: str = ""
    active_state: str = "inactive"
    sub_state: str = "dead"

    @property
    def enabled(self) -> bool:
        """Started at boot, as far as enabling it can do anything about that."""
        return self.file_state in ("enabled", "static", "alias", "indirect", "generated")

    @property
    def active(self) -> bool:
        """Running, or done with remaining effect. A unit in a crash loop is not active."""
        return self.active_state in ("active", "reloading", "refreshing")


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything seen of one server. Things that are not there are missing from the mappings.

    ``packages`` maps installed packages to versions, ``accounts`` users to their groups,
    ``sources`` the files that copies are made from (links followed) to the sha256 of their content.
    ``contents`` holds the old content of files that are about to change, to show what changes; it
    is no fact of its own (``paths`` has the digests). ``systemd`` is true where systemd runs.
    """

    packages: Mapping[str, str] = field(default_factory=dict)
    accounts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    paths: Mapping[str, PathFact] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, UnitFact] = field(default_factory=dict)
    contents: Mapping[str, bytes] = field(default_factory=dict, compare=False)
    systemd: bool = True
