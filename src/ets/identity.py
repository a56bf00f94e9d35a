"""What makes a server this server and no other: one table, for the clone, the audit and the
handbook.

Invariant: a path that no row names is the same on all servers. What may differ, and what is not
copied, is said here and nowhere else: ``docs/identity.md`` is this table (``page``), the clone's
built-in excludes are its rows that are not copied (``left_out``), rewriting has one function for
each way that writes (``ets.clone.rewrite.WRITERS``), and the audit passes over what may differ.
Tests hold all of that.

The first row that names a path decides. A pattern is an absolute path in which ``*`` and ``?``
stand for characters within one name, ``[…]`` for one of them, ``/**/`` for any directories
between, and ``/**`` at the end for everything below. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Rule = Literal["same", "different", "left out"]


@dataclass(frozen=True, slots=True)
class Way:
    """How a row's paths come to a new server. ``copied``: they travel with the copy. ``writes``:
    rewriting changes or makes them there."""

    text: str
    copied: bool = False
    writes: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Paths with one fate. ``how`` names a way in ``WAYS``. ``folders``: directories below are
    copied though nothing else is, because programs do not start without them."""

    paths: tuple[str, ...]
    rule: Rule
    why: str
    how: str
    folders: bool = False


WAYS: Mapping[str, Way] = {
    "kept": Way("copied as it is", copied=True),
    "copied once": Way("copied; from then on each server goes on with its own", copied=True),
    "not copied": Way("not copied; made again by whoever needs it"),
    "by hand": Way(
        "removed from the copy, and named at its end, because a person must decide", True, True
    ),
    "site file": Way("written from the site file for the new name", writes=True),
    "names": Way("the old name replaced by the new one, wherever it stands as a word", True, True),
    "addresses": Way(
        "the old server's addresses and network cards replaced by the new one's", True, True
    ),
    "cards": Way("one file for each card, written from its MAC and the network's name", True, True),
    "machine id": Way("emptied; systemd makes a new one at the first start", writes=True),
    "host keys": Way("made anew: RSA, ECDSA and Ed25519", writes=True),
    "seed": Way("new random bytes", writes=True),
    "certificate": Way(
        "a new key, made on the new server, and the certificate for it", writes=True
    ),
    "disks": Way("written for the new disks; network mounts and the like are kept", True, True),
    "boot loader": Way("installed for BIOS and UEFI on the new disks", copied=True),
    "samba": Way("the SID is carried over to the new NetBIOS name", True, True),
    "initiator": Way("a new random name where there was one", True, True),
    "first boot": Way(
        "put there for the first start, removed once the server is equal", False, True
    ),
}


def _same(why: str, paths: str) -> Row:
    return Row(tuple(paths.split()), "same", why, "kept")


def _alive(why: str, paths: str) -> Row:
    return Row(tuple(paths.split()), "different", why, "copied once")


def _out(why: str, paths: str, *, folders: bool = False) -> Row:
    return Row(tuple(paths.split()), "left out", why, "not copied", folders)


def _different(how: str, why: str, paths: str) -> Row:
    return Row(tuple(paths.split()), "different", why, how)


