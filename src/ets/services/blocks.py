"""Block export of images: nbdkit, one export per image, named by the image's root hash.

A server that lacks an image refuses it by itself, for there is no file of that name. Reads come
from the page cache as they are; whatever costs processor time (verity, decompression) is done by
the stations.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from ets import paths
from ets.plan.desired import Account, Command, Desired, Directory, File, Probe, Unit
from ets.services._checks import verify
from ets.site.model import Problem, Server, Site

NAME = "blocks"

EXPORTS = str(paths.IMAGES / "exports")
ACCOUNT = "ets-blocks"
SERVICE = "ets-blocks.service"
SOCKET = "ets-blocks.socket"
SERVICE_FILE = f"/etc/systemd/system/{SERVICE}"
SOCKET_FILE = f"/etc/systemd/system/{SOCKET}"

# systemd holds the listening socket because nbdkit cannot ask for TCP keepalive, and connections
# inherit it: a station that is switched off says no goodbye, and each would leave its connection
# and threads behind for ever. FreeBind: the address may come later than the daemon.
_SOCKET = """\
[Unit]
Description=Images for the stations (listening socket)

[Socket]
ListenStream={address}:{port}
FreeBind=yes
NoDelay=yes
KeepAlive=yes
KeepAliveTimeSec=30
KeepAliveIntervalSec=10
KeepAliveProbes=3
Backlog=1024
TriggerLimitIntervalSec=0

[Install]
WantedBy=sockets.target
"""

# SIGKILL: asked to end, nbdkit takes no new connections but serves those that it has until the
# stations go, which they never do (a restart took a minute). It only reads, and a station whose
# connection is reset asks the next server at once.
# Four threads a connection: a station's helper asks for a few blocks at a time, and each is a read
# from the page cache. nbdkit's own figure of 16 would be thousands of threads for 300 stations.
_SERVICE = """\
[Unit]
Description=Images for the stations
Documentation=man:nbdkit(1) man:nbdkit-file-plugin(1)
Requires=ets-blocks.socket
After=ets-blocks.socket
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/bin/nbdkit --foreground --readonly --threads 4 file dir={exports}
User={account}
Restart=always
RestartSec=200ms
KillSignal=SIGKILL
SuccessExitStatus=SIGKILL
TasksMax=32768
LimitNOFILE=65536
OOMScoreAdjust=-500
CPUWeight=500
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_INET AF_UNIX
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""

# Every NBD server greets first (NBD protocol, fixed newstyle); option 2 says goodbye. The listening
# socket is systemd's, so a connection alone would not show that nbdkit lives.
_PROBE = """\
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 2) as link:
    link.settimeout(2)
    greeting = link.recv(18)
    link.sendall(b"\\0\\0\\0\\3IHAVEOPT\\0\\0\\0\\2\\0\\0\\0\\0")
    link.recv(20)
sys.exit(not greeting.startswith(b"NBDMAGICIHAVEOPT"))
"""


def enabled(site: Site, server: Server) -> bool:
    """Every server: any block may be read anywhere."""
    return True


def check(site: Site) -> Iterator[Problem]:
    """Nothing in a site file is about the export alone."""
    return iter(())


def desired(site: Site, server: Server) -> Desired:
    """nbdkit behind a socket on the stations' address."""
    socket = _SOCKET.format(address=server.stations, port=paths.PORT_NBD)
    service = _SERVICE.format(exports=EXPORTS, account=ACCOUNT)
    return Desired(
        packages=("nbdkit",),
        accounts=(Account(ACCOUNT),),
        directories=(
            Directory(str(paths.STATE)),
            Directory(str(paths.IMAGES)),
            Directory(EXPORTS),
        ),
        files=(File(SOCKET_FILE, socket.encode()), File(SERVICE_FILE, service.encode())),
        units=(
            Unit(SOCKET, restart_on=(SOCKET_FILE,)),
            Unit(SERVICE, restart_on=(SOCKET_FILE, SERVICE_FILE)),
        ),
    )


def validators(root: PurePath) -> list[Command]:
    """The units' check, and that nbdkit has its plugin."""
    plugin = Command(("nbdkit", "file", "--dump-plugin"), "nbdkit can load its file plugin")
    return [verify(root, SOCKET_FILE, SERVICE_FILE), plugin]


def probes(site: Site, server: Server) -> list[Probe]:
    """nbdkit greets on the stations' address."""
    argv = ("python3", "-c", _PROBE, str(server.stations), str(paths.PORT_NBD))
    return [Probe("nbdkit greets a new connection", "command", argv=argv)]
