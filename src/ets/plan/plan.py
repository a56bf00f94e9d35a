"""A plan: what an apply will do, saved exactly as it was shown. Pure.

It holds the desired state with the content of every file, the steps, the validators, and a
fingerprint of the facts that it was made from. A plan is applied while its facts still hold, or
refused as stale; it is never made anew behind the reader's back.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ets import __version__, paths
from ets.errors import InputError
from ets.plan import diff
from ets.plan import owned as ownership
from ets.plan.desired import Command, Desired
from ets.plan.diff import Step
from ets.plan.observed import Observed
from ets.plan.owned import Owned

FORMAT = 1
#: what reading something else than what was written may raise
NOT_ONE = (ValueError, ValidationError, AttributeError, KeyError, TypeError, RecursionError)
STAGED = paths.STATE / "staged"


@dataclass(frozen=True, slots=True)
class Plan:
    """``id`` names it (12 hex digits), ``created`` is an ISO 8601 time, ``site`` the digest of the
    site file, ``ets`` the version that made it, ``validators`` the daemons' own checks of the
    files staged below ``staged_at(id)``."""

    id: str
    created: str
    ets: str
    site: str
    server: str
    fingerprint: str
    steps: tuple[Step, ...]
    desired: Desired
    validators: tuple[Command, ...] = ()

    @property
    def empty(self) -> bool:
        """Is there nothing to do?"""
        return not self.steps


def staged_at(plan_id: str) -> PurePosixPath:
    """Where the files of a plan are staged; below it lies what will lie below ``/``."""
    return STAGED / plan_id


def make(
    *,
    site: str,
    server: str,
    desired: Desired,
    observed: Observed,
    owned: Owned,
    validators: Callable[[PurePosixPath], Iterable[Command]],
    created: str,
) -> Plan:
    """The plan for ``server``; ``validators`` are asked with the folder of its staged files.

    Raises PlanError when something on the server is in the way (see ``ets.plan.diff.steps``).
    """
    steps = diff.steps(desired, observed, owned)
    facts = fingerprint(observed, owned)
    seed = [FORMAT, __version__, created, site, server, facts, _jsonable(asdict(desired))]
    digest = hashlib.sha256(json.dumps(seed, sort_keys=True).encode()).hexdigest()[:12]
    return Plan(
        id=digest,
        created=created,
        ets=__version__,
        site=site,
        server=server,
        fingerprint=facts,
        steps=steps,
        desired=desired,
        validators=tuple(validators(staged_at(digest))),
    )


def fingerprint(observed: Observed, owned: Owned) -> str:
    """A digest (sha256, hex) of the facts and of what ETS owns; equal facts, equal digest.

    Of a unit's states only what the diff looks at counts, so that a daemon which is just
    reloading makes no plan stale.
    """
    units = {
        name: [unit.enabled, unit.file_state, unit.active, unit.load]
        for name, unit in observed.units.items()
    }
    facts = {
        "packages": dict(observed.packages),
        "accounts": {name: sorted(groups) for name, groups in observed.accounts.items()},
        "paths": {path: str(fact) for path, fact in observed.paths.items()},
        "sources": dict(observed.sources),
        "units": units,
        "systemd": observed.systemd,
        "owned": ownership.dumps(owned).decode(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def dumps(plan: Plan) -> bytes:
    """As JSON: sorted, indented, ended by a newline. Holds secrets if the desired files do."""
    data = {"format": FORMAT, **asdict(plan)}
    return json.dumps(_jsonable(data), sort_keys=True, indent=1).encode() + b"\n"


def loads(content: bytes, *, where: str = "the plan") -> Plan:
    """From JSON. Raises InputError naming ``where`` when it is no plan, or of another format."""
    try:
        data = json.loads(content, object_hook=_bytes_again)
        found = data.pop("format")
        if found != FORMAT:
            raise InputError(
                f"{where} has format {found!r}, this ETS ({__version__}) reads format {FORMAT}",
                hint="make the plan again with this version: ets plan",
            )
        return _PLAN.validate_python(data)
    except NOT_ONE as error:
        raise InputError(
            f"{where} is not a plan: {str(error)[:300]}",
            hint="make one with: ets plan --out PLAN.json",
        ) from error


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return {"text": value.decode()}
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value


def _bytes_again(data: dict[str, Any]) -> Any:
    if data.keys() == {"text"} and isinstance(data["text"], str):
        return data["text"].encode()
    if data.keys() == {"base64"} and isinstance(data["base64"], str):
        return base64.b64decode(data["base64"], validate=True)
    return data


_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)
