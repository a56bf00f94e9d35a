"""Everything about a server that an admin has a word for, in one pass and one round trip.

All programs of ``ets.facts.kinds`` are asked by one shell script, so that a server behind ssh
costs one question. Nothing is written, not even a temporary file. Passwords leave here only as
digests keyed with the site's secret: they say *equal* or *another*, and whoever sees an audit's
output can guess nothing with it. Without a site secret the key is this pass's own, and passwords
are told as set, locked or empty.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import blake3

from ets import paths
from ets.errors import HostError, InputError
from ets.facts import kinds
from ets.facts.kinds import Facts, Kind
from ets.host.transport import Host

FORMAT = 1
#: seconds that the whole pass may take
DEADLINE = 60.0
#: a program's output is no longer than this many bytes
LONGEST = 4_000_000

_MISSING = 127
# one answer: "KIND NUMBER STATUS LENGTH", then so many bytes. $(…) drops NULs and the last
# newlines; dash counts bytes.
_SCRIPT = """
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
answer() { printf '%s %s %s %s\\n%s\\n' "$1" "$2" "$3" "${#4}" "$4"; }
"""
_ASKED = 'out=$({command} 2>/dev/null </dev/null); answer {kind} {number} $? "$out"\n'
_SELF: Mapping[str, Sequence[str]] = {
    "ets-server": ("cat", str(paths.SERVER_NAME)),
    "ets-node": ("uname", "-n"),
    "ets-secret": ("cat", str(paths.SITE_SECRET)),
}


@dataclass(frozen=True, slots=True)
class Inventory:
    """What one server is. ``absent``: kinds that it cannot tell, and why."""

    server: str
    taken: str
    facts: Mapping[str, Facts]
    absent: Mapping[str, str]

    def plain(self) -> dict[str, object]:
        """As JSON has it."""
        return {
            "format": FORMAT,
            "server": self.server,
            "taken": self.taken,
            "facts": self.facts,
            "absent": self.absent,
        }

    def dump(self) -> str:
        """As text."""
        return json.dumps(self.plain(), sort_keys=True, separators=(",", ":"))


def read(document: object) -> Inventory:
    """From JSON, which may come from anybody. Raises InputError unless it is an inventory."""
    try:
        if not isinstance(document, dict) or document["format"] != FORMAT:
            raise ValueError("another format")  # noqa: TRY301
        facts = {
            str(kind): {
                str(name): {str(key): str(value) for key, value in about.items()}
                for name, about in named.items()
            }
            for kind, named in document["facts"].items()
        }
        absent = {str(kind): str(why) for kind, why in document["absent"].items()}
        return Inventory(str(document["server"]), str(document["taken"]), facts, absent)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            "this is no inventory of a server",
            hint="ets audit --save FILE writes one; are both servers of the same version of ETS?",
        ) from error


def gather(host: Host, *, deadline: float = DEADLINE) -> Inventory:
    """The inventory of ``host``, now. Changes nothing. A program that is missing there makes its
    kind absent. Raises HostError when the host cannot be asked."""
    loaded = kinds.load()
    said = host.run(["sh", "-c", _script(loaded)], deadline=deadline)
    answers = _answers(said.stdout)
    own = {name: answers.get((name, 0), (1, ""))[1].strip() for name in _SELF}
    facts: dict[str, Facts] = {}
    absent: dict[str, str] = {}
    for kind in loaded:
        got = [answers.get((kind.KIND, number), (1, "")) for number in range(len(kind.ASK))]
        if got[0][0] == _MISSING:
            absent[kind.KIND] = f"there is no {kind.ASK[0][0]}"
        elif got[0][0] and not got[0][1]:
            absent[kind.KIND] = f"{kind.ASK[0][0]} does not answer"
        else:
            facts[kind.KIND] = _sealed(kind, kind.parse(*(text for _, text in got)), own)
    server = own["ets-server"] or own["ets-node"] or host.name
    return Inventory(server, datetime.now(UTC).isoformat(timespec="seconds"), facts, absent)


def _script(loaded: Sequence[Kind]) -> str:
    asked = [(name, 0, argv) for name, argv in _SELF.items()]
    asked += [(kind.KIND, n, argv) for kind in loaded for n, argv in enumerate(kind.ASK)]
    return _SCRIPT + "".join(
        _ASKED.format(command=shlex.join(argv), kind=kind, number=number)
        for kind, number, argv in asked
    )


def _answers(output: bytes) -> dict[tuple[str, int], tuple[int, str]]:
    """(kind, number) → (status, text). Raises HostError when the script was cut off."""
    found, at = {}, 0
    while at < len(output):
        end = output.find(b"\n", at)
        try:
            kind, number, status, length = output[at:end].split()
            size = int(length)
            key = (kind.decode(), int(number))
            text = output[end + 1 : end + 1 + size]
            found[key] = (int(status), text[:LONGEST].decode(errors="replace"))
        except ValueError as error:
            raise HostError(f"asking for facts went wrong at {output[at : at + 80]!r}") from error
        at = end + size + 2
    return found


def _sealed(kind: Kind, facts: Facts, own: Mapping[str, str]) -> Facts:
    secret: Sequence[str] = getattr(kind, "SECRET", ())
    if not secret:
        return facts
    return {
        name: {
            key: _digest(kind.KIND, name, value, own["ets-secret"]) if key in secret else value
            for key, value in about.items()
        }
        for name, about in facts.items()
    }


def _digest(kind: str, name: str, value: str, site: str) -> str:
    """*empty*, *locked*, or what says no more than whether two are equal."""
    if value == "":
        return "empty"
    if value in ("*", "!", "!!", "!*"):
        return "locked"
    locked = "locked, " if value.startswith("!") else ""
    if not site:
        return f"{locked}set"
    key = blake3.blake3(site.encode(), derive_key_context="ets audit passwords 1").digest()
    text = f"{kind}\0{name}\0{value.lstrip('!')}".encode()
    return f"{locked}set {blake3.blake3(text, key=key).hexdigest(length=8)}"
