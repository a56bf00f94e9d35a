"""What GRUB is told, from a server's kernels and its own settings."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ets.clone.disks import Filesystem
from ets.clone.grubconfig import SETTINGS, Settings, configuration, newest_first
from ets.clone.layout import Layout, filesystems

EXT4 = Filesystem("/", "0b1c", "ext4", "errors=remount-ro")


def _settings(root: Path, text: str, **more: str) -> Settings:
    """Read as on a server: the script in a shell, with ``root``'s files in place of its own."""
    folder = root / "etc/default/grub.d"
    folder.mkdir(parents=True)
    (root / "etc/default/grub").write_text(text)
    for name, content in more.items():
        (folder / f"{name}.cfg").write_text(content)
    script = SETTINGS.replace("/etc/default", f"{root}/etc/default")
    sh = shutil.which("sh") or "/bin/sh"
    return Settings.read(subprocess.check_output([sh, "-c", script], text=True))


def test_a_servers_own_arguments_are_kept_without_those_that_name_its_disks(tmp_path: Path) -> None:
    settings = _settings(
        tmp_path,
        "GRUB_DEFAULT=0\n"
        "GRUB_TIMEOUT=2\n"
        'GRUB_CMDLINE_LINUX="console=ttyS0,115200 root=/dev/sda1 resume=UUID=12 ip=dhcp '
        'rootflags=subvol=x ipv6.disable=1"\n'
        'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n'
        'GRUB_TERMINAL="console serial"\n'
        'GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"\n',
        more='GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX mitigations=off"\n',
    )
    assert settings.arguments == (
        "console=ttyS0,115200",
        "ipv6.disable=1",
        "mitigations=off",
        "quiet",
    )
    assert settings.terminal == ("console", "serial")
    assert settings.serial == ("--unit=0", "--speed=115200")
    assert settings.timeout == 2


def test_a_server_without_settings_gets_the_usual_ones(tmp_path: Path) -> None:
    assert _settings(tmp_path, "") == Settings()


def test_newer_kernels_come_first() -> None:
    releases = ["6.1.0-9-amd64", "6.1.0-31-amd64", "5.10.0-30-amd64", "6.1.0-31-cloud-amd64"]
    assert newest_first(releases)[0].startswith("6.1.0-31")
    assert newest_first(releases)[2:] == ["6.1.0-9-amd64", "5.10.0-30-amd64"]


def test_the_root_is_named_by_its_uuid_only() -> None:
    text = configuration(["6.1.0-31-amd64", "6.1.0-9-amd64"], Layout(), EXT4, Settings(("quiet",)))
    assert "search --no-floppy --fs-uuid --set=root 0b1c" in text
    assert "linux /boot/vmlinuz-6.1.0-31-amd64 root=UUID=0b1c ro noresume quiet" in text
    assert text.index("vmlinuz-6.1.0-31") < text.index("vmlinuz-6.1.0-9")
    assert "/dev/" not in text


def test_each_layout_loads_what_it_lies_on() -> None:
    for layout, modules in (
        (Layout("lvm"), ["ext2", "lvm"]),
        (Layout("btrfs"), ["btrfs"]),
        (Layout("plain", mirror=True), ["ext2", "diskfilter", "mdraid1x"]),
    ):
        root = filesystems(layout, "0b1c", "AA")[0]
        text = configuration(["6.1"], layout, root, Settings())
        loaded = [line.split()[1] for line in text.splitlines() if line.startswith("insmod")]
        assert set(modules) <= set(loaded)


def test_btrfs_starts_from_its_subvolume() -> None:
    root = filesystems(Layout("btrfs"), "0b1c", "AA")[0]
    text = configuration(["6.1"], Layout("btrfs"), root, Settings())
    assert "linux /@/boot/vmlinuz-6.1 root=UUID=0b1c ro rootflags=subvol=@" in text


def test_arguments_cannot_break_out_of_the_configuration(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "GRUB_CMDLINE_LINUX=\"a='x y' b=;reboot} c=\\$z\"\n")
    text = configuration(["6.1"], Layout(), EXT4, settings)
    line = next(line for line in text.splitlines() if "linux /boot" in line)
    assert line.endswith("noresume 'a=x y' 'b=;reboot}' 'c=$z'")
