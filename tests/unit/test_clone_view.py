"""What of a server is copied: which mounts, and what is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ets import identity
from ets.clone.view import Excludes, Mount, parse_mounts, select
from ets.errors import CloneError

MOUNTS = r"""
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 0:21 / /proc rw shared:2 - proc proc rw
24 22 0:22 / /run rw shared:3 - tmpfs tmpfs rw
25 22 254:15 / /boot/efi rw - vfat /dev/vda15 rw
26 22 254:2 / /home rw shared:4 - xfs /dev/vdb rw
27 22 254:1 /srv/data /mnt/again rw - ext4 /dev/vda1 rw
28 22 0:40 / /srv/nfs rw - nfs4 server:/x rw
29 28 254:3 / /srv/nfs/local rw - ext4 /dev/vdc rw
30 22 8:1 / /media/with\040space rw - ext4 /dev/sda1 rw
31 22 8:17 / /data rw - ntfs3 /dev/sdb1 rw
32 26 254:4 / /home/old rw - ext4 /dev/vdd rw
33 22 254:5 / /run/host/incoming rw - ext4 /dev/vde rw
"""


def chosen(text: str, root: str = "/") -> tuple[list[str], str]:
    mounts = parse_mounts(text.strip())
    found, words = select(mounts, root, lambda mount: mount.source == "/dev/sda1")
    return [mount.point for mount in found], "\n".join(words)


def test_local_disks_and_nothing_else() -> None:
    points, words = chosen(MOUNTS)
    assert points == ["/home", "/home/old"]
    assert "/media/with space is not copied: /dev/sda1 can be taken away" in words
    assert "/data is not copied: it is a ntfs3 file system" in words
    assert "/srv/nfs/local is not copied: it is mounted below" in words
    assert "/boot/efi" not in words
    assert "/run" not in words


def test_below_a_tree() -> None:
    assert chosen(MOUNTS, "/home")[0] == ["/home/old"]


def test_subvolumes_are_parts_of_their_own_unless_they_are_seen_already() -> None:
    text = """
22 1 0:30 /@ / rw - btrfs /dev/vda1 rw
23 22 0:30 /@home /home rw - btrfs /dev/vda1 rw
24 22 0:30 /@/srv /mnt rw - btrfs /dev/vda1 rw
"""
    assert chosen(text)[0] == ["/home"]


def test_the_last_of_several_mounts_at_one_place() -> None:
    text = """
22 1 254:1 / / rw - ext4 /dev/vda1 rw
23 22 254:2 / /home rw - ext4 /dev/vdb rw
24 23 0:50 / /home rw - nfs4 server:/home rw
"""
    assert chosen(text)[0] == []


def test_mounts_are_read() -> None:
    assert parse_mounts("30 22 8:1 /a /media/x\\040y rw shared:1 - ext4 /dev/sda1 rw") == (
        Mount("/media/x y", "/a", "ext4", "8:1", "/dev/sda1"),
    )


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        (b"/srv/scratch", False),
        (b"/srv/scratch/a/b", False),
        (b"/srv/scratched", True),
        (b"/home/anna/cache", False),
        (b"/home/anna/cache/x", False),
        (b"/home/anna/more/cache", True),
        (b"/data/a/b/c.iso", False),
        (b"/data/a/b/\xff.iso", False),
        (b"/data/new\nline.iso", False),
        (b"/data/a/b/c.img", True),
    ],
)
def test_patterns(path: bytes, kept: bool) -> None:
    excludes = Excludes(["/srv/scratch/", "/home/*/cache", "/data/**.iso"])
    pruned = any(path == cut or path.startswith(cut + b"/") for cut in excludes.prune)
    assert (excludes.keep(path, False) and not pruned) is kept


PARTS = st.sampled_from(
    ["usr", "etc", "var", "lib", "ets", "log", "srv", "lost+found", "__pycache__", "hostname", "x"]
)


@given(st.lists(PARTS, min_size=1, max_size=5), st.booleans())
def test_the_table_is_asked_whenever_it_matters(parts: list[str], directory: bool) -> None:
    path = "/" + "/".join(parts)
    kept = Excludes().keep(path.encode(), directory)
    assert kept is not identity.left_out(path, directory=directory)


@pytest.mark.parametrize("pattern", ["srv", "../x", "/srv/../etc"])
def test_no_other_patterns(pattern: str) -> None:
    with pytest.raises(CloneError, match="cannot be left out"):
        Excludes([pattern])
