"""Makes a copied tree start from its own disks, from BIOS and from UEFI.

GRUB comes from the installer, so that a server starts whatever it has installed itself; its
configuration lies where ``update-grub`` writes its own, which replaces it on a server that has
GRUB's packages. The root is named by its UUID everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ets.clone.partition import Target, Tell, silent
from ets.errors import CloneError, CommandFailed, HostError
from ets.host.transport import Host

#: seconds for one run of grub-install or update-initramfs
PATIENCE = 1800.0

# What a server's /etc/default/grub and /etc/default/grub.d say, as grub-mkconfig reads them.
_SETTINGS = r"""
for file in /etc/default/grub /etc/default/grub.d/*.cfg; do
    [ ! -f "$file" ] || . "$file"
done
for name in CMDLINE_LINUX CMDLINE_LINUX_DEFAULT TERMINAL TERMINAL_INPUT TERMINAL_OUTPUT \
    SERIAL_COMMAND TIMEOUT DISTRIBUTOR; do
    eval "printf '%s=%s\\n' $name \"\${GRUB_$name:-}\""
done
"""

#: kernel arguments that name what the old server had
_FOREIGN = re.compile(
    r"^(root|rootflags|rootfstype|resume|resume_offset|cryptdevice|cryptopts|nfsroot|ip|BOOT_IMAGE"
    r"|initrd|ets\..*|boot|ro|rw|noresume|luks\..*|rd\..*|BOOTIF)(=|$)"
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel in ``/boot`` with its initramfs, by its release (``6.1.0-31-amd64``)."""

    release: str


def install(host: Host, target: Target, *, tell: Tell = silent) -> tuple[str, ...]:
    """Install both boot loaders for the tree at ``target.root`` on all its disks.

    The tree must be complete and already rewritten (its fstab is not touched here). Makes an
    initramfs anew where the old one cannot start from these disks. Returns what was done, in
    words. Raises CloneError when the tree has no kernel or lacks what the layout needs,
    CommandFailed when a program failed.
    """
    raise NotImplementedError
