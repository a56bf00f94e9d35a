"""What GRUB is told to start: pure, from kernels and a server's own settings to a grub.cfg."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ets.clone.disks import Filesystem
from ets.clone.layout import SUBVOLUME, Layout

#: prints what a server's /etc/default/grub says, read as grub-mkconfig reads it
SETTINGS = r"""
for file in /etc/default/grub /etc/default/grub.d/*.cfg; do
    [ ! -f "$file" ] || . "$file"
done
for name in CMDLINE_LINUX CMDLINE_LINUX_DEFAULT TERMINAL SERIAL_COMMAND TIMEOUT; do
    eval "printf '%s=%s\\n' $name \"\${GRUB_$name:-}\""
done
"""

#: kernel arguments that name disks or networks of the server that was copied
_FOREIGN = re.compile(
    r"(root|rootflags|rootfstype|resume|resume_offset|noresume|cryptdevice|cryptopts|nfsroot|ip|boot"
    r"|BOOTIF|BOOT_IMAGE|initrd|ro|rw|luks\..*|rd\..*|ets\..*)(=.*)?"
)


@dataclass(frozen=True, slots=True)
class Settings:
    """A server's own wishes: the kernel's arguments without what named its old disks, GRUB's
    terminals, the serial line (an argument list of GRUB's ``serial``), seconds to wait."""

    arguments: tuple[str, ...] = ()
    terminal: tuple[str, ...] = ()
    serial: tuple[str, ...] = ()
    timeout: int = 5

    @classmethod
    def read(cls, text: str) -> Settings:
        """From what ``SETTINGS`` printed."""
        said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        arguments = f"{said.get('CMDLINE_LINUX', '')} {said.get('CMDLINE_LINUX_DEFAULT', '')}"
        timeout = said.get("TIMEOUT", "")
        serial = _split(said.get("SERIAL_COMMAND", ""))
        return cls(
            arguments=tuple(a for a in _split(arguments) if not _FOREIGN.fullmatch(a)),
            terminal=tuple(_split(said.get("TERMINAL", ""))),
            serial=tuple(serial[1:] if serial[:1] == ["serial"] else serial),
            timeout=int(timeout) if timeout.isdigit() else cls().timeout,
        )


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def newest_first(releases: Sequence[str]) -> list[str]:
    """Kernel releases, ``6.1.0-31-amd64`` before ``6.1.0-9-amd64``."""

    def key(release: str) -> list[tuple[int, int, str]]:
        return [
            (1, int(part), "") if part.isdigit() else (0, 0, part)
            for part in re.findall(r"\d+|[^\d]+", release)
        ]

    return sorted(releases, key=key, reverse=True)


def configuration(
    kernels: Sequence[str], layout: Layout, root: Filesystem, settings: Settings
) -> str:
    """The grub.cfg that offers ``kernels`` (newest first), each also for recovery."""
    modules = ["part_gpt", "search_fs_uuid", "btrfs" if layout.kind == "btrfs" else "ext2"]
    modules += ["lvm"] if layout.kind == "lvm" else []
    modules += ["diskfilter", "mdraid1x"] if layout.mirror else []
    lines = ["# Made when this server was copied; update-grub writes its own instead."]
    lines += [f"set timeout={settings.timeout}", "set default=0"]
    if settings.serial:
        lines.append(f"serial {_quoted(settings.serial)}")
    if settings.terminal:
        terminals = " ".join(t for t in settings.terminal if t in ("console", "serial"))
        lines += [f"terminal_input {terminals}", f"terminal_output {terminals}"] * bool(terminals)
    lines += [f"insmod {module}" for module in modules]
    lines.append(f"search --no-floppy --fs-uuid --set=root {root.uuid}")
    for kernel in kernels:
        lines += _entry(f"Debian GNU/Linux, Linux {kernel}", kernel, root, settings.arguments)
    lines += _entry(
        f"Debian GNU/Linux, Linux {kernels[0]}, recovery", kernels[0], root, ("single",)
    )
    return "\n".join(lines) + "\n"


def _entry(title: str, kernel: str, root: Filesystem, arguments: Sequence[str]) -> list[str]:
    boot = f"/{SUBVOLUME}/boot" if root.type == "btrfs" else "/boot"
    flags = [f"rootflags=subvol={SUBVOLUME}"] if root.type == "btrfs" else []
    # A copied initramfs may still know the old server's swap, and would wait for it.
    line = [f"root=UUID={root.uuid}", "ro", *flags, "noresume"]
    quoted = _quoted(arguments)
    return [
        f"menuentry '{title}' {{",
        f"    linux {boot}/vmlinuz-{kernel} {' '.join(line)}{' ' if quoted else ''}{quoted}",
        f"    initrd {boot}/initrd.img-{kernel}",
        "}",
    ]


def _quoted(words: Sequence[str]) -> str:
    """Words for GRUB's own shell, whose single quotes are like those of ours."""
    return " ".join(shlex.quote(word) for word in words)
