"""A copied tree becomes another server: everything that the table says is different is, and nothing
else is."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ets import identity, paths, services
from ets.clone import machine_identity, rewrite
from ets.clone.disks import Filesystem
from ets.clone.rewrite import Newcomer
from ets.errors import CloneError
from ets.host import pki
from ets.site.load import read
from ets.site.model import Role

SITE = Path(__file__).parents[2] / "examples/pair.toml"
NICS: Mapping[Role, str] = {
    "lan": "52:54:00:00:00:01",
    "stations": "52:54:00:00:00:02",
    "compute": "52:54:00:00:00:03",
}
DISKS = (
    Filesystem("/", "11111111-1111-1111-1111-111111111111", "ext4"),
    Filesystem("/boot/efi", "ABCD-1234", "vfat", "umask=0077"),
)
PASSWD = "root:x:0:0:root:/root:/bin/bash\ntftp:x:101:102::/srv/tftp:/usr/sbin/nologin\n"

#: what a sysadmin and a running server put into alpha's tree
ALPHA = {
    "/etc/passwd": PASSWD,
    "/etc/group": "root:x:0:\ntftp:x:102:\n",
    "/etc/hostname": "alpha\n",
    "/etc/hosts": "127.0.0.1 localhost\n127.0.1.1 alpha.pair.example alpha mail\n"
    "192.168.77.12 beta\n192.168.77.5 printer\n",
    "/etc/mailname": "alpha.pair.example\n",
    "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "/var/lib/dbus/machine-id": "0123456789abcdef0123456789abcdef\n",
    "/var/lib/systemd/random-seed": "old seed",
    "/var/lib/systemd/credential.secret": "old secret",
    "/etc/ssh/ssh_host_ed25519_key": "old key",
    "/etc/ssh/ssh_host_dsa_key": "old key",
    "/etc/ssh/sshd_config": "PermitRootLogin prohibit-password\n",
    "/etc/ets/server": "alpha\n",
    "/etc/network/interfaces": "auto eth0\niface eth0 inet static\n  address 192.168.77.11/24\n"
    "  gateway 192.168.77.1\n  hwaddress ether 52:54:00:aa:00:01\n\n"
    "auto eth1\niface eth1 inet static\n  address 10.77.0.11/22\n",
    "/etc/systemd/network/10-lan.link": "[Match]\nMACAddress=52:54:00:AA:00:01\n\n"
    "[Link]\nName=eth0\n",
    "/etc/fstab": "# by hand\nUUID=aaaa / ext4 errors=remount-ro 0 1\n"
    "UUID=BBBB-1111 /boot/efi vfat umask=0022 0 1\nUUID=cccc none swap sw 0 0\n"
    "UUID=dddd /data xfs defaults 0 2\nnas:/srv /mnt/nas nfs4 _netdev 0 0\n"
    "tmpfs /scratch tmpfs size=1g 0 0\n",
    "/etc/crypttab": "crypt UUID=eeee none luks\n",
    "/etc/mdadm/mdadm.conf": "HOMEHOST <system>\nARRAY /dev/md0 metadata=1.2\n"
    "   UUID=1:2:3:4\nMAILADDR root\n",
    "/etc/initramfs-tools/conf.d/resume": "RESUME=UUID=cccc\n",
    "/etc/iscsi/initiatorname.iscsi": "# ours\n"
    "InitiatorName=iqn.1993-08.org.debian:01:aaaaaaaaaaaa\n",
    "/etc/wireguard/wg0.conf": "PrivateKey = old\n",
    "/etc/samba/smb.conf": "[global]\n  netbios name = ALPHA\n",
    "/etc/cron.d/job": "0 1 * * * root rsync alpha:/srv /backup\n",
    "/etc/motd": "alphabet soup at alpha-printer\n",
    "/var/log/syslog": "old\n",
    "/var/log/nginx/access.log": "old\n",
    "/var/lib/kea/kea-leases4.csv": "old\n",
    "/var/lib/chrony/chrony.drift": "old\n",
    "/var/lib/ets/receipts/1.json": "{}",
    "/var/lib/ets/runtime/start": "7\n",
    "/var/lib/ets/runtime/records.json": "[]\n",
    "/var/cache/debconf/config.dat": "Name: a/b\nTemplate: a/b\nValue: 1\nOwners: a\n\n"
    "Name: grub-pc/install_devices\nTemplate: grub-pc/install_devices\n"
    "Value: /dev/sda\nOwners: grub-pc\n\n"
    "Name: z/z\nTemplate: z/z\nValue: 2\nOwners: z\n",
    "/home/anna/alpha.txt": "alpha 10.77.0.11\n",
    "/tmp/x": "old",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_identity, "_RSA_BITS", 1024)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("authority")
    pki.make_ca(directory, "pair")
    pki.issue(directory, "beta", ["10.77.0.12"], directory / "beta")
    return directory


@pytest.fixture
def tree(tmp_path: Path, authority: Path) -> Path:
    for name, content in ALPHA.items():
        path = tmp_path / name[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    site = tmp_path / str(paths.SITE_FILE)[1:]
    site.write_bytes(SITE.read_bytes())
    (tmp_path / "etc/ets/pki").mkdir(mode=0o700)
    (tmp_path / "etc/ets/pki/ca.crt").write_bytes((authority / "ca.crt").read_bytes())
    (tmp_path / "etc/ets/pki/server.key").write_text("alpha's")
    return tmp_path


def newcomer(authority: Path, server: str = "beta") -> Newcomer:
    own = authority / "beta"
    return Newcomer(
        server, DISKS, NICS,
        certificate=(own / "server.crt").read_bytes(),
        key=(own / "server.key").read_bytes(),
        ca=(authority / "ca.crt").read_bytes(),
    )  # fmt: skip


def text(tree: Path, name: str) -> str:
    return (tree / name[1:]).read_text()


def test_nothing_of_the_old_server_is_left(tree: Path, authority: Path) -> None:
    said = rewrite.rewrite(tree, newcomer(authority), old="alpha")
    assert text(tree, "/etc/hostname") == "beta\n"
    assert text(tree, "/etc/ets/server") == "beta\n"
    assert text(tree, "/etc/hosts").splitlines() == [
        "127.0.0.1 localhost",
        "127.0.1.1 beta.pair.example beta mail",
        "192.168.77.5 printer",
        "192.168.77.11 alpha",
    ]
    assert text(tree, "/etc/mailname") == "beta.pair.example\n"
    assert text(tree, "/etc/machine-id") == ""
    assert str((tree / "var/lib/dbus/machine-id").readlink()) == "/etc/machine-id"
    assert len((tree / "var/lib/systemd/random-seed").read_bytes()) == 512
    assert "netbios name = beta" in text(tree, "/etc/samba/smb.conf")
    assert "01:aaaaaaaaaaaa" not in text(tree, "/etc/iscsi/initiatorname.iscsi")
    assert text(tree, "/etc/iscsi/initiatorname.iscsi").startswith("# ours\nInitiatorName=iqn.1993")
    for gone in (
        "/etc/ssh/ssh_host_dsa_key", "/var/log/syslog", "/var/log/nginx/access.log",
        "/var/lib/kea/kea-leases4.csv", "/var/lib/chrony/chrony.drift", "/etc/wireguard/wg0.conf",
        "/var/lib/ets/receipts/1.json", "/var/lib/ets/runtime/start",
        "/var/lib/systemd/credential.secret",
    ):  # fmt: skip
        assert not (tree / gone[1:]).exists(), gone
    assert (tree / "var/log/nginx").is_dir()
    assert any("/etc/wireguard/wg0.conf" in line for line in said)
    # the survivors' state comes along, what runs here is left alone
    assert text(tree, "/var/lib/ets/runtime/records.json") == "[]\n"
    assert text(tree, "/tmp/x") == "old"


def test_keys_are_new_and_private(tree: Path, authority: Path) -> None:
    rewrite.rewrite(tree, newcomer(authority), old="alpha")
    first = text(tree, "/etc/ssh/ssh_host_ed25519_key")
    assert first.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    for kind in ("rsa", "ecdsa", "ed25519"):
        private = tree / f"etc/ssh/ssh_host_{kind}_key"
        assert private.stat().st_mode & 0o777 == 0o600
        assert private.with_suffix(".pub").read_text().endswith(" root@beta\n")
    assert text(tree, "/etc/ets/pki/server.key").startswith("-----BEGIN PRIVATE KEY")
    assert (tree / "etc/ets/pki/server.key").stat().st_mode & 0o777 == 0o600
    rewrite.rewrite(tree, newcomer(authority), old="alpha")
    assert text(tree, "/etc/ssh/ssh_host_ed25519_key") != first


def test_addresses_and_cards(tree: Path, authority: Path) -> None:
    said = rewrite.rewrite(tree, newcomer(authority), old="alpha")
    interfaces = text(tree, "/etc/network/interfaces")
    assert "192.168.77.12/24" in interfaces
    assert "10.77.0.12/22" in interfaces
    assert "gateway 192.168.77.1\n" in interfaces
    assert "hwaddress ether 52:54:00:00:00:01" in interfaces
    assert "52:54:00:00:00:01" in text(tree, "/etc/systemd/network/10-lan.link")
    # the others had no file of their own
    assert not (tree / "etc/systemd/network/10-ets-lan.link").exists()
    link = text(tree, "/etc/systemd/network/10-ets-stations.link")
    assert re.search(r"PermanentMACAddress=52:54:00:00:00:02\n\n\[Link\]\nName=eth1\n", link)
    assert not [line for line in said if "still has" in line], said


def test_disks(tree: Path, authority: Path) -> None:
    said = rewrite.rewrite(tree, newcomer(authority), old="alpha")
    lines = text(tree, "/etc/fstab").splitlines()
    assert lines[1:] == [
        "# by hand",
        "UUID=11111111-1111-1111-1111-111111111111 / ext4 errors=remount-ro 0 1",
        "UUID=ABCD-1234 /boot/efi vfat umask=0077 0 2",
        "nas:/srv /mnt/nas nfs4 _netdev 0 0",
        "tmpfs /scratch tmpfs size=1g 0 0",
    ]
    assert text(tree, "/etc/crypttab").startswith("# ")
    assert text(tree, "/etc/mdadm/mdadm.conf") == "HOMEHOST <system>\nMAILADDR root\n"
    assert text(tree, "/etc/initramfs-tools/conf.d/resume") == "RESUME=none\n"
    assert "/dev/sda" not in text(tree, "/var/cache/debconf/config.dat")
    assert text(tree, "/var/cache/debconf/config.dat").count("Value:") == 2
    assert any("/data is a directory now" in line for line in said)
    assert any("swap" in line for line in said)


def test_the_first_start_has_its_own_configuration(tree: Path, authority: Path) -> None:
    rewrite.rewrite(tree, newcomer(authority), old="alpha")
    site = read(SITE)
    for file in services.desired(site, site.server("beta")).files:
        assert (tree / file.path[1:]).read_bytes() == file.content, file.path
    assert (tree / str(paths.JOINING)[1:]).exists()
    link = tree / "etc/systemd/system/multi-user.target.wants/ets-join.service"
    assert (tree / str(link.readlink())[1:]).read_text().startswith("[Unit]")


def test_everything_else_stays_as_it_was(tree: Path, authority: Path) -> None:
    def contents() -> dict[str, bytes]:
        files = (path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
        return {f"/{path.relative_to(tree)}": path.read_bytes() for path in files}

    before = contents()
    said = rewrite.rewrite(tree, newcomer(authority), old="alpha")
    after = contents()
    site = read(SITE)
    written = {file.path for file in services.desired(site, site.server("beta")).files}
    changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    assert {path for path in changed if identity.compared(path)} <= written
    assert after["/etc/motd"] == before["/etc/motd"]
    assert after["/home/anna/alpha.txt"] == before["/home/anna/alpha.txt"]
    (named,) = [line for line in said if "were copied as they are" in line]
    assert "/etc/cron.d/job" in named
    assert "/etc/motd" not in named


def test_again_is_the_same_but_for_keys(tree: Path, authority: Path) -> None:
    rewrite.rewrite(tree, newcomer(authority), old="alpha")
    once = {
        name: text(tree, name) for name in ("/etc/hosts", "/etc/fstab", "/etc/network/interfaces")
    }
    rewrite.rewrite(tree, newcomer(authority), old="alpha")
    assert {name: text(tree, name) for name in once} == once


def test_what_is_no_copy_is_refused(tree: Path, authority: Path, tmp_path: Path) -> None:
    with pytest.raises(CloneError, match="knows no server 'gamma'"):
        rewrite.rewrite(tree, newcomer(authority, "gamma"), old="alpha")
    with pytest.raises(CloneError, match="a copy of beta cannot become beta"):
        rewrite.rewrite(tree, newcomer(authority), old="beta")
    other = tmp_path / "other"
    pki.make_ca(other, "pair")
    wrong = Newcomer("beta", DISKS, NICS, b"", b"", (other / "ca.crt").read_bytes())
    with pytest.raises(CloneError, match="another authority"):
        rewrite.rewrite(tree, wrong, old="alpha")
    (tree / str(paths.SITE_FILE)[1:]).unlink()
    with pytest.raises(CloneError, match="no copy of a server"):
        rewrite.rewrite(tree, newcomer(authority), old="alpha")


def test_every_way_that_writes_has_its_writer() -> None:
    assert set(rewrite.WRITERS) == {name for name, way in identity.WAYS.items() if way.writes}


RANDOM = ("/etc/ssh/", "/var/lib/systemd/random-seed", "/etc/iscsi/")


def everything(tree: Path) -> dict[str, object]:
    """All of a tree but what is random by intention."""
    found: dict[str, object] = {}
    for path in sorted(tree.rglob("*")):
        name = f"/{path.relative_to(tree)}"
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file() and not name.startswith(RANDOM):
            found[name] = (path.read_bytes(), path.stat().st_mode)
    return found


@pytest.mark.parametrize("way", list(rewrite.WRITERS))
def test_interrupted_anywhere_it_ends_the_same(
    tree: Path, authority: Path, way: str, tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole = tmp_path_factory.mktemp("whole") / "tree"
    shutil.copytree(tree, whole, symlinks=True)
    rewrite.rewrite(whole, newcomer(authority), old="alpha")

    def power_cut(_job: rewrite.Job) -> Iterator[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(dict_of(rewrite.WRITERS), way, power_cut)
        with pytest.raises(KeyboardInterrupt):
            rewrite.rewrite(tree, newcomer(authority), old="alpha")
    rewrite.rewrite(tree, newcomer(authority), old="alpha")
    assert everything(tree) == everything(whole)


def dict_of(mapping: Mapping[str, rewrite.Writer]) -> dict[str, rewrite.Writer]:
    assert isinstance(mapping, dict)
    return mapping
