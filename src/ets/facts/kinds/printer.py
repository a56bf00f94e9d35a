"""CUPS' queues and their drivers: as the scheduler tells (lpstat(1)), and from its settings, which
also tell what lpstat does not."""

from __future__ import annotations

import re

KIND = "printer"
ASK = (
    ("lpstat", "-h", "/run/cups/cups.sock", "-r", "-d", "-v", "-a", "-p"),
    ("cat", "/etc/cups/printers.conf"),
    ("grep", "-Hsm1", "^*NickName:", "-r", "/etc/cups/ppd", "--include=*.ppd"),
)

_DEVICE = re.compile(r"device for (.+?): (.+)")
_ACCEPTS = re.compile(r"(\S+) (not )?accepting requests\b.*")
_STATE = re.compile(r"printer (\S+) (?:is idle|now printing|disabled)\b.*")
_KEPT = {
    "Info": "description", "Location": "location", "Shared": "shared", "JobSheets": "banners",
    "OpPolicy": "policy", "ErrorPolicy": "error policy", "AllowUser": "allowed users",
    "DenyUser": "denied users", "QuotaPeriod": "quota period", "PageLimit": "page limit",
    "KLimit": "size limit", "DeviceURI": "device", "MakeModel": "driver",
}  # fmt: skip


def parse(told: str, settings: str = "", drivers: str = "") -> dict[str, dict[str, str]]:
    """A queue that the scheduler does not know any more is none, though the settings still have
    it: they are written half a minute late."""
    found = _settings(settings)
    live = {m[1]: m[2] for line in told.splitlines() if (m := _DEVICE.fullmatch(line.strip()))}
    if "scheduler is running" in told:
        found = {name: found.get(name, {}) for name in live}
    for name, device in live.items():
        found[name]["device"] = device
    for line in told.splitlines():
        _tell(found, line.strip())
    for line in drivers.splitlines():
        path, _, name = line.partition(":*NickName:")
        queue = path.rpartition("/")[2].removesuffix(".ppd")
        if queue in found:
            found[queue]["driver"] = name.strip().strip('"')
    return found


def _tell(found: dict[str, dict[str, str]], line: str) -> None:
    if line.startswith("system default destination: "):
        found.setdefault(line.partition(": ")[2], {})["default"] = "yes"
    elif (met := _ACCEPTS.fullmatch(line)) and met[1] in found:
        found[met[1]]["accepts jobs"] = "no" if met[2] else "yes"
    elif (met := _STATE.fullmatch(line)) and met[1] in found:
        found[met[1]]["stopped"] = "yes" if " disabled" in line else "no"


def _settings(text: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    about: dict[str, str] = {}
    for line in (line.strip() for line in text.splitlines()):
        word, _, rest = line.partition(" ")
        if word in ("<Printer", "<DefaultPrinter"):
            about = found.setdefault(rest.rstrip(">"), {})
            if word == "<DefaultPrinter":
                about["default"] = "yes"
        elif word in _KEPT and rest:
            key = _KEPT[word]
            about[key] = f"{about[key]}, {rest}" if key in about else rest
        elif word == "Option":
            name, _, value = rest.partition(" ")
            about[f"option {name}"] = value
    return found
