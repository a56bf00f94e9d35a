"""Units of systemd: what starts with the machine, and what runs (systemctl(1)).

Whether a unit runs is told only where that is not a matter of the moment: not of units that are
pulled in, called on demand, or end when their work is done.
"""

from __future__ import annotations

import re

KIND = "unit"
_SHOWN = "Id,LoadState,UnitFileState,ActiveState,Type,TriggeredBy,FragmentPath"
_TYPES = ("*.service", "*.socket", "*.path", "*.timer", "*.target")
ASK = (
    ("systemctl", "list-unit-files", "--no-legend", "--no-pager", "--plain"),
    ("systemctl", "show", "--no-pager", f"--property={_SHOWN}", "--", *_TYPES),
)

#: instances that follow the machine's hardware, consoles and who is logged in
_PASSING = re.compile(
    r"(?:(?:console-|serial-|container-)?getty|user|user-runtime-dir|systemd-fsck|systemd-cryptsetup|modprobe|ifup|"
    r"systemd-backlight|systemd-rfkill|systemd-growfs|lvm2-pvscan|session-.*|run-.*)@?"
    r"(?:-?[^.@]*)?\.(?:service|scope|timer)"
)
_TOLD = ("service", "socket", "path", "timer", "target", "mount", "automount", "swap")
_RUNS = {"active": "yes", "reloading": "yes", "activating": "yes", "failed": "failed"}
#: a unit file in one of these states is on or off by somebody's decision
_DECIDED = {"enabled", "disabled", "linked", "masked", "indirect", "generated", "bad"}


def parse(files: str, loaded: str) -> dict[str, dict[str, str]]:
    """``enabled`` is the unit file's state, ``runs`` *yes*, *no* or *failed*."""
    found: dict[str, dict[str, str]] = {}
    for row in (line.split() for line in files.splitlines()):
        if len(row) >= 2 and _wanted(row[0], row[1]):
            found[row[0]] = {"enabled": row[1].removesuffix("-runtime")}
    for block in loaded.split("\n\n"):
        about = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        name, state = about.get("Id", ""), about.get("UnitFileState", "")
        if not _wanted(name, state) or about.get("LoadState") == "not-found":
            continue
        entry = found.setdefault(name, {"enabled": state or "not on disk"})
        runs = _RUNS.get(about.get("ActiveState", ""), "no")
        if runs == "failed" or _lasting(about, state.removesuffix("-runtime")):
            entry["runs"] = runs
    return found


def _wanted(name: str, state: str) -> bool:
    if name.rpartition(".")[2] not in _TOLD or state == "transient":
        return False
    return not _PASSING.fullmatch(name)


def _lasting(about: dict[str, str], state: str) -> bool:
    if about["Id"].endswith(".target"):
        return False
    on_demand = about.get("Type") in ("oneshot", "dbus") or bool(about.get("TriggeredBy"))
    return state in _DECIDED and not on_demand
