"""What iPXE is told: the boot script of one station. Pure text in, text out.

Every script tries every server for everything, waits at most ``WAITS`` for one of them to send
the next bytes, and starts again for ever, asking for a fresh script each round. It never gives
up and never falls through to the firmware's next boot device.

Written for the oldest iPXE in use, Debian's ``ipxe`` 1.0.0+git-20190125, and QEMU's: ``--timeout``
(milliseconds without progress) is known to ``kernel``, ``initrd`` and ``chain`` there, and
``imgargs`` gives the command line once whichever server the kernel came from. Source:
https://ipxe.org/cmd, tried in ``tests/daemons/test_agent_ipxe.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from ets.cluster.mac import hyphens
from ets.cluster.newcomers import Newcomer

#: milliseconds without progress before the next server is asked: short at first, because a dead
#: server costs that much; long in every second round, because a slow network needs it
WAITS = (2000, 8000)
#: milliseconds in which J may be pressed
CHOICE = 5000
#: seconds of rest between two rounds, and between two tries of who cannot be served
PAUSE = 2
REFUSED_PAUSE = 15


@dataclass(frozen=True, slots=True)
class BootImage:
    """What a script needs of an image's manifest."""

    name: str
    digest: str
    roothash: str
    blocks: int
    seal: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """A server as a station sees it. ``http`` and ``nbd`` are ports."""

    name: str
    address: IPv4Address
    http: int = 80
    nbd: int = 10809

    @property
    def url(self) -> str:
        """Where it serves boot files."""
        return f"http://{self.address}" + ("" if self.http == 80 else f":{self.http}")

    @property
    def export(self) -> str:
        """As it stands in ``ets.servers=``."""
        return str(self.address) + ("" if self.nbd == 10809 else f":{self.nbd}")


def boot(
    sources: Sequence[Source],
    image: BootImage,
    *,
    mac: str | None,
    name: str,
    dns: Sequence[IPv4Address] = (),
    kernel_args: Iterable[str] = (),
) -> str:
    """The script that boots ``image`` from ``sources``, in their order.

    ``mac`` None: for whichever station asks; iPXE fills in its own.
    """
    where = f"/images/{image.digest}"
    named = ", ".join(source.name for source in sources)
    arguments = command_line(sources, image, mac=mac, name=name, dns=dns, extra=kernel_args)
    lines = [
        "#!ipxe",
        f"# ETS: station {name} ({mac or 'any'}), image {image.name}, servers in order: {named}",
        f"echo ETS: {name} boots image {image.name} from {named}",
        f"set wait {WAITS[0]}",
        ":again",
        *_tries([source.url + where for source in sources]),
        ":loaded",
        f"imgargs vmlinuz {arguments}",
        "boot vmlinuz || goto failed",
        ":failed",
        f"echo ETS: no server sent image {image.name} in time; trying again, for ever",
        f"iseq ${{wait}} {WAITS[0]} && set wait {WAITS[1]} || set wait {WAITS[0]}",
        f"sleep {PAUSE} ||",
        _again(sources, mac),
        "goto again",
    ]
    return "\n".join(lines) + "\n"


def installer(
    sources: Sequence[Source],
    image: BootImage,
    *,
    mac: str | None,
    newcomers: Sequence[Newcomer],
    dns: Sequence[IPv4Address] = (),
    kernel_args: Iterable[str] = (),
) -> str:
    """The script that boots the installer, to become the server of one of ``newcomers``."""
    where = ",".join(dict.fromkeys(str(one.address) for one in newcomers))
    name = newcomers[0].name if len(newcomers) == 1 else "newcomer"
    extra = [f"ets.join={where}", *kernel_args]
    return boot(sources, image, mac=mac, name=name, dns=dns, kernel_args=extra)


def choice(newcomers: Sequence[Newcomer], script: str, otherwise: str) -> str:
    """``script`` when J is pressed in time, ``otherwise`` (both whole scripts) when not."""
    names = " or ".join(one.name for one in newcomers)
    key = f"--key 0x6a --timeout {CHOICE}"
    told = f"ETS: press J within {CHOICE // 1000} s to install this machine as server {names}"
    lines = [
        "#!ipxe",
        f"prompt {key} {told} && goto install ||",
        *_body(otherwise, "station"),
        ":install",
        *_body(script, "install"),
    ]
    return "\n".join(lines) + "\n"


