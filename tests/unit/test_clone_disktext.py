"""The files that name a machine's disks, and names in files, become another machine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ets.clone import disktext, names
from ets.clone.disks import Filesystem
from ets.site.load import read

ROOT = Filesystem("/", "new-root", "ext4")
EFI = Filesystem("/boot/efi", "NEWE-FI00", "vfat", "umask=0077")
SITE = read(Path(__file__).parents[2] / "examples/campus.toml")


def entries(text: str, *new: Filesystem) -> list[str]:
    result, _ = disktext.fstab(text, new)
    again, _ = disktext.fstab(result, new)
    assert again == result
    return [line for line in result.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize(
    "line",
    [
        "nas:/home /home nfs4 rw,hard 0 0",
        "//nas/share /mnt cifs credentials=/etc/x 0 0",
        "tmpfs /tmp tmpfs nosuid 0 0",
        "/srv/a /srv/b none bind 0 0",
        "/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0",
        "user@host:/x /x fuse.sshfs _netdev 0 0",
        "/dev/sdz1 /backup ext4 noauto 0 0",
        "iscsi /data xfs _netdev 0 0",
        "/dev/zram0 none swap sw 0 0",
    ],
)
def test_what_is_on_no_disk_of_its_own_stays(line: str) -> None:
    assert entries(f"{line}\n", ROOT)[0] == line


def test_options_stay_with_the_same_kind_of_file_system() -> None:
    old = "UUID=a / ext4 noatime,errors=remount-ro 0 1\n"
    assert entries(old, ROOT) == ["UUID=new-root / ext4 noatime,errors=remount-ro 0 1"]
    btrfs = Filesystem("/", "new-root", "btrfs", "subvol=@root,compress=zstd:1")
    assert entries(old, btrfs) == ["UUID=new-root / btrfs subvol=@root,compress=zstd:1 0 0"]
    xfs = "UUID=a / xfs inode64 0 0\n"
    assert entries(xfs, ROOT) == ["UUID=new-root / ext4 defaults 0 1"]


def test_new_mounts_are_added_and_old_ones_named() -> None:
    old = "UUID=a / ext4 defaults 0 1\nLABEL=data /data ext4 defaults 0 2\n"
    old += "/dev/sda3 none swap sw 0 0\n"
    text, notes = disktext.fstab(old, (ROOT, EFI))
    assert "UUID=NEWE-FI00 /boot/efi vfat umask=0077 0 2" in text
    assert "LABEL=data" not in text
    assert len(notes) == 2
    assert notes[0].startswith("/data is a directory now")
    assert "swap on /dev/sda3" in notes[1]


def test_a_server_without_disks_has_no_mounts() -> None:
    assert entries("UUID=a / ext4 defaults 0 1\n") == []


def test_debconf_forgets_where_grub_was_and_nothing_else() -> None:
    stanza = "Name: grub-pc/install_devices\nTemplate: t\nValue: /dev/sda\n"
    stanza += "Owners: grub-pc\nFlags: seen\n"
    other = "Name: grub-pc/timeout\nTemplate: t\nValue: 5\nOwners: grub-pc\n"
    for text in (f"{stanza}\n{other}", f"{other}\n{stanza}"):
        changed = disktext.debconf(text)
        assert "/dev/sda" not in changed
        assert other in changed
        assert "Owners: grub-pc\nFlags: seen\n" in changed
        assert disktext.debconf(changed) == changed
    assert disktext.debconf(other) == other


@pytest.mark.parametrize(
    ("text", "renamed"),
    [
        ("ada", "bohr"),
        ("ada.campus.example", "bohr.campus.example"),
        ("adage ada-2 2ada www.ada ada_x", "adage ada-2 2ada www.ada ada_x"),
        ("root@ada:/x, [ada]", "root@bohr:/x, [bohr]"),
    ],
)
def test_a_name_is_a_word(text: str, renamed: str) -> None:
    assert names.rename(text, "ada", "bohr") == renamed


def test_hosts_without_any_of_the_names() -> None:
    ada, bohr = SITE.servers[:2]
    text = names.hosts("127.0.0.1\tlocalhost\n::1 localhost\n# ada was here\n", SITE, ada, bohr)
    lines = text.splitlines()
    assert lines[1] == f"127.0.1.1 {bohr.name}.{SITE.domain} {bohr.name}"
    assert lines[-1] == f"{ada.peering} {ada.name}"
    assert "# ada was here" in lines
    assert names.hosts(text, SITE, ada, bohr) == text
