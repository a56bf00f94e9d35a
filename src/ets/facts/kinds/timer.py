"""Timers of systemd: when each calls what (systemd.timer(5))."""

from __future__ import annotations

import re

KIND = "timer"
_SHOWN = "Id,UnitFileState,TimersCalendar,TimersMonotonic,Unit,Persistent,RandomizedDelayUSec"
ASK = (("systemctl", "show", "--no-pager", f"--property={_SHOWN}", "--", "*.timer"),)

_ONE = re.compile(r"\{ (\w+)=(.*?) ;")


def parse(text: str) -> dict[str, dict[str, str]]:
    """``when`` and ``calls``; when it is next due is no fact about the server. Timers that
    somebody made for the moment are passed over."""
    found = {}
    for block in text.split("\n\n"):
        rows = [line.split("=", 1) for line in block.splitlines() if "=" in line]
        about = {name: value for name, value in rows if not name.startswith("Timers")}
        if not about.get("Id") or about.get("UnitFileState") == "transient":
            continue
        when = sorted(
            f"{met[1]}={met[2]}"
            for name, value in rows
            if name.startswith("Timers")
            for met in _ONE.finditer(value)
        )
        found[about["Id"]] = {
            "when": ", ".join(when),
            "calls": about.get("Unit", ""),
            "persistent": about.get("Persistent", ""),
            "spread": about.get("RandomizedDelayUSec", ""),
        }
    return found