SECTIONS: Mapping[str, tuple[Row, ...]] = {
    "ETS itself": (
        _different("site file", "tells a server which one it is", "/etc/ets/server"),
        _different(
            "certificate",
            "a key belongs to one server, so that one can be revoked alone",
            "/etc/ets/pki/server.crt /etc/ets/pki/server.key",
        ),
        _same(
            "the site's own: every server knows it",
            "/etc/ets/site.toml /etc/ets/site.lock /etc/ets/applied /etc/ets/pki/ca.crt "
            "/etc/ets/pki/site.secret",
        ),
        _same(
            "only where newcomers may be taken: then the copy may take the next one, and rebuild "
            "the server that it was copied from",
            "/etc/ets/pki/ca.key",
        ),
        _different(
            "site file",
            "hold this server's name or addresses, or its peers'",
            "/etc/chrony/chrony.conf /etc/default/tftpd-hpa /etc/kea/kea-dhcp4.conf "
            "/etc/nftables.conf /etc/nginx/nginx.conf /etc/systemd/system/ets-blocks.socket",
        ),
        _different(
            "first boot",
            "a new server is in service only when it is equal",
            "/etc/systemd/system/ets-join.service "
            "/etc/systemd/system/multi-user.target.wants/ets-join.service "
            "/var/lib/ets/runtime/joining",
        ),
        _out("what other servers ask of this one", "/var/lib/ets/joins/**"),
        _out("what this server asked of another one", "/var/lib/ets/join /var/lib/ets/join/**"),
        _alive(
            "what the agents agreed on; the survivors' state wins",
            "/var/lib/ets/runtime/records.json /var/lib/ets/runtime/site.crl",
        ),
        _out("counts this server's own starts", "/var/lib/ets/runtime/**"),
        _out(
            "this server's own history, and what it makes again",
            "/var/lib/ets/boot/** /var/lib/ets/journal/** /var/lib/ets/receipts/** "
            "/var/lib/ets/staged/** /var/lib/ets/clone /var/lib/ets/clone/** "
            "/var/lib/ets/images/incoming/**",
        ),
        _alive(
            "what ETS keeps here, and what lay there before; images are named by content",
            "/var/lib/ets/owned.json /var/lib/ets/backup/** /var/lib/ets/images/**",
        ),
    ),
    "Names": (
        _different("site file", "the server's name", "/etc/hostname"),
        _different(
            "names",
            "hold the server's name",
            "/etc/hosts /etc/mailname /etc/machine-info /etc/postfix/main.cf "
            "/etc/exim4/update-exim4.conf.conf /etc/cups/cupsd.conf",
        ),
        _different(
            "machine id",
            "two machines of one id mix up their journals, DHCP leases and D-Bus",
            "/etc/machine-id /var/lib/dbus/machine-id",
        ),
        _different(
            "initiator",
            "two machines of one name at a disk array destroy each other's data",
            "/etc/iscsi/initiatorname.iscsi /etc/nvme/hostid /etc/nvme/hostnqn /etc/hostid",
        ),
    ),
    "Keys": (
        _different("host keys", "a key proves which server it is", "/etc/ssh/ssh_host_*"),
        _different("seed", "equal seeds make equal keys", "/var/lib/systemd/random-seed"),
        _out(
            "seals secrets to one machine",
            "/var/lib/systemd/credential.secret /var/lib/NetworkManager/secret_key",
        ),
        _different(
            "by hand",
            "a tunnel's key, or a machine account in a domain, belongs to one machine",
            "/etc/wireguard/** /etc/krb5.keytab",
        ),
        _same(
            "accounts, with their numbers, and the keys of services are the same everywhere",
            "/etc/passwd /etc/shadow /etc/group /etc/gshadow /etc/subuid /etc/subgid "
            "/etc/munge/munge.key /etc/ssl/private/** /etc/letsencrypt/** /etc/sudoers "
            "/etc/sudoers.d/**",
        ),
    ),
    "Network": (
        _different(
            "cards",
            "a name stands for the card with a certain MAC",
            "/etc/systemd/network/*.link /etc/udev/rules.d/*-persistent-net.rules",
        ),
        _different(
            "addresses",
            "each server has addresses and cards of its own",
            "/etc/network/interfaces /etc/network/interfaces.d/** /etc/netplan/** "
            "/etc/systemd/network/** /etc/NetworkManager/system-connections/** "
            "/etc/dhcpcd.conf",
        ),
        _alive("written by whoever brings the network up", "/etc/resolv.conf"),
        _out(
            "leases and identifiers (DUID) that others gave this machine",
            "/etc/dhcpcd.duid /var/lib/dhcp/** /var/lib/dhcpcd/** /var/lib/NetworkManager/** "
            "/var/lib/systemd/network/**",
            folders=True,
        ),
        _out(
            "guests' leases: each server leases from a slice of its own",
            "/var/lib/kea/** /var/lib/misc/dnsmasq.leases",
            folders=True,
        ),
        _out(
            "how fast this machine's clock is",
            "/var/lib/chrony/** /var/lib/ntpsec/**",
            folders=True,
        ),
        _alive("how this machine's clock is set", "/etc/adjtime"),
    ),
    "Disks and boot loader": (
        _different(
            "disks",
            "name disks and file systems of one machine",
            "/etc/fstab /etc/crypttab /etc/mdadm/mdadm.conf /etc/initramfs-tools/conf.d/resume "
            "/var/cache/debconf/config.dat",
        ),
        _out(
            "name disks and file systems of one machine",
            "/etc/lvm/archive/** /etc/lvm/backup/** /etc/lvm/devices/** "
            "/etc/multipath/bindings /etc/multipath/wwids /boot/grub/device.map",
            folders=True,
        ),
        _different(
            "boot loader",
            "names the disks, and is made for the hardware",
            "/boot/grub /boot/grub/** /boot/initrd.img-*",
        ),
        Row(("/boot/efi",), "different", "a file system of its own, filled there", "boot loader"),
        _out("a file system of its own, filled by the boot loader", "/boot/efi/**"),
        _out("what was in memory, of no use elsewhere", "/swapfile /swap.img"),
        _out("belongs to the file system itself", "/lost+found/** /**/lost+found/**"),
    ),
    "Services": (
        _different(
            "samba",
            "keyed by the server's name: a renamed copy would change every user's SID",
            "/var/lib/samba/private/secrets.tdb /etc/samba/smb.conf",
        ),
        _alive(
            "databases: copied in one consistent state, then written by each server",
            "/var/lib/samba/** /var/lib/postgresql/**",
        ),
        _out("identify one server among others", "/var/lib/mysql/auto.cnf"),
        _alive("databases: copied in one consistent state", "/var/lib/mysql/**"),
        _out(
            "what clients of this server hold open; nodes of a cluster name themselves",
            "/var/lib/nfs/sm/** /var/lib/nfs/sm.bak/** /var/lib/nfs/v4recovery/** "
            "/var/lib/nfs/nfsdcltrack/** /var/lib/nfs/nfsdcld/** /var/lib/corosync/** "
            "/var/lib/pacemaker/** /var/lib/snmp/**",
            folders=True,
        ),
        _alive("kept by the NFS server for its clients", "/var/lib/nfs/**"),
        _out(
            "work that waits to be done: once, by the server that was asked",
            "/var/spool/cups/** /var/spool/samba/** /var/spool/exim4/** "
            "/var/spool/postfix/active/** /var/spool/postfix/bounce/** "
            "/var/spool/postfix/corrupt/** /var/spool/postfix/defer/** "
            "/var/spool/postfix/deferred/** /var/spool/postfix/hold/** "
            "/var/spool/postfix/incoming/** /var/spool/postfix/maildrop/** "
            "/var/spool/postfix/pid/** /var/spool/rsyslog/** /var/spool/cron/atjobs/** "
            "/var/spool/cron/atspool/**",
            folders=True,
        ),
        _alive("when periodic work was last done", "/var/spool/anacron/**"),
        _alive("who is told of printers' events", "/etc/cups/subscriptions.conf* /etc/cups/*.O"),
    ),
    "What a running machine leaves behind": (
        _out("a log tells what one machine did", "/var/log/journal/**"),
        _out("a log tells what one machine did", "/var/log/**", folders=True),
        _out(
            "of this run only",
            "/dev/** /proc/** /run/** /sys/** /tmp/** /var/tmp/** /var/lock/** /var/run/**",
        ),
        _out(
            "fetched again when it is needed",
            "/var/cache/apt/** /var/lib/apt/lists/**",
            folders=True,
        ),
        _alive("made again when it is needed", "/var/cache/** /**/__pycache__/**"),
        _out(
            "what happened to this machine",
            "/var/crash/** /var/lib/systemd/backlight/** /var/lib/systemd/coredump/** "
            "/var/lib/systemd/pstore/** /var/lib/systemd/rfkill/** "
            "/var/lib/systemd/timesync/** /var/lib/systemd/timers/**",
            folders=True,
        ),
        _alive(
            "written whenever programs run",
            "/etc/.pwd.lock /etc/.updated /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- "
            "/etc/subuid- /etc/subgid- /var/.updated /var/backups/** /var/lib/apt/periodic/** "
            "/var/lib/dpkg/*-old /var/lib/dpkg/lock* /var/lib/dpkg/triggers/Lock "
            "/var/lib/fwupd/** /var/lib/initramfs-tools/** /var/lib/logrotate/** "
            "/var/lib/nginx/** /var/lib/private/** /var/lib/systemd/catalog/** "
            "/var/lib/ucf/cache /var/lib/ureadahead/** /var/lib/usbutils/**",
        ),
    ),
}

