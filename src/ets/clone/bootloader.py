"""Makes a copied tree start from its own disks, from BIOS and from UEFI.

GRUB comes from the installer, so that a server starts whatever it has installed itself; its
configuration lies where ``update-grub`` writes its own, which replaces it on a server that has
GRUB's packages. The root is named by its UUID everywhere. Secure Boot is not supported: GRUB is
not signed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ets.clone import layout as layouts
from ets.clone.grubconfig import SETTINGS, Settings, configuration, newest_first
from ets.clone.layout import Layout
from ets.clone.partition import Target, Tell, silent
from ets.errors import CloneError
from ets.host.transport import Host

#: seconds for one run of grub-install or update-initramfs
PATIENCE = 1800.0

#: what a program in the tree needs of the machine it runs on
_BOUND = ("/dev", "/proc", "/sys", "/run")

#: a file of an initramfs without which it cannot bring up what the layout lies on
_IN_INITRAMFS = {"lvm2": "sbin/lvm", "mdadm": "sbin/mdadm"}
#: the same in a server's tree
_SHOWN_BY = {**_IN_INITRAMFS, "btrfs-progs": "bin/btrfs"}

# `-i`, then no variable of ours: what a program of the server sees
_CLEAN = (
    "env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL=C.UTF-8", "HOME=/root",
)  # fmt: skip

_MODULES = r"""
for file in /etc/initramfs-tools/initramfs.conf /etc/initramfs-tools/conf.d/*; do
    [ ! -f "$file" ] || . "$file"
done
printf %s "${MODULES:-most}"
"""

# Tells GRUB's packages where they are installed, so that their next update installs there too.
_DEBCONF = r"""
command -v debconf-set-selections >/dev/null || exit 0
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
if installed grub-pc; then
    echo "grub-pc grub-pc/install_devices multiselect $1" | debconf-set-selections
fi
if installed grub-efi-amd64; then
    echo "grub-efi-amd64 grub2/force_efi_extra_removable boolean true" | debconf-set-selections
fi
"""


def missing(layout: Layout, root: Path) -> tuple[str, ...]:
    """The packages that the server with the tree ``root`` lacks to start from such a layout and
    be looked after on it."""
    return tuple(
        package
        for package in layout.packages
        if not any((root / usr / _SHOWN_BY[package]).exists() for usr in ("usr", "."))
    )


def require(layout: Layout, root: Path) -> None:
    """Raises CloneError when a server with the tree ``root`` cannot be copied to such a layout."""
    if lacking := missing(layout, root):
        raise CloneError(
            f"a server on {' and '.join(_words(layout))} needs {', '.join(lacking)}, which the "
            "server that is copied does not have",
            hint=f"on that server: apt install {' '.join(lacking)}; then start again",
        )


def install(host: Host, target: Target, *, tell: Tell = silent) -> tuple[str, ...]:
    """Install both boot loaders for the tree at ``target.root`` on all its disks.

    The tree must be complete and already rewritten; its fstab is not touched here. Makes an
    initramfs anew where the old one cannot start from these disks. Can be run again at any time.
    Returns what was done, in words. Raises CloneError when the tree has no kernel or lacks what
    the layout needs, CommandFailed when a program failed.
    """
    require(target.layout, target.root)
    kernels = _kernels(host, target.root)
    done = []
    if target.layout.mirror or host.read(str(target.root / "etc/mdadm/mdadm.conf")):
        _write_arrays(host, target)
    with _machine_in(host, target.root):
        for release in kernels if _needs_initramfs(host, target, kernels[0]) else ():
            tell(f"making the initramfs of Linux {release}")
            _inside(host, target.root, ["update-initramfs", "-u", "-k", release])
            done.append(f"initramfs of Linux {release} made anew")
        settings = Settings.read(_inside(host, target.root, ["sh", "-c", SETTINGS]))
        _inside(host, target.root, ["sh", "-c", _DEBCONF, "sh", ", ".join(_by_id(host, target))])
    done += _install_grub(host, target, tell)
    text = configuration(kernels, target.layout, target.filesystems[0], settings)
    host.write(str(target.root / "boot/grub/grub.cfg"), text.encode(), mode=0o600)
    host.run(["sync"], deadline=PATIENCE)
    return (*done, f"boots Linux {kernels[0]}")


def _words(layout: Layout) -> Iterator[str]:
    if layout.kind != "plain":
        yield layout.kind
    if layout.mirror:
        yield "a mirror"


def _kernels(host: Host, root: Path) -> list[str]:
    """The releases of the kernels in the tree's /boot that have an initramfs, newest first."""
    names = host.names(str(root / "boot"))
    found = [
        name.removeprefix("vmlinuz-")
        for name in names
        if name.startswith("vmlinuz-") and f"initrd.img-{name[8:]}" in names
    ]
    if not found:
        raise CloneError(
            "the copied server has no kernel with an initramfs in /boot, so it cannot start",
            hint="on the primary: apt install linux-image-amd64 initramfs-tools; then start again",
        )
    return newest_first(found)


def _install_grub(host: Host, target: Target, tell: Tell) -> list[str]:
    boot = target.root / "boot"
    efi = boot / "efi"
    host.make_directory(str(efi), mode=0o700)
    done = []
    for disk in target.disks:
        tell(f"installing the boot loader for BIOS on {disk}")
        host.run(
            ["grub-install", "--target=i386-pc", f"--boot-directory={boot}", "--recheck", disk],
            deadline=PATIENCE,
        )
        done.append(f"boot loader for BIOS on {disk}")
    for esp in target.esps:
        tell(f"installing the boot loader for UEFI on {esp}")
        host.run(["mount", "-t", "vfat", "-o", "umask=0077", esp, str(efi)])
        try:
            # In the place where every firmware looks without being told by a variable of its own.
            host.run(
                ["grub-install", "--target=x86_64-efi", f"--boot-directory={boot}", "--removable",
                 f"--efi-directory={efi}", "--no-nvram", "--no-uefi-secure-boot", "--recheck"],
                deadline=PATIENCE,
            )  # fmt: skip
        finally:
            host.run(["umount", str(efi)], deadline=PATIENCE)
        done.append(f"boot loader for UEFI on {esp}")
    return done


def _needs_initramfs(host: Host, target: Target, release: str) -> bool:
    """True when the initramfs that was copied is made for other disks than these. Arrays and
    volumes that it does not know by name are assembled all the same when it has the programs."""
    root = target.root
    if _inside(host, root, ["sh", "-c", _MODULES]).strip() != "most":
        return True
    if host.look([str(root / "usr/share/initramfs-tools/hooks/cryptroot")]):
        return True
    wanted = [_IN_INITRAMFS[name] for name in target.layout.packages if name in _IN_INITRAMFS]
    if not wanted:
        return False
    listing = _inside(host, root, ["lsinitramfs", f"/boot/initrd.img-{release}"]).split()
    return not all(any(name.endswith(want) for name in listing) for want in wanted)


def _write_arrays(host: Host, target: Target) -> None:
    """mdadm.conf with this server's arrays, not the old one's."""
    path = str(target.root / "etc/mdadm/mdadm.conf")
    old = (host.read(path) or b"").decode(errors="surrogateescape").splitlines()
    kept = [line for line in old if not line.startswith("ARRAY ")]
    if target.layout.mirror:
        kept.append(host.run(["mdadm", "--detail", "--brief", layouts.ARRAY]).text.strip())
    text = "".join(f"{line}\n" for line in kept)
    host.write(path, text.encode(errors="surrogateescape"))


def _by_id(host: Host, target: Target) -> list[str]:
    """The disks by names that stay when another disk is put in, where they have such names."""
    stable = {}
    for name in reversed(host.names("/dev/disk/by-id")):
        link = f"/dev/disk/by-id/{name}"
        stable[host.run(["readlink", "--canonicalize", link]).text.strip()] = link
    return [stable.get(disk, disk) for disk in target.disks]


def _inside(host: Host, root: Path, argv: list[str]) -> str:
    return host.run(["chroot", str(root), *_CLEAN, *argv], deadline=PATIENCE).text


@contextmanager
def _machine_in(host: Host, root: Path) -> Iterator[None]:
    """What programs in the tree need to look at this machine's disks."""
    bound: list[str] = []
    try:
        for path in _BOUND:
            place = f"{root}{path}"
            host.make_directory(place)
            host.run(["mount", "--bind", path, place])
            bound.append(place)
        yield
    finally:
        for place in reversed(bound):
            host.run(["umount", "--recursive", place], check=False)
