"""Room on the disks: for the clone, for images, for logs, and to go on running at all."""

from __future__ import annotations

from collections.abc import Iterator

from ets.host.transport import Host
from ets.ready._ask import answers, document, rows, script
from ets.ready.finding import Facts, Finding
from ets.site.model import Server, Site

NAME = "space"

FULL, NEARLY = 0.95, 0.85
GB = 10**9
#: file systems that hold no data of this machine, or none that can be full
NONE = frozenset(
    ("tmpfs", "devtmpfs", "squashfs", "iso9660", "udf", "efivarfs", "ramfs", "nsfs", "autofs")
)
#: where more must stay free than a share of the disk says
LEAST = {
    "/": (1 * GB, "updates, and the package database"),
    "/boot": (150_000_000, "the next kernel's initrd"),
}

_DF = "df -B1 --output=source,fstype,size,used,avail,itotal,iused,target"
_IMAGES = "du -s -B1 /var/lib/ets/images/store /srv/ltsp/images"
_LOGS = r"""
du -s -B1 /var/log
command -v logrotate >/dev/null && echo logrotate
"""


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """File systems, how large images and logs are, and what can still be written to."""
    return answers(
        host,
        {
            "df": script(_DF),
            "mounts": ["findmnt", "--json", "--real", "--output", "TARGET,FSTYPE,FS-OPTIONS"],
            "images": script(_IMAGES),
            "logs": script(_LOGS),
        },
        deadline=300,
    )


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """Each file system, then what needs room at certain moments."""
    table = [row for row in rows(facts.get("df", ""), 8) if row[2].isdigit()]
    for source, kind, size, used, avail, itotal, iused, *target in table:
        if kind not in NONE and int(size) > 0:
            path = " ".join(target)
            yield from _room(path, int(size), int(avail))
            yield from _inodes(path, source, itotal, iused)
            yield from _least(path, int(size), int(avail), int(used))
    yield from _read_only(document(facts.get("mounts", "")) or {})
    yield from _images(facts.get("images", ""), table)
    yield from _logs(facts, table)
    used_all = sum(int(row[3]) for row in _disks(table))
    if used_all:
        yield Finding(
            "note",
            "clone",
            f"copies {_gb(used_all)} as far as nothing is excluded",
            "the machine that replaces a dead server needs a disk of that size and a third more",
            f"have a spare disk of at least {_gb(used_all * 4 / 3)} at hand",
        )


def _disks(table: list[list[str]]) -> list[list[str]]:
    """One row for each device, however often it is mounted."""
    found = {row[0]: row for row in table if row[1] not in NONE and row[0].startswith("/dev/")}
    return list(found.values())


def _room(path: str, size: int, avail: int) -> Iterator[Finding]:
    share = 1 - avail / size
    if share >= NEARLY:
        yield Finding(
            "critical" if share >= FULL else "warning",
            path,
            f"is {share:.0%} full: {_gb(avail)} of {_gb(size)} are left",
            "a full disk stops services one after the other, and all servers fill alike",
            f"du -xh -d 2 {path} | sort -h | tail; remove what is not needed, or enlarge it",
        )


def _inodes(path: str, source: str, itotal: str, iused: str) -> Iterator[Finding]:
    if itotal.isdigit() and iused.isdigit() and int(itotal) > 0:
        share = int(iused) / int(itotal)
        if share >= NEARLY:
            yield Finding(
                "critical" if share >= FULL else "warning",
                path,
                f"has used {share:.0%} of its inodes ({source}): there is room, but no new files",
                "a full disk stops services one after the other, and all servers fill alike",
                f"du --inodes -x -d 2 {path} | sort -h | tail",
            )


def _least(path: str, size: int, avail: int, used: int) -> Iterator[Finding]:
    if path in LEAST and 1 - avail / size < NEARLY:
        least, what = LEAST[path]
        if avail < least:
            yield Finding(
                "warning",
                path,
                f"has {_gb(avail)} left, too little for {what}",
                "the next update stops half-way, and the clone inherits it",
                "apt clean; apt autoremove",
            )


def _read_only(mounts: dict[str, list[dict[str, object]]]) -> Iterator[Finding]:
    # of the file system itself: a read-only view of one that can be written to is on purpose
    todo = list(mounts.get("filesystems", []))
    while todo:
        mount = todo.pop()
        children = mount.get("children", [])
        todo += children if isinstance(children, list) else []
        options = str(mount.get("fs-options", "")).split(",")
        if "ro" in options and mount.get("fstype") in ("ext4", "ext3", "xfs", "btrfs"):
            yield Finding(
                "critical" if mount["target"] == "/" else "warning",
                str(mount["target"]),
                "is mounted read-only: the kernel does that after an error of the disk",
                "nothing that this server is told any more lasts; its disk may be dying",
                "dmesg | grep -i -E 'error|remount'; ets ready --only disks",
            )


def _images(text: str, table: list[list[str]]) -> Iterator[Finding]:
    for row in rows(text, 2):
        size, path = int(row[0]), row[1]
        inside = [r for r in table if path == r[-1] or path.startswith(r[-1].rstrip("/") + "/")]
        room = int(max(inside, key=lambda r: len(r[-1]))[4]) if inside else None
        if room is not None and size > 50_000_000 and room < size:
            yield Finding(
                "warning",
                path,
                f"holds {_gb(size)}; only {_gb(room)} are left beside it",
                "a new image has to lie beside the one that stations still run",
                "ets image prune, or give it a larger disk",
            )


def _logs(facts: Facts, table: list[list[str]]) -> Iterator[Finding]:
    if "logs" not in facts:
        return
    lines = facts["logs"].split()
    size = int(lines[0]) if lines and lines[0].isdigit() else 0
    if size > 5 * GB:
        yield Finding(
            "warning",
            "/var/log",
            f"has grown to {_gb(size)}",
            "on the day of a failure logs grow fastest, and a full disk stops the services",
            "du -h -d 1 /var/log | sort -h; journalctl --vacuum-size=1G",
        )
    if "logrotate" not in lines and table:
        yield Finding(
            "note",
            "logrotate",
            "is not installed: files below /var/log grow for ever",
            "a full disk stops services one after the other, and all servers fill alike",
            "apt install logrotate",
        )


def _gb(size: float) -> str:
    return f"{size / GB:.1f} GB" if size >= GB else f"{size / 10**6:.0f} MB"
