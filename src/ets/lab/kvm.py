"""Whether KVM can be trusted here: on some machines /dev/kvm opens well, and then guests hang, or
crawl behind plain emulation (nested virtualisation that traps on everything).

The probe is a whole QEMU machine that boots its firmware (SeaBIOS: real, protected and system
management mode, timers, port I/O), finds no disk, resets and thereby ends. It is done with a
deadline, next to the same machine under emulation, once per boot of the host, and remembered.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time

from ets.lab.state import boot_id
from ets.lab.tree import cache_directory

TCG = "tcg,thread=multi,tb-size=128"

#: seconds that the firmware may take under KVM; under TCG it takes 0.3
DEADLINE = 5.0


def accelerator() -> str:
    """What QEMU's ``-accel`` is given: ``kvm`` where the probe has shown that it works, else TCG.

    ``ETS_LAB_ACCEL=tcg`` in the environment asks for TCG without a probe.
    """
    if os.environ.get("ETS_LAB_ACCEL") == "tcg" or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return TCG
    remembered = cache_directory() / "kvm.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        verdict = json.loads(remembered.read_text())
        if verdict["boot"] == boot_id():
            return "kvm" if verdict["works"] else TCG
    works = trustworthy(boot_time(TCG), boot_time("kvm"))
    remembered.parent.mkdir(parents=True, exist_ok=True)
    remembered.write_text(json.dumps({"boot": boot_id(), "works": works}))
    return "kvm" if works else TCG


def trustworthy(emulated: float | None, kvm: float | None) -> bool:
    """True when KVM ended in time, and not clearly slower than emulation (whose own figure is
    mostly QEMU's start, so twice that and half a second is granted). None: it did not end."""
    if kvm is None:
        return False
    return emulated is None or kvm <= 2 * emulated + 0.5


def boot_time(accel: str, deadline: float = DEADLINE) -> float | None:
    """Seconds that a machine with this accelerator takes to boot its firmware to the end; None
    when it fails or is not through by ``deadline``. It is killed then; one that cannot even be
    killed is left alone."""
    start = time.monotonic()
    process = subprocess.Popen(
        ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-m", "64",
         "-machine", "q35,graphics=off", "-accel", accel, "-no-reboot",
         "-boot", "reboot-timeout=100"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        status = process.wait(deadline)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
        return None
    return time.monotonic() - start if status == 0 else None
