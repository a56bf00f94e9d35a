"""What must not be in an image: secrets, identity, and whatever differs from build to build.

An image lies on an unauthenticated network and boots on many machines at once. So no key, no
password and no machine id is in it; and what only records when or where it was built goes too,
which makes two builds equal bit for bit.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ets.host.run import run

#: files and folders that are removed; patterns as of ``Path.glob``
SECRETS = (
    "etc/ssh/ssh_host_*", "etc/ets/*", "var/lib/ets", "etc/munge/munge.key", "etc/krb5.keytab",
    "etc/ssl/private/*", "etc/letsencrypt", "etc/wireguard/*", "etc/corosync/authkey",
    "etc/pacemaker/authkey", "etc/drbd.d/*.secret", "etc/epoptes/server.key",
    "etc/mysql/debian.cnf", "etc/NetworkManager/system-connections/*", "etc/kea/kea-api-password",
    "etc/ppp/*-secrets", "etc/iscsi/initiatorname.iscsi", "etc/multipath/wwids",
    "var/lib/samba/private/*", "var/lib/samba/*.tdb", "var/lib/NetworkManager/secret_key",
    "var/lib/systemd/random-seed", "var/lib/systemd/credential.secret", "var/lib/sss/*/*",
    "etc/sssd/sssd.conf", "root/.ssh", "root/.gnupg", "root/.bash_history", "root/.config",
    "etc/shadow-", "etc/gshadow-", "etc/passwd-", "etc/group-", "etc/subuid-", "etc/subgid-",
    "var/backups/*", "var/cache/debconf/passwords.dat*", "etc/apt/auth.conf",
    "etc/apt/auth.conf.d/*",
)  # fmt: skip

#: what only says when, where and by whom it was built
TRACES = (
    "etc/hostname", "etc/resolv.conf", "etc/.pwd.lock", "var/lib/dbus/machine-id",
    "var/log/*", "var/cache/ldconfig/aux-cache", "var/cache/apt/*.bin",
    "var/cache/apt/archives/*", "var/lib/apt/lists/*",
    "var/lib/apt/extended_states.bak", "var/lib/dpkg/*-old", "var/lib/dpkg/lock*",
    "var/cache/debconf/*-old", "var/cache/debconf/templates.dat-old", "var/lib/initramfs-tools/*",
    "var/lib/ucf/cache", "var/lib/systemd/timers/*", "var/lib/systemd/catalog/database.tmp",
    "boot/initrd.img*", "run/*", "tmp/*", "var/tmp/*", "root/.wget-hsts",
    "etc/apt/sources.list.d/0000*",
)  # fmt: skip

#: empty, but there: without it systemd takes every boot for a first boot and writes to /etc
EMPTIED = ("etc/machine-id",)

# Between creation and now nobody changed a password: the day is a trace of the build.
_ANY_DAY = "19000"


def strip(tree: Path) -> None:
    """Remove secrets and traces from ``tree``, a copy that nothing else uses."""
    for pattern in (*SECRETS, *TRACES):
        for path in tree.glob(pattern):
            _remove(path)
    for name in EMPTIED:
        (tree / name).write_bytes(b"")
    _lock_passwords(tree / "etc/shadow")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # A folder below /var/log belongs to a package, which may not start without it.
        if path.parent.name == "log":
            for inner in path.iterdir():
                _remove(inner)
        else:
            shutil.rmtree(path)
    else:
        path.unlink()


def _lock_passwords(shadow: Path) -> None:
    """No hash stays, of no account: what stays says "locked", and no date of change."""
    lines = []
    for line in shadow.read_text().splitlines():
        fields = line.split(":")
        if len(fields) == 9:
            if fields[1] not in ("*", "!", "!*", "!!"):
                fields[1] = "!"
            fields[2] = _ANY_DAY
        lines.append(":".join(fields))
    shadow.write_text("".join(f"{line}\n" for line in lines))


def secrets_in(tree: Path) -> list[str]:
    """Paths of files in ``tree`` that look like private keys: a last look before it is packed."""
    found = run(
        ["grep", "-rlIE", "--no-messages", "--devices=skip", "--max-count=1",
         "--", "^-----BEGIN ([A-Z]+ )?PRIVATE KEY-----",
         *(str(tree / name) for name in ("etc", "root", "home", "srv", "var/lib"))],
        check=False,
        deadline=600,
    ).text  # fmt: skip
    return sorted(line.removeprefix(f"{tree}/") for line in found.splitlines())
