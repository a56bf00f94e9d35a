"""This server's own tree as an image, the way LTSP does it (`ltsp image /`)."""

from __future__ import annotations

from pathlib import Path

from ets.host.run import run

_LTSP_EXCLUDES = Path("/usr/share/ltsp/server/image/image.excludes")

# What LTSP 23.02 leaves out (its image.excludes), for servers that do not have that file.
_EXCLUDES = (
    "cdrom/*", "home/*", "lost+found/*", "media/*", "mnt/*", "opt/ltsp*", "opt/ets", "root/*",
    "srv/*", "swapfile", "etc/udev/rules.d/??-persistent-*.rules", "var/cache/apt/archives/*.deb",
    "var/cache/apt/archives/partial/*", "var/crash/*", "var/lib/apt/lists/*", "var/lib/lightdm/*",
    "var/lib/mysql/*", "var/lib/sudo/*", "var/lib/systemd/linger/*", "var/mail/*",
    "var/spool/cron/*/*", "var/spool/cups/*", "var/spool/squid/*", "var/swap", "var/tmp/*",
)  # fmt: skip
#: ETS' own state on a server, which no station needs
_OURS = ("var/lib/ets/*", "var/cache/ets/*", "etc/ets/*", "opt/ets", "var/lib/kea/*")


def server_excludes() -> tuple[str, ...]:
    """What of a server's tree does not go into an image; LTSP's own list where LTSP is there."""
    listed: tuple[str, ...] = _EXCLUDES
    if _LTSP_EXCLUDES.exists():
        lines = _LTSP_EXCLUDES.read_text().splitlines()
        listed = tuple(line for line in lines if line and not line.startswith("#"))
    return (*listed, *_OURS)


def server_packages(root: Path) -> str:
    """What is installed in ``root``, one "name<tab>version" a line. Raises CommandFailed."""
    return run(["dpkg-query", f"--admindir={root}/var/lib/dpkg", "--show"]).text
