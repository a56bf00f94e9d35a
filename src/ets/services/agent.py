"""The agent of every server: heartbeats, boot scripts, learned guests, status."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from ets import paths
from ets.plan.desired import Command, Desired, Directory, File, Probe, Unit
from ets.services._checks import verify
from ets.site.model import Problem, Server, Site

NAME = "agent"

UNIT = "ets-agent.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
#: the digest of the site file that was applied last: the agent is started again when it changes
APPLIED = str(paths.ETC / "applied")

# /run/ets outlives a restart of the agent: its socket's directory must not vanish under a reader.
_UNIT = """\
[Unit]
Description=ETS agent
Wants=network-online.target
After=network-online.target kea-dhcp4-server.service
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=/usr/bin/ets agent run
WatchdogSec=10
TimeoutStartSec=60
Restart=always
RestartSec=500ms
RuntimeDirectory=ets
RuntimeDirectoryPreserve=yes
MemoryMax=512M
TasksMax=512
LimitNOFILE=16384
OOMScoreAdjust=-500
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=/var/lib/ets
ProtectHome=yes
PrivateTmp=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK

[Install]
WantedBy=multi-user.target
"""


def enabled(site: Site, server: Server) -> bool:
    """Every server."""
    return True


def check(site: Site) -> Iterator[Problem]:
    """Nothing in a site file is about the agent alone."""
    return iter(())


def desired(site: Site, server: Server) -> Desired:
    """The unit, and the directories that hold what the agent knows."""
    return Desired(
        directories=(
            Directory(str(paths.ETC)),
            Directory(str(paths.PKI), mode=0o700),
            Directory(str(paths.STATE)),
            Directory(str(paths.BOOT_SCRIPTS)),
            Directory(str(paths.RUNTIME), mode=0o700),
            Directory(str(paths.IMAGES)),
        ),
        files=(File(UNIT_FILE, _UNIT.encode()), File(APPLIED, f"{site.digest}\n".encode())),
        units=(Unit(UNIT, restart_on=(APPLIED, UNIT_FILE)),),
    )


def validators(root: PurePath) -> list[Command]:
    """systemd's check of the unit."""
    return [verify(root, UNIT_FILE)]


def probes(site: Site, server: Server) -> list[Probe]:
    """It answers nginx, and whoever asks for its status."""
    return [
        Probe("the agent answers nginx", "http", "127.0.0.1", paths.PORT_AGENT_LOCAL, "/metrics"),
        Probe("the agent answers on its socket", "unix", path=str(paths.AGENT_SOCKET)),
    ]
