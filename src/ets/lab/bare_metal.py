"""What a server has when it runs on a disk of its own, and a container need not: a kernel, network
addresses that it sets itself, consoles. A lab whose servers are to be copied lays it out.

It is what a sysadmin would have made by hand, and none of it knows of the lab.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ets.site.model import ROLES, Role, Server, Site

#: Debian packages; the guest agent is how a hypervisor talks to a virtual machine
PACKAGES = (
    "e2fsprogs", "initramfs-tools", "kmod", "linux-image-cloud-amd64", "qemu-guest-agent", "udev",
    "zstd",
)  # fmt: skip

_SYSTEM = "/lib/systemd/system"
_AGENT = "dev-virtio\\x2dports-org.qemu.guest_agent.0.device.wants"
#: unit files by where they are wanted; as ``systemctl enable`` would link them
_WANTED = (
    ("multi-user.target.wants", "systemd-networkd.service"),
    ("network-online.target.wants", "systemd-networkd-wait-online.service"),
    ("sockets.target.wants", "systemd-networkd.socket"),
    ("getty.target.wants", "getty@tty1.service"),
    (_AGENT, "qemu-guest-agent.service"),
)  # fmt: skip

# The machine is in a cupboard: who reaches its serial line may log in.
_SERIAL = """\
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --keep-baud 115200,57600,38400,9600 - $TERM
"""


def lay_out(root: Path, site: Site, server: Server) -> None:
    """Write into the tree at ``root``."""
    for role in ROLES:
        if role in server.addresses:
            path = root / f"etc/systemd/network/{role}.network"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in _network(site, server, role)))
    units = root / "etc/systemd/system"
    for folder, unit in _WANTED:
        (units / folder).mkdir(parents=True, exist_ok=True)
        name = f"{unit.partition('@')[0]}@.service" if "@" in unit else unit
        link = units / folder / unit
        link.unlink(missing_ok=True)
        link.symlink_to(f"{_SYSTEM}/{name}")
    serial = units / "serial-getty@ttyS0.service.d/autologin.conf"
    serial.parent.mkdir(parents=True, exist_ok=True)
    serial.write_text(_SERIAL)


def _network(site: Site, server: Server, role: Role) -> Iterator[str]:
    network = site.networks[role]
    yield "[Match]"
    yield f"Name={network.interface}"
    yield ""
    yield "[Network]"
    yield f"Address={server.addresses[role]}/{network.subnet.prefixlen}"
    if network.gateway is not None:
        yield f"Gateway={network.gateway}"
    yield "LinkLocalAddressing=no"
    yield "IPv6AcceptRA=no"
    # Services are bound to the address: a pulled cable must not take it away.
    yield "ConfigureWithoutCarrier=yes"
