"""Users by name and number (passwd(5), shadow(5), subuid(5)).

Of a password only a keyed digest leaves this function's caller: see ``ets.facts.inventory``.
"""

from __future__ import annotations

KIND = "user"
ASK = (
    ("cat", "/etc/passwd"),
    ("cat", "/etc/shadow"),
    ("cat", "/etc/subuid"),
    ("cat", "/etc/subgid"),
)
#: attributes whose values are secrets
SECRET = ("password",)

_LIMITS = ("min", "max", "warn", "inactive", "expires")


def parse(passwd: str, shadow: str = "", subuid: str = "", subgid: str = "") -> dict[
    str, dict[str, str]
]:  # fmt: skip
    """A second line of the same name is a fact of its own: *anna (line 2)*."""
    found: dict[str, dict[str, str]] = {}
    for row in rows(passwd, 7):
        name, number = row[0], 1
        while row[0] in found and name in found:
            number += 1
            name = f"{row[0]} (line {number})"
        found[name] = {
            "uid": row[2], "group": row[3], "comment": row[4], "home": row[5], "shell": row[6],
        }  # fmt: skip
        if row[1] != "x":
            found[name]["password"] = row[1]
    for row in rows(shadow, 8):
        about = found.setdefault(row[0], {"uid": "none"})
        about["password"] = row[1]
        about.update({n: v for n, v in zip(_LIMITS, row[3:8], strict=True) if v})
    for text, attribute in ((subuid, "subuid"), (subgid, "subgid")):
        for row in rows(text, 3):
            if row[0] in found:
                found[row[0]][attribute] = f"{row[1]}+{row[2]}"
    return found


def rows(text: str, least: int) -> list[list[str]]:
    """The lines of such a file that have at least so many fields."""
    split = (line.split(":") for line in text.splitlines() if not line.startswith("#"))
    return [row for row in split if len(row) >= least]
