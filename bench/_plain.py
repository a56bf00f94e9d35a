"""The peer: a plain LTSP station. The same image, the same DHCP, TFTP and HTTP servers, the same
kernel; only the root comes the way LTSP brings it over NBD, from one server, by nbd-client.

LTSP 23.02 documents the kernel arguments in ``ltsp ipxe`` (nbdroot=), Debian's nbd-client its
initramfs script (README.Debian).
"""

from __future__ import annotations

from collections.abc import Iterable

from ets.image.manifest import Manifest
from ets.lab.lab import Lab

FALLBACK = "/var/lib/ets/boot"


def script(server: str, manifest: Manifest, extra: Iterable[str]) -> str:
    """An iPXE boot script in which everything comes from one server, as ``ltsp ipxe`` makes it."""
    base = f"http://{server}/images/{manifest.digest}"
    words = [
        "initrd=initrd.img", "ip=dhcp", "root=/dev/nbd0", "rootfstype=squashfs", "ro",
        f"nbdroot={server},{manifest.roothash},nbd0", *extra,
    ]  # fmt: skip
    return (
        "#!ipxe\n"
        f"kernel --name vmlinuz {base}/vmlinuz\n"
        f"initrd --name initrd.img {base}/initrd.img\n"
        f"imgargs vmlinuz {' '.join(words)}\n"
        "boot vmlinuz\n"
    )


def make_plain(lab: Lab, manifest: Manifest, server: str) -> None:
    """From now on stations of this lab boot as plain LTSP stations from ``server``: the agents
    stop, and what nginx falls back to is LTSP's script."""
    address = str(lab.site.server(server).stations)
    text = script(address, manifest, lab.site.defaults.kernel_args).encode()
    for each in lab.servers.values():
        each.host.run(["systemctl", "stop", "ets-agent.service"], check=False)
        each.host.run(["sh", "-c", f"rm -f {FALLBACK}/*.ipxe"])
        each.host.write(f"{FALLBACK}/default.ipxe", text)
