"""The firewall's rules as they are in force (nft(8)), without what they have counted.

Facts are called *table inet ets*, *chain inet ets input* and *rule inet ets input: tcp dport 22
accept*; of a rule ``place`` tells where in its chain it stands, of a set what is in it unless rules
fill it.
"""

from __future__ import annotations

import re

KIND = "nft"
ASK = (("nft", "--stateless", "list", "ruleset"),)

_TABLE = re.compile(r"table (\S+ \S+) \{")
_BLOCK = re.compile(r"(chain|set|map|flowtable|counter|quota|limit|ct \S+) (\S+) \{")
_HANDLE = re.compile(r"\s*# handle \d+$")


def parse(text: str) -> dict[str, dict[str, str]]:
    """Elements of sets that rules fill, and of tables that programs keep for themselves while
    they run (fail2ban, containers), are passed over."""
    found: dict[str, dict[str, str]] = {}
    table, kind, name = "", "", ""
    inside: list[str] = []
    for line in (_HANDLE.sub("", row).strip() for row in text.splitlines()):
        if not table:
            if met := _TABLE.fullmatch(line):
                table = met[1]
                found[f"table {table}"] = {}
        elif not name:
            if met := _BLOCK.fullmatch(line):
                kind, name, inside = met[1], met[2], []
            elif line == "}":
                table = ""
        elif line == "}":
            found.update(_block(table, kind, name, inside))
            name = ""
        elif line:
            inside.append(line)
    return found


def _block(table: str, kind: str, name: str, lines: list[str]) -> dict[str, dict[str, str]]:
    place = f"{table} {name}"
    if kind != "chain":
        said = " ".join(lines).split(" elements = ")
        dynamic = "dynamic" in said[0] or "timeout" in said[0]
        about = {"is": said[0]}
        if len(said) > 1 and not dynamic:
            about["elements"] = said[1]
        return {f"{kind} {place}": about}
    rules = [line for line in lines if not line.startswith("type ")]
    about = {}
    if hooks := [line for line in lines if line.startswith("type ")]:
        about["hook"] = hooks[0]
    found = {f"chain {place}": about}
    for at, rule in enumerate(rules, 1):
        entry, number = f"rule {place}: {rule}", 1
        while entry in found:
            number += 1
            entry = f"rule {place}: {rule} (again, {number})"
        found[entry] = {"place": str(at)}
    return found
