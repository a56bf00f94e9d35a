"""TFTP: the boot programs that BIOS and UEFI firmware fetch before there is HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from ets import paths
from ets.plan.desired import Command, Copy, Desired, Directory, File, Probe, Unit
from ets.services._checks import verify
from ets.site.model import Problem, Server, Site

NAME = "tftp"

ROOT = "/srv/tftp"
#: from Debian's package ``ipxe``; what arm64 stations load is put beside them by hand (decision
#: 0012)
PROGRAMS = ("ipxe.efi", "snponly.efi", "undionly.kpxe")
DEFAULTS = "/etc/default/tftpd-hpa"
UNIT = "tftpd-hpa.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"

# Debian ships an init script only: nothing would start the daemon again after a crash, or after a
# start that came before the stations' address was there.
_UNIT = """\
[Unit]
Description=TFTP for the stations' firmware
Documentation=man:in.tftpd(8)
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
EnvironmentFile=/etc/default/tftpd-hpa
ExecStart=/usr/sbin/in.tftpd --foreground --user ${TFTP_USERNAME} --address ${TFTP_ADDRESS} \
$TFTP_OPTIONS ${TFTP_DIRECTORY}
Restart=always
RestartSec=500ms
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
NoNewPrivileges=yes

[Install]
WantedBy=multi-user.target
"""

# Reads the first block of a boot program, as firmware would, and hangs up: opcode 1 asks, 3 is
# data, 5 ends the transfer (RFC 1350). A listening socket alone proves nothing for UDP.
_PROBE = """\
import socket, sys
ask = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ask.settimeout(2)
ask.sendto(b"\\0\\1" + sys.argv[2].encode() + b"\\0octet\\0", (sys.argv[1], 69))
data, sender = ask.recvfrom(600)
ask.sendto(b"\\0\\5\\0\\0that is all\\0", sender)
sys.exit(data[:2] != b"\\0\\3")
"""


def enabled(site: Site, server: Server) -> bool:
    """Every server: the one that answered DHCP is the one asked for the boot program."""
    return True


def check(site: Site) -> Iterator[Problem]:
    """Nothing in a site file is about TFTP."""
    return iter(())


def desired(site: Site, server: Server) -> Desired:
    """The daemon on the stations' address, with Debian's boot programs."""
    defaults = (
        'TFTP_USERNAME="tftp"\n'
        f'TFTP_DIRECTORY="{ROOT}"\n'
        f'TFTP_ADDRESS="{server.stations}:{paths.PORT_TFTP}"\n'
        'TFTP_OPTIONS="--secure"\n'
    )
    return Desired(
        packages=("ipxe", "tftpd-hpa"),
        directories=(Directory(ROOT),),
        files=(File(DEFAULTS, defaults.encode()), File(UNIT_FILE, _UNIT.encode())),
        copies=tuple(Copy(f"{ROOT}/{name}", f"/usr/lib/ipxe/{name}") for name in PROGRAMS),
        units=(Unit(UNIT, restart_on=(DEFAULTS, UNIT_FILE)),),
    )


def validators(root: PurePath) -> list[Command]:
    """The daemon has no check of its own; its unit has."""
    return [verify(root, UNIT_FILE)]


def probes(site: Site, server: Server) -> list[Probe]:
    """A boot program can be fetched."""
    argv = ("python3", "-c", _PROBE, str(server.stations), PROGRAMS[-1])
    return [Probe("the BIOS boot program can be fetched by TFTP", "command", argv=argv)]
