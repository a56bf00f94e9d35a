"""Parts of Kea's configuration: client classes (which boot program each kind of firmware is given)
and how it is written down.

Sources: RFC 4578 §2.1 with the IANA registry "Processor Architecture Types" (option 93), RFC 3004
(option 77, which iPXE sends without the length byte), UEFI 2.10 §24.7.3 (HTTP boot). All classes
were checked with packets, see ``tests/daemons/test_firmware.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Address

#: Names in the TFTP directory and below http://server/ipxe/. Debian's package ``ipxe`` has those
#: for x86. It has the one for arm64 from Debian 13 on; on Debian 12 who has such stations puts it
#: into /srv/tftp by hand (decision 0012).
BIOS_FILE = "undionly.kpxe"
X64_FILE = "snponly.efi"
ARM64_FILE = "ipxe-arm64.efi"
#: wide enough for a station with the longest name
_WIDTH = 160


@dataclass(frozen=True, slots=True)
class _Firmware:
    """One kind of firmware: option 93's first architecture, what it loads, and how."""

    name: str
    architectures: tuple[int, ...]
    file: str
    http: bool = False


_FIRMWARE = (
    _Firmware("bios", (0x0000,), BIOS_FILE),
    _Firmware("uefi-x64", (0x0007, 0x0009), X64_FILE),
    _Firmware("uefi-arm64", (0x000B,), ARM64_FILE),
    _Firmware("http-x64", (0x0010,), X64_FILE, http=True),
    _Firmware("http-arm64", (0x0013,), ARM64_FILE, http=True),
)


def option(name: str, data: str, *, always: bool = False) -> dict[str, object]:
    """One entry of ``option-data``; ``always`` sends it also to who did not ask for it."""
    return {"name": name, "data": data} | ({"always-send": True} if always else {})


def classes(address: IPv4Address, *, guests: bool) -> list[dict[str, object]]:
    """The client classes of the server at ``address``.

    With ``guests`` false a DISCOVER from a MAC without a reservation is dropped, not refused.
    A REQUEST is not: a guest that holds a lease may renew it.
    """
    user_class = (
        "option[77].exists and (substring(option[77].hex,0,4)=='iPXE'"
        " or substring(option[77].hex,1,4)=='iPXE')"
    )
    found: list[dict[str, object]] = [
        {
            "name": "ipxe",
            "test": user_class,
            "boot-file-name": f"http://{address}/boot/${{netX/mac:hexhyp}}.ipxe",
        }
    ]
    found.extend(_class(firmware, address) for firmware in _FIRMWARE)
    if not guests:
        found.append({"name": "DROP", "test": "member('UNKNOWN') and pkt4.msgtype == 1"})
    return found


def _class(firmware: _Firmware, address: IPv4Address) -> dict[str, object]:
    kinds = " or ".join(
        f"substring(option[93].hex,0,2)==0x{number:04x}" for number in firmware.architectures
    )
    test = f"not member('ipxe') and ({kinds})"
    if not firmware.http:
        return {"name": firmware.name, "test": test, "boot-file-name": firmware.file}
    url = f"http://{address}/ipxe/{firmware.file}"
    return {
        "name": firmware.name,
        "test": f"{test} and substring(option[60].hex,0,10)=='HTTPClient'",
        "boot-file-name": url,
        # The firmware takes an offer for HTTP boot only with the vendor class in it; the class's
        # file name fills the header's field alone, and some firmware reads only the option.
        "option-data": [
            option("vendor-class-identifier", "HTTPClient", always=True),
            option("boot-file-name", url, always=True),
        ],
    }


def written(value: object, indent: str = "") -> str:
    """``value`` as JSON that a person can read and compare: a station is one line, whatever holds
    more than plain values is opened."""
    line = json.dumps(value)
    if not isinstance(value, dict | list) or not value:
        return line
    items = value.values() if isinstance(value, dict) else value
    plain = not any(isinstance(item, dict | list) for item in items)
    if plain and len(indent) + len(line) <= _WIDTH:
        return line
    deeper = indent + "  "
    if isinstance(value, dict):
        inner = [f"{json.dumps(key)}: {written(item, deeper)}" for key, item in value.items()]
        opening, closing = "{", "}"
    else:
        inner = [written(item, deeper) for item in value]
        opening, closing = "[", "]"
    lines = ",\n".join(deeper + item for item in inner)
    return f"{opening}\n{lines}\n{indent}{closing}"