def local_disk(name: str) -> str:
    """The script for a server's own card: what lies on its disk, or the firmware's next choice."""
    lines = [
        "#!ipxe",
        f"echo ETS: this is server {name}: booting from its own disk",
        "iseq ${platform} pcbios && sanboot --no-describe --drive 0x80 ||",
        "exit 1",
    ]
    return "\n".join(lines) + "\n"


def _body(script: str, prefix: str) -> list[str]:
    """A script's lines without the first, its labels made its own."""
    labels = re.findall(r"^:(\w+)$", script, re.MULTILINE)
    named = re.compile(rf"(^:|\bgoto )({'|'.join(labels) or '$^'})\b", re.MULTILINE)
    return named.sub(rf"\1{prefix}_\2", script).splitlines()[1:]


def refuse(sources: Sequence[Source], *, mac: str | None, reason: str) -> str:
    """The script for a station that cannot be served now: says why on its screen, asks again."""
    lines = [
        "#!ipxe",
        ":again",
        "echo",
        f"echo ETS: {_plain(reason)}",
        "echo ETS: this workstation is ${netX/mac}, address ${netX/ip}",
        f"sleep {REFUSED_PAUSE} ||",
        _again(sources, mac),
        "goto again",
    ]
    return "\n".join(lines) + "\n"


def command_line(
    sources: Sequence[Source],
    image: BootImage,
    *,
    mac: str | None,
    name: str,
    dns: Sequence[IPv4Address] = (),
    extra: Iterable[str] = (),
) -> str:
    """The kernel's command line, with iPXE's settings still to be filled in.

    ``initrd=`` is for UEFI, where the kernel asks the firmware for it by name. The device in
    ``ip=`` is a guess that the initramfs corrects by ``BOOTIF``; it has room for two of ``dns``,
    from which LTSP writes the station's resolver. ``root=`` is what our initramfs script makes;
    LTSP looks for it before it leaves the network alone.
    """
    resolvers = "".join(f":{address}" for address in dns[:2])
    card = hyphens(mac) if mac else "${netX/mac:hexhyp}"
    words = [
        "initrd=initrd.img",
        f"ip=${{netX/ip}}::${{netX/gateway}}:${{netX/netmask}}:{name}:eth0:off{resolvers}",
        f"BOOTIF=01-{card}",
        "ets.servers=" + ",".join(source.export for source in sources),
        f"ets.root={image.roothash}",
        f"ets.blocks={image.blocks}",
        f"ets.digest={image.digest}",
        "root=/dev/nbd0",
        "ro",
    ]
    if image.seal:
        words.append("ets.seal=1")
    return " ".join([*words, *extra])


def guest_name(mac: str) -> str:
    """What a guest is called: something that a host name may be, and that tells its MAC."""
    return "guest-" + mac.replace(":", "")


def _tries(folders: Sequence[str]) -> list[str]:
    """Kernel and initrd from the first server that sends both: who is dead costs one time-out,
    not one for each file."""
    lines = []
    for number, folder in enumerate(folders):
        otherwise = f"goto server{number + 1}" if number + 1 < len(folders) else "goto failed"
        lines += [
            f":server{number}",
            "imgfree ||",
            f"kernel --name vmlinuz --timeout ${{wait}} {folder}/vmlinuz || {otherwise}",
            f"initrd --name initrd.img --timeout ${{wait}} {folder}/initrd.img || {otherwise}",
            "goto loaded",
        ]
    return lines


def _again(sources: Sequence[Source], mac: str | None) -> str:
    script = f"/boot/{hyphens(mac) if mac else '${netX/mac:hexhyp}'}.ipxe"
    chain = f"chain --autofree --replace --timeout {WAITS[1]}"
    return " || ".join([*(f"{chain} {source.url}{script}" for source in sources), "goto again"])


def _plain(text: str) -> str:
    """Text that iPXE's command line leaves alone."""
    return "".join(c if c.isalnum() or c in " .,:;()/_-" else " " for c in text)