#: all rows, in the order in which they are asked
ROWS: tuple[Row, ...] = tuple(row for rows in SECTIONS.values() for row in rows)


def find(path: str | bytes) -> Row | None:
    """The row that decides about ``path`` (absolute, on a server; bytes as the kernel has them).
    None: no row names it, so it is the same everywhere."""
    name = path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path
    met = _ANY.fullmatch(name)
    return ROWS[met.lastindex - 1] if met is not None and met.lastindex else None


def left_out(path: str | bytes, *, directory: bool = False) -> bool:
    """Does ``path`` stay behind when a server is copied? A row that keeps folders lets
    directories through."""
    row = find(path)
    return row is not None and not WAYS[row.how].copied and not (directory and row.folders)


def compared(path: str | bytes) -> bool:
    """Must ``path`` be equal on all servers?"""
    row = find(path)
    return row is None or row.rule == "same"


def paths_of(way: str) -> tuple[str, ...]:
    """The patterns of all rows that come to a server in this way."""
    return tuple(path for row in ROWS if row.how == way for path in row.paths)


def page() -> str:
    """The table as the handbook's page."""
    lines = [_HEAD]
    for title, rows in SECTIONS.items():
        lines += [
            f"## {title}",
            "",
            "| path | on another server | why | how |",
            "|---|---|---|---|",
        ]
        for row in rows:
            shown = "<br>".join(f"`{path}`" for path in row.paths)
            how = row.how + (" (but its directories)" if row.folders else "")
            lines.append(f"| {shown} | {row.rule} | {row.why} | {how} |")
        lines.append("")
    lines += ["## The ways", "", "| name | what happens |", "|---|---|"]
    lines += [f"| {name} | {way.text} |" for name, way in WAYS.items()]
    return "\n".join(lines) + "\n"


_HEAD = """\
# What is copied and what is not

When a server is made from another one, everything on its local disks is copied: programs,
settings, accounts with their numbers and passwords, homes, printers, databases. What follows are
the exceptions, and a few things that are worth saying. **A path that is not named here is the same
on all servers**; where servers are compared, a difference there is reported, and a new server does
not enter service with one.

Of several rows that name a path, the first one counts. `*` stands for any characters of one name,
`/**` for everything below. Paths that the site file names in `[clone] exclude` are not copied
either. Other machines' file systems (NFS, removable disks) are never copied.

This page is made from `src/ets/identity.py`; a test compares them.
"""


def _translated(pattern: str) -> str:
    """``pattern`` as a regular expression."""
    parts = re.split(r"(/\*\*/|/\*\*$|\*|\?|\[[^]/]+\])", pattern)
    met = {"/**/": "/(?:.*/)?", "/**": "/.+", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        met.get(part, part if part.startswith("[") else re.escape(part)) for part in parts
    )


# one group for each row: the last group that matched is the row
_ANY = re.compile(
    "|".join(f"({'|'.join(_translated(path) for path in row.paths)})" for row in ROWS), re.DOTALL
)
