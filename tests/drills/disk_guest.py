"""Runs in the drill's guest: installs the guest's own tree on the blank disks, with ETS' own code
and in the order of the installer. What it is to do stands on the kernel's command line."""

from __future__ import annotations

import json
import time
import traceback
from pathlib import Path

from ets import paths
from ets.clone import bootloader, disks, partition
from ets.clone.layout import Layout
from ets.errors import EtsError
from ets.host.local import LocalHost
from ets.host.run import run

EVENTS = "/dev/virtio-ports/ets.event"
BEGAN = time.monotonic()
#: of the guest's tree, what a server needs to start: the rest only costs time here
LEFT_OUT = (
    "/opt", "/usr/share/locale", "/usr/share/i18n", "/usr/share/zoneinfo", "/usr/lib/python3",
    "/usr/lib/python3.11", "/var/cache", "/var/lib/apt", "/lost+found", "/usr/lib/ipxe",
    "/usr/lib/x86_64-linux-gnu/perl", "/usr/share/perl", "/etc/fstab", "/boot/grub",
)  # fmt: skip


def say(**event: object) -> None:
    """One event for the drill."""
    with Path(EVENTS).open("w") as port:
        port.write(json.dumps({"t": round(time.monotonic() - BEGAN, 2), **event}) + "\n")


def main() -> None:
    """All of it; what goes wrong is an event as well."""
    words = dict(w.split("=", 1) for w in Path("/proc/cmdline").read_text().split() if "=" in w)
    wishes = {key[6:]: value for key, value in words.items() if key.startswith("drill.")}
    try:
        _install(wishes)
    except EtsError as error:
        say(event="refused", error=error.message, hint=error.hint)
    except Exception:
        say(event="bug", error=traceback.format_exc())


def _install(wishes: dict[str, str]) -> None:
    host = LocalHost()
    layout = Layout(
        kind=wishes.get("layout", "plain"),  # type: ignore[arg-type]
        mirror=wishes.get("mirror") == "True",
        files=30_000,
    )
    machine = disks.inventory(host)
    say(event="found", machine=machine.record())
    target = partition.find(host, machine, layout)
    resumed = target is not None
    if target is None:
        choice = disks.choose(
            machine,
            room=layout.room(int(wishes.get("needed", 700 << 20))),
            disks=layout.disks,
            erase=wishes.get("erase") == "True",
        )
        say(event="chosen", reason=choice.reason, erases=choice.erases)
        target = partition.make(
            host, choice, layout, tell=lambda text: say(event="does", text=text)
        )
    say(event="made", resumed=resumed, filesystems=[str(f) for f in target.filesystems])
    if wishes.get("stop") == "made":
        return
    _copy(target.root)
    say(event="copied")
    lines = [f"UUID={f.uuid} {f.mount} {f.type} {f.options} 0 0\n" for f in target.filesystems]
    (target.root / "etc/fstab").write_text("".join(lines))
    (target.root / "etc/default").mkdir(exist_ok=True)
    (target.root / "etc/default/grub").write_text(
        'GRUB_TIMEOUT=1\nGRUB_CMDLINE_LINUX="console=ttyS0 ip=dhcp drill=kept"\n'
        'GRUB_TERMINAL="console serial"\nGRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"\n'
    )
    if wishes.get("joining") == "True":
        host.write(f"{target.root}{paths.JOINING}", b"")
    if wishes.get("dep") == "True":
        (target.root / "etc/initramfs-tools/conf.d/drill").write_text("MODULES=dep\n")
    done = bootloader.install(host, target, tell=lambda text: say(event="does", text=text))
    partition.close(host, target, finished=True)
    say(event="done", resumed=resumed, done=done)


def _copy(root: Path) -> None:
    excluded = [f"--exclude={path}" for path in LEFT_OUT]
    run(["rsync", "-aHAXx", "--delete", *excluded, "/", f"{root}/"], deadline=900)
    # as the real copy leaves no directory of the source's away
    for path in ("proc", "sys", "dev", "run", "tmp", "mnt", "var/cache", "boot"):
        (root / path).mkdir(exist_ok=True)


if __name__ == "__main__":
    main()
