"""What a server should be: plain data that services return and the engine compares and applies.

Paths are absolute strings on the server. Nothing here acts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, order=True)
class File:
    """A file with this content. ``owner`` and ``group`` are names on the server."""

    path: str
    content: bytes
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True, slots=True, order=True)
class Copy:
    """A file equal to another file of the same server (``source``), such as a boot loader that
    comes with a package but is served from elsewhere."""

    path: str
    source: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True, order=True)
class Directory:
    """A directory; what lies in it is not looked at."""

    path: str
    mode: int = 0o755
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True, slots=True, order=True)
class Account:
    """A system account without a login, with a home that is not created."""

    name: str
    home: str = "/nonexistent"
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """A systemd unit and the state it should be in.

    ``restart_on`` are paths of files: when one of them changes the unit is restarted, or reloaded
    where ``reload`` is true.
    """

    name: str
    enabled: bool = True
    active: bool = True
    restart_on: tuple[str, ...] = ()
    reload: bool = False


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything that one service, or all of them, ask of one server."""

    packages: tuple[str, ...] = ()
    accounts: tuple[Account, ...] = ()
    directories: tuple[Directory, ...] = ()
    files: tuple[File, ...] = ()
    copies: tuple[Copy, ...] = ()
    units: tuple[Unit, ...] = ()


def merge(parts: Iterable[Desired]) -> Desired:
    """All of them as one, each kind sorted and without duplicates.

    Raises ValueError when two services ask for different things under one path or name: that is a
    mistake in a service, not in a site file.
    """
    parts = tuple(parts)

    def unique(kind: str, key: str) -> tuple[object, ...]:
        seen: dict[str, object] = {}
        for part in parts:
            for item in getattr(part, kind):
                name = item if isinstance(item, str) else getattr(item, key)
                if seen.setdefault(name, item) != item:
                    raise ValueError(f"two services disagree about {kind} {name}")
        return tuple(seen[name] for name in sorted(seen))

    return Desired(
        packages=unique("packages", ""),  # type: ignore[arg-type]
        accounts=unique("accounts", "name"),  # type: ignore[arg-type]
        directories=unique("directories", "path"),  # type: ignore[arg-type]
        files=unique("files", "path"),  # type: ignore[arg-type]
        copies=unique("copies", "path"),  # type: ignore[arg-type]
        units=unique("units", "name"),  # type: ignore[arg-type]
    )


@dataclass(frozen=True, slots=True)
class Command:
    """A program that a service wants run, and why. Exit status 0 means well.

    In a validator's ``argv`` the staged tree's files are named by their path below ``root``.
    """

    argv: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Probe:
    """A question to a running service. ``kind`` says how it is asked:

    ``tcp``      connect to ``address``:``port``
    ``http``     GET ``path`` there; the status must be ``expect``
    ``unix``     connect to the socket ``path``
    ``command``  run ``argv`` on the server; exit status 0
    """

    name: str
    kind: Literal["tcp", "http", "unix", "command"]
    address: str = ""
    port: int = 0
    path: str = ""
    expect: int = 200
    argv: tuple[str, ...] = field(default=())
