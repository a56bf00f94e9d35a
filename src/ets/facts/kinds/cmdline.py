"""The kernel that runs and what it was started with (bootparam(7)), without what names this
machine's disks."""

from __future__ import annotations

import shlex

KIND = "cmdline"
ASK = (("cat", "/proc/cmdline"), ("uname", "-r"))

_OWN = {"BOOT_IMAGE", "root", "resume", "initrd", "ip", "cryptdevice", "rd.luks.uuid", "rootfstype"}


def parse(text: str, release: str = "") -> dict[str, dict[str, str]]:
    """A fact for each parameter; the kernel's own is called *kernel*."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    found: dict[str, dict[str, str]] = {}
    for word in words:
        name, equal, value = word.partition("=")
        if name not in _OWN:
            before = found.get(name, {}).get("value")
            said = value if equal else "given"
            found[name] = {"value": f"{before}, {said}" if before else said}
    if release.strip():
        found["kernel"] = {"release": release.strip()}
    return found
