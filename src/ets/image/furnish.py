"""Turns a Debian tree into a station's, or an installer's: helper, hooks, units, the recipe's files
and scripts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ets.errors import CommandFailed, HostError, ImageError
from ets.host.run import run
from ets.image import library
from ets.image.recipe import Recipe
from ets.image.workbench import Workbench

#: folders of the station's parts that are copied as they are, and where to; those that an image's
#: role has no use for are missing in its recipe
PLACES = {
    "initramfs/hooks": "usr/share/initramfs-tools/hooks",
    "initramfs/scripts/local-top": "usr/share/initramfs-tools/scripts/local-top",
    "installer/scripts": "usr/share/initramfs-tools/scripts/local-bottom",
    "installer/units": "usr/lib/ets",
    "ltsp": "etc/ltsp/client/init",
    "units": "usr/lib/ets",
    "build": "usr/lib/ets",
}
ENABLED: Mapping[str, tuple[str, ...]] = {
    "station": ("ets-report", "ets-login", "ets-probe", "systemd-networkd"),
    "installer": ("ets-install", "systemd-networkd"),
}

#: units that a station never needs, or that wait for what is there already: its network is up
#: before systemd is, its disk is read-only, its clock and logs are the servers' business
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "man-db.timer", "systemd-firstboot.service",
    "systemd-homed-activate.service", "systemd-machine-id-commit.service",
    "systemd-networkd-wait-online.service", "systemd-pstore.service", "systemd-random-seed.service",
    "systemd-hwdb-update.service", "systemd-journal-catalog-update.service",
    "systemd-network-generator.service", "nbd.service", "systemd-boot-system-token.service",
)  # fmt: skip

#: units that a tree without D-Bus, a bare console, does without too: logind only fails there and
#: is started again, and the rest costs seconds of boot for file systems that nobody mounts
MASKED_BARE = (
    "dev-hugepages.mount", "getty-static.service", "proc-sys-fs-binfmt_misc.automount",
    "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "systemd-binfmt.service",
    "systemd-logind.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
)  # fmt: skip

#: units of an installer alone: its consoles belong to the installation, nobody logs in
MASKED_INSTALLER = (
    "autovt@.service", "console-getty.service", "getty@.service", "serial-getty@.service",
    "lvm2-monitor.service", "mdmonitor.service", "mdcheck_continue.timer", "mdcheck_start.timer",
    "mdmonitor-oneshot.timer",
)  # fmt: skip


def furnish(bench: Workbench, tree: Path, recipe: Recipe, epoch: int) -> None:
    """Install everything of ours and of the recipe's in ``tree`` (a path in the workbench).

    Raises ImageError, also with the output of a script of the recipe that failed.
    """
    seen = bench.inside(tree)
    parts = bench.directory / "station"
    _unfold_parts(parts, recipe)
    _install_parts(parts, seen, recipe)
    bare = not (seen / "usr/bin/dbus-daemon").exists()
    installer = recipe.image.role == "installer"
    if installer:
        _install_ets(bench, tree, epoch)
    masked = (*MASKED, *(MASKED_BARE if bare else ()), *(MASKED_INSTALLER if installer else ()))
    for unit in masked:
        link = seen / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    enabled = ENABLED[recipe.image.role]
    bench.chroot(tree, ["systemctl", "--quiet", "enable", *enabled], epoch=epoch)
    for file in recipe.files:
        target = seen / file.target.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_bytes(file.content)
        target.chmod(file.mode)
    for name, content in recipe.scripts:
        _run_script(bench, tree, recipe, name, content, epoch)
    for name in ("etc/.updated", "var/.updated"):
        # Says that /etc and /var belong to this /usr; else services update them at every boot.
        (seen / name).write_text(f"TIMESTAMP_NSEC={epoch}000000000\n")


def _unfold_parts(folder: Path, recipe: Recipe) -> None:
    """Write the station's parts to ``folder`` and compile what is to be compiled there.

    Not where the sources lie: two builds at a time would write to the same files. Raises
    ImageError.
    """
    for part in recipe.parts:
        path = folder / part.target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(part.content)
        path.chmod(part.mode)
    try:
        run(["make", "--quiet", "-C", str(folder)], deadline=300)
    except (CommandFailed, HostError) as error:
        raise ImageError(
            f"the station's helper cannot be compiled: {error.message}",
            hint="it needs gcc, make and libc6-dev",
        ) from error


def kernel_release(tree: Path) -> str:
    """The newest kernel in ``tree`` that has its modules. Raises ImageError when there is none."""
    found = [
        path.name.removeprefix("vmlinuz-")
        for path in (tree / "boot").glob("vmlinuz-*")
        if (tree / "usr/lib/modules" / path.name.removeprefix("vmlinuz-")).is_dir()
    ]
    if not found:
        raise ImageError(
            "the image has no kernel with its modules",
            hint='name a kernel package in the recipe, such as kernel = "linux-image-amd64"',
        )
    newest = found[0]
    for other in found[1:]:
        if run(["dpkg", "--compare-versions", other, "gt", newest], check=False).status == 0:
            newest = other
    return newest


def make_initrd(bench: Workbench, tree: Path, recipe: Recipe, epoch: int) -> tuple[str, Path]:
    """Make the initrd with everything in it; returns the kernel's release and the initrd's path
    as this process can open it. Raises ImageError with what mkinitramfs said.
    """
    seen = bench.inside(tree)
    release = kernel_release(seen)
    # A virtual machine needs the drivers that our hook names; hardware all that Debian has.
    modules = "list" if recipe.lean else "most"
    (seen / "etc/initramfs-tools/conf.d").mkdir(parents=True, exist_ok=True)
    (seen / "etc/initramfs-tools/conf.d/ets").write_text(
        f"MODULES={modules}\nBUSYBOX=y\nRESUME=none\nKEYMAP=n\nCOMPRESS=zstd\nFSTYPE=squashfs\n"
    )
    out = "/boot/ets-initrd.img"
    try:
        bench.chroot(tree, ["mkinitramfs", "-o", out, release], epoch=epoch)
    except CommandFailed as error:
        raise ImageError(
            f"the initrd of {recipe.image.name} could not be made: {error.output}"
        ) from error
    return release, seen / out.lstrip("/")


def _install_ets(bench: Workbench, tree: Path, epoch: int) -> None:
    """The library in /opt/ets/lib, compiled (a machine that installs has no time for it, and
    nowhere to keep it), and the command."""
    seen = bench.inside(tree)
    library.install(seen / "opt/ets/lib")
    command = seen / "usr/bin/ets"
    command.write_text(library.LAUNCHER)
    command.chmod(0o755)
    compiled = ["compileall", "-q", "--invalidation-mode", "unchecked-hash", "/opt/ets/lib"]
    # What a library brings for other versions of Python cannot be compiled, and need not be.
    bench.chroot(tree, ["sh", "-c", f"python3 -m {' '.join(compiled)} || true"], epoch=epoch)


def _install_parts(parts: Path, seen: Path, recipe: Recipe) -> None:
    for source, target in PLACES.items():
        folder = parts / source
        if not folder.is_dir():
            continue
        (seen / target).mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir()):
            if not path.is_file() or path.suffix in (".o", ".d"):
                continue
            place = seen / target
            if path.suffix in (".service", ".rules"):
                place = seen / _SPECIAL[path.suffix]
                place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place / path.name)
            (place / path.name).chmod(0o755 if os.access(path, os.X_OK) else 0o644)
    if recipe.ltsp_conf is not None:
        (seen / "etc/ltsp/ltsp.conf").write_bytes(recipe.ltsp_conf)
        # LTSP's own mode for it: it may name accounts.
        (seen / "etc/ltsp/ltsp.conf").chmod(0o660)


_SPECIAL = {".service": "usr/lib/systemd/system", ".rules": "usr/lib/udev/rules.d"}


def _run_script(
    bench: Workbench, tree: Path, recipe: Recipe, name: str, content: bytes, epoch: int
) -> None:
    seen = bench.inside(tree)
    script = seen / "root/.ets-script"
    script.write_bytes(content)
    script.chmod(0o700)
    try:
        bench.chroot(tree, ["/root/.ets-script"], epoch=epoch)
    except CommandFailed as error:
        raise ImageError(
            f"the script {name} of the image {recipe.image.name} ended with status "
            f"{error.status}: {error.output}",
            hint="scripts run inside the tree as root, without a network, and need a line '#!'",
        ) from error
    finally:
        script.unlink()
