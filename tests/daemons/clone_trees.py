"""A tree with everything in it that a copy can lose, and other people's tools to compare two."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ets.host.run import run

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
SPARSE = 50 << 30
IMMUTABLE = b"srv/immutable"


def acl(user: int) -> bytes:
    """An access list as the kernel keeps it (linux/posix_acl_xattr.h): one more user may read."""
    rows = [(1, 6, -1), (2, 4, user), (4, 4, -1), (0x10, 6, -1), (0x20, 0, -1)]
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, what, who & 0xFFFFFFFF) for tag, what, who in rows
    )


def make(root: Path, files: int = 300) -> None:
    """Everything, below ``root``, which is made. The sparse file looks as if it had 50 GB."""
    base = os.fsencode(root)
    for folder in ("srv/deep/deeper", "home/anna", "opt"):
        (root / folder).mkdir(parents=True)
    for number in range(files):
        path = root / "home/anna" / f"file{number}"
        path.write_bytes(os.urandom(17 * number % 30_000))
        os.chown(path, 1000 + number % 7, 4_000_000 + number)
        path.chmod([0o644, 0o600, 0o4755, 0o2711, 0o1777, 0][number % 6])
        os.utime(path, ns=(1, 1_600_000_000_000_000_000 + number * 1_000_003))
    for name in (b"new\nline", b"bad\xff\xfeutf8", b"-rf", b" blank ", b"*?[x]\\", b"x" * 255):
        Path(os.fsdecode(base + b"/srv/" + name)).write_bytes(b"odd")
        Path(os.fsdecode(base + b"/srv/deep/" + name)).symlink_to("../../nowhere\n")
    _special(root)
    os.utime(root / "srv/deep", ns=(1, 1_500_000_000_123_456_789))


def _special(root: Path) -> None:
    srv = root / "srv"
    (srv / "plain").write_bytes(b"plain")
    for name in ("link1", "deep/link2"):
        (srv / name).hardlink_to(srv / "plain")
    (srv / "soft").symlink_to("/etc/passwd")
    os.link(srv / "soft", srv / "soft2", follow_symlinks=False)
    os.lchown(srv / "soft", 77, 78)
    for name, kind in (("disk", 0o060640), ("zero", 0o020666)):
        os.mknod(srv / name, kind, os.makedev(8, 300))
    os.mkfifo(srv / "fifo", 0o622)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(srv / "socket"))
    with (srv / "sparse").open("wb") as file:
        file.truncate(SPARSE)
        for at in (0, 1 << 30, SPARSE - 4096):
            os.pwrite(file.fileno(), b"data" * 1024, at)
    for name, key, value in (
        ("acl", "system.posix_acl_access", acl(1000)),
        ("user", "user.note", b"\0\n\xff"),
        ("trusted", "trusted.note", b"t"),
        ("capable", "security.capability", CAPABILITY),
    ):
        (srv / name).write_bytes(name.encode())
        os.setxattr(srv / name, key, value)
    os.setxattr(srv / "deep", "system.posix_acl_default", acl(1001))
    os.setxattr(srv / "deep", "user.note", b"folder")
    for name, flag in (("immutable", "+i"), ("append", "+a"), ("nodump", "+d")):
        (srv / name).write_bytes(b"flag")
        run(["chattr", flag, str(srv / name)])


def thaw(*roots: Path) -> None:
    """Let everything below be removed again."""
    for root in roots:
        run(["chattr", "-R", "-f", "-i", "-a", str(root)], check=False)


def differences(one: Path, other: Path) -> str:
    """What rsync, find, sha256sum and lsattr find to be different; nothing when they are equal.

    Sockets are not expected in ``other``, as they are not copied.
    """
    rsync = ["rsync", "-naHAXSci", "--delete", "--modify-window=-1", "--exclude=/srv/sparse"]
    found = run([*rsync, "--exclude=/srv/socket", f"{one}/", f"{other}/"], deadline=200).text
    for script in (
        r"find . ! -type s -printf '%y %m %U %G %n %T@ %l %P\0' | sort -z | tr '\0' '\1'",
        "find . -type f ! -name sparse -print0 | sort -z | xargs -0 sha256sum -z",
        "find . -type f -printf '%s %P\\0' | sort -z",
        "lsattr -R . 2>/dev/null | grep -v -e '^$' -e ':$' | sed 's/e//' | sort",
    ):
        mine, theirs = (
            subprocess.run(["sh", "-c", script], cwd=root, capture_output=True, check=True).stdout
            for root in (one, other)
        )
        if mine != theirs:
            lines = set(mine.splitlines()) ^ set(theirs.splitlines())
            found += f"{script}: {sorted(lines)[:5]!r}\n"
    return found


def wrap(argv: Sequence[str]) -> list[str]:
    """The primary is this machine."""
    return [sys.executable, "-m", "ets", *argv[1:]]


PULL = """
import sys
from pathlib import Path
from ets.clone.pull import pull
from ets.errors import EtsError
from tests.daemons.clone_trees import wrap
try:
    print(pull(wrap, Path(sys.argv[2]), source=sys.argv[1], compress=False).method)
except EtsError as error:
    sys.exit(f"refused: {error}")
"""


def pulling(source: Path, into: Path) -> list[str]:
    """A program that pulls: prints the method; or ends with 1 and an error's words."""
    return [sys.executable, "-c", PULL, str(source), str(into)]
