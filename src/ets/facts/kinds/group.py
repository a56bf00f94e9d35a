"""Groups by name and number, and who is in them (group(5), gshadow(5))."""

from __future__ import annotations

from ets.facts.kinds.user import rows

KIND = "group"
ASK = (("cat", "/etc/group"), ("cat", "/etc/gshadow"))
SECRET = ("password",)


def parse(group: str, gshadow: str = "") -> dict[str, dict[str, str]]:
    """``members`` and ``administrators`` are sorted and told only where there are any."""
    found: dict[str, dict[str, str]] = {}
    for row in rows(group, 4):
        found[row[0]] = {"gid": row[2]}
        if row[3]:
            found[row[0]]["members"] = _sorted(row[3])
    for row in rows(gshadow, 4):
        about = found.get(row[0])
        if about is None:
            continue
        if row[1] not in ("", "*", "!", "x"):
            about["password"] = row[1]
        if row[2]:
            about["administrators"] = _sorted(row[2])
    return found


def _sorted(names: str) -> str:
    return ", ".join(sorted(names.split(",")))
