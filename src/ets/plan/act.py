"""How single steps are done on a host: programs and deadlines. ``apply`` decides the order.

Everything here may be done again after a crash with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from ets.errors import CommandFailed, EtsError, HostError, PlanError
from ets.host.transport import Host
from ets.plan.desired import Account, Command

APT_SECONDS = 1800.0
VALIDATOR_SECONDS = 60.0
#: systemd's own default for a start is 90 s, for a stop as well
UNIT_SECONDS = 200.0
#: leave the links in /etc/rc?.d alone, which nobody reads and whose absence makes enabling fail
SYSTEMD_ONLY = ("env", "SYSTEMCTL_SKIP_SYSV=1")
APT = (
    "env",
    "DEBIAN_FRONTEND=noninteractive",
    "NEEDRESTART_SUSPEND=1",
    "APT_LISTCHANGES_FRONTEND=none",
)
APT_OPTIONS = (
    "--quiet",
    "--assume-yes",
    "--no-install-recommends",
    "--option=Dpkg::Options::=--force-confold",
    "--option=DPkg::Lock::Timeout=300",
)


def install(host: Host, names: Sequence[str]) -> None:
    """Install Debian packages, after finishing what an interrupted dpkg left; the lists are
    updated only when it does not work without. Raises HostError."""
    if not names:
        return
    host.run([*APT, "dpkg", "--force-confold", "--configure", "--pending"], deadline=APT_SECONDS)
    command = [*APT, "apt-get", *APT_OPTIONS, "install", "--", *names]
    if host.run(command, deadline=APT_SECONDS, check=False).status == 0:
        return
    hint = "is a Debian mirror reachable (apt-get update), and are these names right?"
    host.run([*APT, "apt-get", "--quiet", "update"], deadline=APT_SECONDS, hint=hint)
    host.run(command, deadline=APT_SECONDS, hint=hint)


def let_go(host: Host, name: str) -> None:
    """Mark a package as automatically installed: apt removes it when nothing needs it."""
    host.run(["apt-mark", "auto", name])


def account(host: Host, wanted: Account, *, exists: bool) -> None:
    """Make a system account without login, or add it to groups. Raises HostError."""
    if not exists:
        options = ("--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin")
        host.run(["useradd", *options, "--home-dir", wanted.home, wanted.name])
    if wanted.groups:
        host.run(["usermod", "--append", "--groups", ",".join(wanted.groups), wanted.name])


def validate(host: Host, command: Command) -> None:
    """Run a daemon's own check on the staged files. Raises PlanError with what it said.

    Outside its AppArmor profile, where there is one: a profile allows the daemon its files in
    /etc, not the staged ones.
    """
    tool, profiles = "/usr/bin/aa-exec", "/sys/kernel/security/apparmor/profiles"
    confined = len(host.look([tool])) == 1 and len(host.look([profiles])) == 1
    prefix = [tool, "-p", "unconfined", "--"] if confined else []
    try:
        host.run([*prefix, *command.argv], deadline=VALIDATOR_SECONDS)
    except HostError as error:
        said = error.output if isinstance(error, CommandFailed) else error.message
        program = PurePosixPath(command.argv[0]).name
        raise PlanError(
            f"{program} refuses the new configuration ({command.why}): {said}",
            hint="nothing was changed; correct the site file (ets check) and plan again",
        ) from error


def daemon_reload(host: Host) -> None:
    """Let systemd read its unit files again."""
    host.run(["systemctl", "daemon-reload"], deadline=UNIT_SECONDS)


def enable(host: Host, names: Sequence[str]) -> None:
    """Have units started at boot, also masked ones."""
    host.run(["systemctl", "unmask", "--", *names], deadline=UNIT_SECONDS)
    host.run([*SYSTEMD_ONLY, "systemctl", "enable", "--", *names], deadline=UNIT_SECONDS)


def disable(host: Host, names: Sequence[str]) -> None:
    """Have units no longer started at boot."""
    host.run([*SYSTEMD_ONLY, "systemctl", "disable", "--", *names], deadline=UNIT_SECONDS)


def stop(host: Host, name: str) -> None:
    """Stop a unit."""
    host.run(["systemctl", "stop", "--", name], deadline=UNIT_SECONDS)


def start(host: Host, name: str, *, reload: bool) -> None:
    """Restart a unit, or reload it; one that is not running is started.

    Also used for a plain start, because a package's own scripts may have started the daemon with
    its old files since the facts were read. Raises HostError with the unit's last words.
    """
    host.run(["systemctl", "reset-failed", "--", name], check=False)
    verb = "reload-or-restart" if reload else "restart"
    try:
        host.run(["systemctl", verb, "--", name], deadline=UNIT_SECONDS)
    except HostError as error:
        raise HostError(
            f"{name} does not start: {last_words(host, name) or error.message}",
            hint=f"look at: systemctl status {name}; journalctl -u {name}",
        ) from error


def last_words(host: Host, name: str) -> str:
    """The last lines that a unit wrote to the journal; empty when they cannot be had."""
    command = ["journalctl", "--unit", name, "--lines=15", "--no-pager", "--output=cat"]
    try:
        return host.run(command, check=False, deadline=10.0).text.strip()
    except EtsError:
        return ""


def remove_tree(host: Host, path: str) -> None:
    """Remove what ETS itself made below ``path``, and ``path``; well when there is nothing."""
    entry = host.look([path]).get(path)
    if entry is None:
        return
    if entry.kind == "directory":
        for name in host.names(path):
            remove_tree(host, f"{path}/{name}")
    host.remove(path)
