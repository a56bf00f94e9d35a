"""Reading a site file: bytes in, a ``Site`` or all of its problems out."""

from __future__ import annotations

import hashlib
import re
import stat
import tomllib
import zoneinfo
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ets.errors import InputError
from ets.site import check, positions, shape
from ets.site.build import build
from ets.site.model import Problem, Site
from ets.site.schema import SiteFile

#: bytes; a site of 20 000 stations has about 2 MB
LIMIT = 4 * 2**20

#: the last step of a key path, with the dot before it
_LAST_STEP = re.compile(r'\[[0-9]+\]$|(^|\.)("([^"\\]|\\.)*"|[^."\[]*)$|.$', re.DOTALL)

Further = Callable[[Site], Iterable[Problem]]


class SiteError(InputError):
    """A site file with problems, all of them. ``file`` is how the file was named."""

    def __init__(self, problems: Collection[Problem], file: str = "site.toml") -> None:
        self.problems = tuple(problems)
        self.file = file
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        shown = [f"  {describe(problem)}" for problem in self.problems[:100]]
        more = len(self.problems) - len(shown)
        shown += [f"  … and {more} more"] if more else []
        super().__init__(
            "\n".join([f"{file} has {count}:", *shown]),
            hint=f"correct them and run `ets check {file}` again",
        )


def describe(problem: Problem) -> str:
    """A problem on one line."""
    value = f" {problem.value}" if problem.value else ""
    allowed = f"; {problem.allowed}" if problem.allowed else ""
    return f"{problem.where}:{value} {problem.message}{allowed}"


def read(path: Path | str, *, further: Further | None = None, sources: bool = False) -> Site:
    """The site that the file at ``path`` describes.

    ``further`` yields problems beyond those of the site file itself, such as what the services
    find; it is asked only about a site that is otherwise well. With ``sources`` the files that
    images are made from must exist beside the site file: they do where images are built, and
    need not on every server. Raises SiteError with every problem.
    """
    path = Path(path)
    beside = path.parent if sources else None
    return parse(_bytes(path), str(path), further=further, beside=beside)


def parse(
    data: bytes,
    where: str = "site.toml",
    *,
    further: Further | None = None,
    beside: Path | None = None,
) -> Site:
    """The site that ``data`` describes. ``where`` names it in messages; ``beside`` is the
    directory in which the files that it names must exist (None: not looked at).

    Raises SiteError with every problem, for any bytes at all.
    """
    text = _text(data, where)
    raw = _values(text, where)
    file, problems = shape.fit(raw)
    problems += check.problems(file, _zones())
    if beside is not None:
        problems += _absent(file, beside)
    if not problems:
        site = build(file, hashlib.sha256(data).hexdigest())
        problems += further(site) if further else ()
        if not problems:
            return site
    raise SiteError(_located(problems, text), where)


def _bytes(path: Path) -> bytes:
    """The content of the file. Raises SiteError when it is no file, unreadable or too large."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _refused(path, "is not a regular file")
        with path.open("rb") as file:
            return file.read(LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _refused(path, f"cannot be read: {reason}") from None


def _refused(path: Path, message: str) -> SiteError:
    return SiteError([Problem(str(path), message, "", "the path of a site file")], str(path))


def _text(data: bytes, where: str) -> str:
    """``data`` as text. Raises SiteError when it is none."""
    problem: Problem | None = None
    text = ""
    if len(data) > LIMIT:
        allowed = f"at most {LIMIT // 2**20} MiB"
        problem = Problem("the file", "is too large for a site file", "", allowed)
    elif not data.strip():
        problem = Problem("the file", "is empty", "", "see examples/one-server.toml")
    else:
        try:
            text = data.decode("utf-8-sig")  # a byte order mark does no harm
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            value = f"byte 0x{data[error.start]:02x}"
            problem = Problem(f"line {line}", "is not UTF-8 text", value, "a TOML file in UTF-8")
    if problem:
        raise SiteError([problem], where)
    return text


def _values(text: str, where: str) -> dict[str, Any]:
    """The values in a TOML text. Raises SiteError at the first error of syntax."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        problem = Problem("the file", "is nested too deeply", "", "at most a few levels")
    except ValueError as error:
        # "Expected '=' after a key (at line 3, column 5)"
        message, at = str(error), "the file"
        found = re.search(r" \(at (.*)\)$", message)
        if found:
            at, message = found[1], message[: found.start()]
            if at == "end of document":
                at = f"line {text.rstrip().count(chr(10)) + 1}, at the end of the file"
        problem = Problem(
            at, f"is not TOML: {_plain(message)}", "", "see https://toml.io/en/v1.0.0"
        )
    raise SiteError([problem], where)


def _plain(message: str) -> str:
    """A message that may quote the file, fit for a terminal, on one line."""
    return "".join(c if c.isprintable() else "?" for c in message[:200])


def _absent(file: SiteFile, beside: Path) -> Iterator[Problem]:
    """Files that images name and that are not there."""
    for name, image in (file.images or {}).items():
        path = positions.spell(("images", name))
        named = [(f"{path}.files[{i}].source", f.source) for i, f in enumerate(image.files or ())]
        named += [(f"{path}.scripts[{i}]", script) for i, script in enumerate(image.scripts or ())]
        named.append((f"{path}.ltsp_conf", image.ltsp_conf))
        for where, source in named:
            if source is None:
                continue
            try:
                there = (beside / source).is_file()
            except (OSError, ValueError):
                there = False
            if not there:
                allowed = f"a file below {beside.resolve()}"
                yield Problem(where, "there is no such file", positions.show(source), allowed)


def _located(problems: Iterable[Problem], text: str) -> list[Problem]:
    """The problems with their lines, in the order of the file; what is missing from the file is
    shown at the nearest thing around it."""
    lines = {positions.spell(path): line for path, line in positions.lines(text).items()}
    placed = []
    for problem in dict.fromkeys(problems):
        around = problem.where
        while around and around not in lines:
            around = _LAST_STEP.sub("", around)
        line = lines.get(around, 0)
        where = f"{problem.where} (line {line})" if line else problem.where
        placed.append((line, replace(problem, where=where)))
    return [problem for _, problem in sorted(placed, key=lambda entry: entry[0])]


@cache
def _zones() -> frozenset[str]:
    """The time zones that this machine knows; none where it has no tz database."""
    return frozenset(zoneinfo.available_timezones())
