"""The files that name one machine's disks, written for another machine's. Pure: text in, text and
what there is to say out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ets.clone.disks import Filesystem

#: file systems that lie on no local disk (beside those of FUSE and what names no device)
_ELSEWHERE = frozenset((
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "afs", "9p", "virtiofs", "tmpfs",
    "ramfs", "proc", "sysfs", "devpts", "devtmpfs", "cgroup", "cgroup2", "debugfs", "tracefs",
    "securityfs", "hugetlbfs", "mqueue", "overlay", "autofs",
))  # fmt: skip
_HEAD = "# Written when this server was made; what is not on its own disks was kept."


def fstab(text: str, new: Sequence[Filesystem]) -> tuple[str, tuple[str, ...]]:
    """fstab(5) for a server with the file systems ``new``.

    Network mounts, tmpfs, binds and what is mounted by hand only (noauto) stay. A mount point
    that the new disks lack was copied into the file system above it. Options of a mount stay where
    the file system is of the same type and the new one has none of its own.
    """
    waiting = {system.mount: system for system in new}
    lines, notes = [] if _HEAD in text else [_HEAD], []
    for line in text.splitlines():
        fields = line.split("#")[0].split()
        if len(fields) < 4 or _stays(fields):
            lines.append(line)
            continue
        source, mount, kind, options = fields[:4]
        system = waiting.pop(mount, None) if kind != "swap" else None
        if system is not None:
            lines.append(_line(_with_options(system, kind, options)))
        elif kind == "swap":
            notes.append(f"swap on {source} was not copied: make some there if it is wanted")
        else:
            notes.append(f"{mount} is a directory now, it was a file system of its own ({source})")
    lines += [_line(system) for system in waiting.values()]
    return "\n".join(lines) + "\n", tuple(notes)


def crypttab(text: str) -> tuple[str, tuple[str, ...]]:
    """crypttab(5) without the encrypted devices of the old disks, which stay as comments."""
    lines, notes = [], []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 2 and not line.lstrip().startswith("#"):
            notes.append(
                f"{fields[0]} was encrypted; its content lies on the new disk in the clear"
            )
            line = f"# on the disk that this server was copied from: {line}"  # noqa: PLW2901
        lines.append(line)
    return _text(lines), tuple(notes)


def mdadm(text: str) -> str:
    """mdadm.conf(5) without the old disks' arrays. Who makes new ones names them there."""
    kept, dropping = [], False
    for line in text.splitlines():
        dropping = line.upper().startswith("ARRAY") or (dropping and line[:1] in (" ", "\t"))
        if not dropping:
            kept.append(line)
    return _text(kept)


def debconf(text: str) -> str:
    """debconf's answers without the disks that GRUB was installed on: at its next upgrade it would
    look for them, and not find them."""
    stanzas = text.split("\n\n")
    for index, stanza in enumerate(stanzas):
        if re.match(r"\n?Name: grub-(?:pc|efi)[^\n]*/install_devices[^\n]*\n", stanza):
            stanzas[index] = re.sub(r"^Value:[^\n]*\n", "", stanza + "\n", flags=re.M).rstrip("\n")
    return "\n\n".join(stanzas) + ("\n" if stanzas[-1] and not stanzas[-1].endswith("\n") else "")


def resume() -> str:
    """initramfs-tools' setting: nothing to wake up from."""
    return "RESUME=none\n"


def _stays(fields: Sequence[str]) -> bool:
    source, _, kind, options = fields[:4]
    chosen = options.split(",")
    if kind == "swap":
        return source.startswith("/dev/zram")
    if kind in _ELSEWHERE or kind.startswith("fuse") or "_netdev" in chosen:
        return True
    return "bind" in chosen or "rbind" in chosen or "noauto" in chosen or "loop" in chosen


def _with_options(system: Filesystem, kind: str, options: str) -> Filesystem:
    if system.type != kind or system.options != "defaults":
        return system
    return replace(system, options=options)


def _line(system: Filesystem) -> str:
    if system.type == "swap":
        return f"UUID={system.uuid} none swap sw 0 0"
    order = {"/": 1}.get(system.mount, 2) if system.type.startswith(("ext", "vfat")) else 0
    return f"UUID={system.uuid} {system.mount} {system.type} {system.options} 0 {order}"


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
