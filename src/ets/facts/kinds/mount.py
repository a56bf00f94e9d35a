"""What is mounted where (proc(5), of the first process: services have views of their own)."""

from __future__ import annotations

import re

KIND = "mount"
ASK = (("cat", "/proc/1/mountinfo"),)

_OCTAL = re.compile(r"\\([0-7]{3})")
#: of this run, or the kernel's own
_PASSING = re.compile(r"/(?:dev|proc|sys|run|tmp|var/tmp|media|var/lib/docker|snap)(?:/.*)?")
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.sshfs", "9p", "glusterfs"}
_MINDED = {"ro", "rw", "nosuid", "nodev", "noexec", "noatime", "nodiratime"}


def parse(text: str) -> dict[str, dict[str, str]]:
    """``type``, ``options`` and, where it is another machine's, ``from``. Which disk it is
    differs from server to server."""
    found = {}
    for line in text.splitlines():
        own, dash, file_system = line.partition(" - ")
        fields, rest = own.split(" "), file_system.split(" ")
        if not dash or len(fields) < 6 or len(rest) < 2:
            continue
        target = _OCTAL.sub(lambda met: chr(int(met[1], 8)), fields[4])
        if _PASSING.fullmatch(target):
            continue
        options = sorted(_MINDED & set(fields[5].split(",")))
        found[target] = {"type": rest[0], "options": ",".join(options)}
        if rest[0] in _NETWORK:
            found[target]["from"] = rest[1]
    return found
