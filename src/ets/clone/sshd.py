"""The sshd through which a server is copied: its own, on a port of its own, for a while.

It runs only while a join is approved and not finished, lets root in by the newcomer's key alone,
and whatever is asked of it, it runs ``ets clone serve``. The server's own sshd is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from ets import paths
from ets.errors import HostError
from ets.host.atomic import write_atomic
from ets.host.run import run

UNIT = "ets-clone-sshd.service"
#: the name by which PAM knows it (``services.join`` writes its file): no session is registered for
#: what copies, which must neither be frozen with the users' sessions nor outlive the unit
NAME = "ets-clone-sshd"
SSHD = "/usr/sbin/sshd"
_MARK = "ets-join-"
#: seconds after which it ends in any case
LIFE = 86400

_CONFIG = """\
# Made by ETS for the time of a join; see ets join --list. It shows:
# {host_key}
Port {port}
{listen}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
AllowUsers root
PermitRootLogin forced-commands-only
ForceCommand {command} clone serve
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM yes
DisableForwarding yes
PermitTTY no
PermitUserRC no
PermitUserEnvironment no
PrintMotd no
PrintLastLog no
UseDNS no
PidFile none
LoginGraceTime 10
MaxAuthTries 2
MaxStartups 8:50:16
PerSourceMaxStartups 4
ClientAliveInterval 15
ClientAliveCountMax 8
# What a processor with AES instructions does fastest, and the other for those without.
Ciphers aes128-gcm@openssh.com,chacha20-poly1305@openssh.com
Compression no
"""


def config(
    directory: Path, addresses: Iterable[IPv4Address | str], port: int, host_key: str
) -> str:
    """The configuration, with keys in ``directory``; another host key makes another one."""
    listen = "\n".join(f"ListenAddress {address}:{port}" for address in addresses)
    return _CONFIG.format(
        port=port, listen=listen, directory=directory, command=paths.COMMAND, host_key=host_key
    )


def authorized(keys: Iterable[tuple[str, str]]) -> str:
    """The authorized keys: (server's name, public key) of each newcomer that may come in."""
    command = f'restrict,command="{paths.COMMAND} clone serve"'
    return "".join(f"{command} {key} {_MARK}{name}\n" for name, key in keys)


def keys(text: str) -> frozenset[tuple[str, str]]:
    """What ``authorized`` was given to make ``text``."""
    words = (line.split() for line in text.splitlines())
    return frozenset((w[-1].removeprefix(_MARK), " ".join(w[-3:-1])) for w in words if len(w) > 3)


def start(
    directory: Path, addresses: Sequence[IPv4Address | str], port: int, host_key: str
) -> None:
    """Start it as a unit of its own, unless it runs; its files lie in ``directory``.

    Raises HostError when sshd refuses its configuration or systemd does not start it.
    """
    text = config(directory, addresses, port, host_key).encode()
    file, program = directory / "sshd_config", directory / NAME
    same = file.exists() and file.read_bytes() == text
    if same and running():
        return
    if not Path(SSHD).exists():
        raise HostError(f"there is no {SSHD}", hint="apt install openssh-server, then join again")
    write_atomic(file, text, mode=0o600)
    if not program.is_symlink():
        program.symlink_to(SSHD)
    stop()
    argv = [
        "systemd-run", "--quiet", "--collect", f"--unit={UNIT}",
        "--description=ETS: a server is being copied",
        f"--property=RuntimeMaxSec={LIFE}", "--property=Restart=on-failure",
        "--property=RestartSec=500ms", "--property=RuntimeDirectory=sshd",
        "--property=RuntimeDirectoryPreserve=yes", "--property=OOMScoreAdjust=-200",
        str(program), "-D", "-e", "-f", str(file),
    ]  # fmt: skip
    run(argv, deadline=20, hint=f"journalctl -u {UNIT}")


def running() -> bool:
    """Does it run?"""
    return run(["systemctl", "is-active", "--quiet", UNIT], check=False, deadline=10).status == 0


def stop() -> None:
    """Stop it and everything that runs in it; well when it does not run."""
    if running():
        run(["systemctl", "stop", UNIT], deadline=30)
