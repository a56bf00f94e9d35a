"""From the values of a TOML document to a ``SiteFile``, with everything that does not fit.

Pure. What does not fit is reported and taken out, so that the rest can be checked for its
meaning in the same run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ets.site.check import choices
from ets.site.model import Problem
from ets.site.positions import Path, show, spell
from ets.site.schema import SiteFile, Table

#: what pydantic's own refusals are called here; None: its text is used
_MESSAGES: Mapping[str, tuple[str, str]] = {
    "model_type": ("must be a table", "a table"),
    "dict_type": ("must be a table", "tables, each under a name of its own"),
    "list_type": ("must be a list", "a list in brackets, or [[…]] for tables"),
    "bool_type": ("must be true or false", "true or false, without quotes"),
}


def fit(raw: dict[str, Any]) -> tuple[SiteFile, list[Problem]]:
    """``raw`` as a site file, and what did not fit. ``raw`` itself is left alone."""
    problems = list(_missing(SiteFile, raw, ()))
    part = _copy(SiteFile, raw)
    for _ in range(4):  # taking out a key cannot uncover more than one level of others
        try:
            return SiteFile.model_validate(part), problems
        except ValidationError as error:
            found = error.errors(include_url=False)
        problems += [_problem(details) for details in found]
        # from the end, so that the positions of earlier list entries stay right
        for path in sorted((_path(details) for details in found), key=_order, reverse=True):
            _take_out(part, path)
    return SiteFile(servers=None), problems


def _order(path: Path) -> tuple[tuple[int, str], ...]:
    return tuple((p, "") if isinstance(p, int) else (-1, p) for p in path)


def _copy(table: type[Table], raw: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the tables and lists that the schema knows; what else there is, is shared."""
    copied = dict(raw)
    for key, field in table.model_fields.items():
        child, value = _table_in(field.annotation), raw.get(key)
        if isinstance(value, list):
            copied[key] = [
                _copy(child, entry) if child and isinstance(entry, dict) else entry
                for entry in value
            ]
        elif isinstance(value, dict) and child and _keyed(table, key):
            copied[key] = {
                name: _copy(child, entry) if isinstance(entry, dict) else entry
                for name, entry in value.items()
            }
        elif isinstance(value, dict) and child:
            copied[key] = _copy(child, value)
    return copied


def _missing(table: type[Table], raw: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    """The required keys that are not there, in this table and all below it."""
    for key in table.REQUIRED:
        if key not in raw:
            field = table.model_fields[key]
            what = field.description or f"a table [{key}]"
            yield Problem(
                spell((*path, key)),
                "is missing",
                "",
                f"needed: {what[0].lower()}{what[1:].rstrip('.')}",
            )
    for key, field in table.model_fields.items():
        child, value = _table_in(field.annotation), raw.get(key)
        if child is None:
            continue
        if isinstance(value, list):
            entries: list[tuple[Path, Any]] = [((key, i), entry) for i, entry in enumerate(value)]
        elif isinstance(value, dict) and _keyed(table, key):
            entries = [((key, name), entry) for name, entry in value.items()]
        else:
            entries = [((key,), value)]
        for below, entry in entries:
            if isinstance(entry, dict):
                yield from _missing(child, entry, path + below)


def _table_in(annotation: Any) -> type[Table] | None:
    """The table that a field holds, alone, in a list or under names; None for other values."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return annotation
    inside = (_table_in(argument) for argument in get_args(annotation))
    return next((found for found in inside if found), None)


def _keyed(table: type[Table], key: str) -> bool:
    """Does this field hold tables under names that the file chooses?"""
    return any(
        getattr(argument, "__origin__", None) is dict
        for argument in get_args(table.model_fields[key].annotation)
    )


def _table_at(path: Path) -> type[Table] | None:
    """The kind of table that stands at ``path``."""
    table: type[Table] | None = SiteFile
    parts = list(path)
    while parts and table is not None:
        key = parts.pop(0)
        if not isinstance(key, str) or key not in table.model_fields:
            return None
        inside = parts and (isinstance(parts[0], int) or _keyed(table, key))
        table = _table_in(table.model_fields[key].annotation)
        if inside:
            parts.pop(0)
    return table


def _path(details: ErrorDetails) -> Path:
    return tuple(part for part in details["loc"] if part != "[key]")


def _problem(details: ErrorDetails) -> Problem:
    """One of pydantic's errors in the words of the site file."""
    path, kind, context = _path(details), details["type"], details.get("ctx", {})
    where, value = spell(path), show(details["input"])
    if kind == "extra_forbidden":
        table = _table_at(path[:-1])
        allowed = choices(str(path[-1]), table.model_fields if table else (), "keys here")
        return Problem(where, "is no key that ETS knows", value, allowed)
    if kind == "ets":
        return Problem(where, context["message"], value, context["allowed"])
    if kind == "literal_error":
        allowed = str(context["expected"]).replace("'", '"')
        return Problem(where, "is none of the choices", value, allowed)
    if kind == "too_long":
        message, allowed = "has too many entries", f"at most {context['max_length']}"
        return Problem(where, message, value, allowed)
    message, allowed = _MESSAGES.get(kind, (details["msg"], ""))
    return Problem(where, message, value, allowed)


def _take_out(part: dict[str, Any], path: Path) -> None:
    """Take the value at ``path`` out: unknown keys vanish, known ones become None (given, but
    unusable), an entry that should have been a table becomes an empty one."""
    above: Any = part
    for step in path[:-1]:
        if isinstance(above, dict) and step not in above:
            return  # taken out with what was around it
        above = above[step]
    last, table = path[-1], _table_at(path[:-1])
    if isinstance(above, list):
        if _table_at(path) is not None:
            above[int(last)] = {}
        else:
            del above[int(last)]
    elif table is None or (isinstance(last, str) and last not in table.model_fields):
        above.pop(last, None)
    else:
        above[last] = None
