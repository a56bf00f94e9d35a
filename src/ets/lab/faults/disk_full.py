"""disk-full: nothing more can be written below /var/lib/ets; what is there can be read."""

from __future__ import annotations

from typing import Any

from ets import paths
from ets.lab.server import LabServer

ABOUT = "no space left in /var/lib/ets; what is there can still be read"

_SMALL = "/run/ets-lab-full"

# An overlay whose writable half is a full tmpfs behaves as a full disk does: reads go on, and
# every write, also to a file that is there, ends in ENOSPC. Services in mount namespaces of their
# own see it too, as systemd makes mounts propagate to them.
_FILL = f"""
set -e
mkdir -p {_SMALL} {paths.STATE}
mount -t tmpfs -o size=128k tmpfs {_SMALL}
mkdir {_SMALL}/upper {_SMALL}/work
mount -t overlay overlay -o lowerdir={paths.STATE},upperdir={_SMALL}/upper,workdir={_SMALL}/work \
    {paths.STATE}
dd if=/dev/zero of={_SMALL}/fill bs=4096 2>/dev/null || true
"""
_EMPTY = f"umount --lazy {paths.STATE}; umount --lazy {_SMALL}; rmdir {_SMALL}"


def inject(server: LabServer) -> dict[str, Any]:
    """Files that are open already are not affected, as with blocks reserved in advance."""
    server.host.run(["sh", "-c", _FILL])
    return {}


def heal(server: LabServer, memory: dict[str, Any]) -> None:
    """Make room. A reboot has done so already."""
    if server.running:
        server.host.run(["sh", "-c", f"mountpoint -q {_SMALL} || exit 0; {_EMPTY}"])
