"""Lines of crontabs (crontab(5)): a fact for each, whatever comments stand around them."""

from __future__ import annotations

import re

KIND = "cron"
ASK = (("grep", "-rHs", "", "/etc/crontab", "/etc/cron.d", "/var/spool/cron/crontabs"),)

_TABS = "/var/spool/cron/crontabs/"
_SETTING = re.compile(r"[A-Za-z_]\w*\s*=.*")
_IGNORED = re.compile(r"(?:.*/)?(?:\.placeholder|.*\.dpkg-[a-z]+|.*~)")


def parse(text: str) -> dict[str, dict[str, str]]:
    """The fact's name is the line, with blanks made one and the user where the file says so;
    ``from`` the file."""
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        path, _, content = line.partition(":")
        said = " ".join(content.split())
        if not said or said.startswith("#") or _IGNORED.fullmatch(path):
            continue
        if path.startswith(_TABS):
            said = _of(path.removeprefix(_TABS), said)
        found[f"{said} ({path})" if _SETTING.fullmatch(said) or said in found else said] = {
            "from": path
        }
    return found


def _of(user: str, line: str) -> str:
    if _SETTING.fullmatch(line):
        return line
    count = 1 if line.startswith("@") else 5
    words = line.split(" ", count)
    return " ".join([*words[:count], user, *words[count:]])
