"""What a server needs to be copied: programs, and PAM's word for the copy's own sshd.

No daemon runs for it. The agent starts that sshd (``ets.clone.sshd``) while a join is approved,
and stops it when the new server is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from ets import paths
from ets.plan.desired import Command, Desired, Directory, File, Probe
from ets.site.model import Problem, Server, Site

NAME = "join"

PAM = "/etc/pam.d/ets-clone-sshd"

# sshd has asked for the key already. No session is registered, so that what copies is none of the
# users' sessions: those are held for a moment during the copy, and outlive the daemon.
_PAM = """\
auth     required  pam_deny.so
account  required  pam_permit.so
password required  pam_deny.so
session  required  pam_permit.so
"""


# PAM has no check of its own, and a module that is not there refuses everybody.
_MODULES = """\
test -s "$1" || exit 1
while read -r kind control module; do
    set -- /usr/lib/*/security/"$module" /lib/*/security/"$module"
    [ -e "$1" ] || [ -e "$2" ] || { echo "there is no PAM module $module" >&2; exit 1; }
done <"$1"
"""


def enabled(site: Site, server: Server) -> bool:
    """Every server: any of them may be the last that is left."""
    return True


def check(site: Site) -> Iterator[Problem]:
    """Nothing beyond what the site file's own check asks."""
    return iter(())


def desired(site: Site, server: Server) -> Desired:
    """The programs, and a directory that is root's alone."""
    return Desired(
        packages=("openssh-server", "rsync", "zstd"),
        directories=(Directory(str(paths.STATE)), Directory(str(paths.JOINS), mode=0o700)),
        files=(File(PAM, _PAM.encode()),),
    )


def validators(root: PurePath) -> list[Command]:
    """Every module of PAM that is named is there."""
    argv = ("sh", "-c", _MODULES, "sh", str(root / PAM.removeprefix("/")))
    return [Command(argv, "PAM has every module for the copy's sshd")]


def probes(site: Site, server: Server) -> list[Probe]:
    """sshd is there and can be started."""
    argv = ("test", "-x", "/usr/sbin/sshd")
    return [Probe("sshd can be started for a copy", "command", argv=argv)]
