"""What the single values in a site file may be: names, addresses, ranges, paths.

Each type here is a validator for one value that says, when it refuses, what is allowed instead;
``ets.site.schema`` puts them together into tables.
"""

from __future__ import annotations

import math
import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from ets.site.model import AddressRange

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
MAC = re.compile(r"[0-9a-f]{2}([:-])[0-9a-f]{2}(\1[0-9a-f]{2}){4}")
#: dev_valid_name() in Linux's net/core/dev.c, less what would need quoting somewhere
INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
#: Debian Policy 5.6.1
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
#: printable ASCII that means nothing to iPXE (``${}``, ``||``, ``&&``, ``#``), to a shell, or to
#: the splitting of a command line into words
KERNEL_ARG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:=/@%+~\[\]-]{0,511}")
PATH = re.compile(r"[A-Za-z0-9_.,:=/@%+~-]+")
ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")

A_NAME = "1 to 63 of a-z, 0-9 and '-', not beginning or ending with '-' (RFC 1123)"


def _refuse(message: str, allowed: str) -> PydanticCustomError:
    return PydanticCustomError("ets", "{message}", {"message": message, "allowed": allowed})


def _text(value: Any, allowed: str) -> str:
    if not isinstance(value, str):
        raise _refuse("must be text in quotes", allowed)
    return value


def _matching(pattern: re.Pattern[str], what: str, allowed: str) -> BeforeValidator:
    """A validator: text that ``pattern`` matches as a whole."""

    def check(value: Any) -> str:
        if not pattern.fullmatch(_text(value, allowed)):
            raise _refuse(f"is not {what}", allowed)
        return str(value)

    return BeforeValidator(check)


def _address(value: Any) -> IPv4Address:
    allowed = "an IPv4 address such as 10.77.0.11"
    try:
        return IPv4Address(_text(value, allowed))
    except AddressValueError:
        raise _refuse("is not an IPv4 address", allowed) from None


def _subnet(value: Any) -> IPv4Network:
    allowed = "a network with its prefix, such as 10.77.0.0/22, /8 to /30"
    text = _text(value, allowed)
    if not re.fullmatch(r"[0-9.]+/[0-9]+", text):
        raise _refuse("is not a network", allowed)
    try:
        network = IPv4Network(text, strict=False)
    except (AddressValueError, NetmaskValueError, ValueError):
        raise _refuse("is not a network", allowed) from None
    if str(network.network_address) != text.split("/")[0]:
        raise _refuse("has bits set behind its prefix", f"{network}")
    if not 8 <= network.prefixlen <= 30:
        raise _refuse("is too large or too small", allowed)
    if not (_usable(network[1]) and _usable(network[-2])):
        raise _refuse("is not a network that hosts can use", allowed)
    return network


def _range(value: Any) -> AddressRange:
    allowed = "the first and the last address, such as 10.77.1.1-10.77.1.250"
    parts = [part.strip() for part in _text(value, allowed).split("-")]
    try:
        first, last = map(IPv4Address, parts)
    except (ValueError, TypeError):
        raise _refuse("is not a range of addresses", allowed) from None
    if first > last:
        raise _refuse("ends before it begins", f"{last}-{first}, if the two are only swapped")
    return AddressRange(first, last)


def _mac(value: Any) -> str:
    allowed = "six bytes in hexadecimal, such as 52:54:00:77:00:01"
    text = _text(value, allowed).lower()
    if not MAC.fullmatch(text):
        raise _refuse("is not a MAC address", allowed)
    mac = text.replace("-", ":")
    if int(mac[:2], 16) & 1:
        raise _refuse("is a multicast or broadcast address", "a network card's own address")
    if mac == "00:00:00:00:00:00":
        raise _refuse("is no network card's address", "a network card's own address")
    return mac


def _domain(value: Any) -> str:
    allowed = "labels such as school.example, at most 253 characters, without a dot at the end"
    text = _text(value, allowed)
    labels = text.split(".")
    # a last label of digits would make it look like an address (RFC 3696, section 2)
    if len(text) > 253 or labels[-1].isdigit() or not all(map(LABEL.fullmatch, labels)):
        raise _refuse("is not a domain name", allowed)
    return text


def _time_source(value: Any) -> str:
    allowed = "a host name or an IPv4 address"
    text = _text(value, allowed)
    if re.fullmatch(r"[0-9.]+", text):
        return str(_resolver(text))
    if len(text) > 253 or not all(LABEL.fullmatch(label) for label in text.lower().split(".")):
        raise _refuse("is not a host name or address", allowed)
    return text


def _resolver(value: Any) -> IPv4Address:
    address = _address(value)
    if not _usable(address):
        raise _refuse("is no address that a station can ask", "the address of a host")
    return address


def _usable(address: IPv4Address) -> bool:
    """Can a host on a network have this address?"""
    return not (
        address.is_loopback
        or address.is_multicast
        or address.is_unspecified
        or address.is_link_local
        or address >= IPv4Address("240.0.0.0")
        or int(address) < 2**24
    )


def _whole(low: int, high: int) -> BeforeValidator:
    """A validator: a whole number from ``low`` to ``high``."""
    allowed = f"a whole number from {low} to {high}"

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _refuse("must be a whole number, without quotes", allowed)
        if not low <= value <= high:
            raise _refuse("is too small" if value < low else "is too large", allowed)
        return value

    return BeforeValidator(check)


def _weight(value: Any) -> float:
    allowed = "a number from 0.01 to 1000"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refuse("must be a number", allowed)
    # compared first: a very long integer cannot become a float
    if (isinstance(value, float) and not math.isfinite(value)) or not 0.01 <= value <= 1000:
        raise _refuse("is not a usable weight", allowed)
    return float(value)


def _mode(value: Any) -> int:
    allowed = 'octal digits in quotes, such as "0644"'
    text = _text(value, allowed)
    if not re.fullmatch(r"0?[0-7]{3,4}", text) or int(text, 8) > 0o7777:
        raise _refuse("is not a file mode", allowed)
    return int(text, 8)


def _source(value: Any) -> str:
    allowed = "the path of a file, relative to the site file, such as files/motd"
    text = _text(value, allowed)
    if not text or len(text) > 1024 or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise _refuse("is not a path", allowed)
    if text.startswith("/") or ".." in text.split("/"):
        raise _refuse("leads out of the site file's directory", allowed)
    return text


def _target(value: Any) -> str:
    allowed = "an absolute path in the image, such as /etc/motd"
    text = _text(value, allowed)
    parts = text.split("/")[1:]
    if not text.startswith("/") or not PATH.fullmatch(text) or len(text) > 1024:
        raise _refuse("is not an absolute path", allowed)
    if not all(parts) or any(part in {".", ".."} for part in parts):
        raise _refuse("is not a plain path", allowed)
    return text


#: without these a copy is no server
_VITAL = ("/bin", "/boot", "/etc", "/lib", "/opt/ets", "/sbin", "/usr", "/var/lib/dpkg")


def _excluded(value: Any) -> str:
    allowed = "an absolute path on the servers, such as /srv/scratch"
    text = _text(value, allowed)
    if not text.startswith("/") or len(text) > 1024 or not text.isprintable():
        raise _refuse("is not an absolute path", allowed)
    parts = text.split("/")[1:]
    if not all(parts) or any(part in {".", ".."} for part in parts):
        raise _refuse("is not a plain path", allowed)
    if any(f"{path}/".startswith(f"{text}/") for path in _VITAL):
        raise _refuse("is what no server can do without", "a path that holds data only")
    return text


def _kernel_arg(value: Any) -> str:
    allowed = "one argument, letters, digits and _.,:=/@%+~[]- only, such as console=ttyS0,115200"
    text = _text(value, allowed)
    if not KERNEL_ARG.fullmatch(text):
        raise _refuse("is not one kernel argument", allowed)
    if text.split("=")[0].split(".")[0] in {
        "ets",
        "ip",
        "BOOTIF",
        "root",
        "initrd",
        "nbdroot",
        "init",
    }:
        raise _refuse(
            "is set by ETS itself", "any argument but ets.*, ip, BOOTIF, root, init, initrd"
        )
    return text


Label = Annotated[
    str,
    _matching(LABEL, "a name", A_NAME),
    WithJsonSchema({"type": "string", "pattern": f"^{LABEL.pattern}$"}),
]
Domain = Annotated[
    str, BeforeValidator(_domain), WithJsonSchema({"type": "string", "format": "hostname"})
]
Zone = Annotated[
    str,
    _matching(ZONE, "a time zone", "a name such as Europe/Berlin or UTC"),
    WithJsonSchema({"type": "string"}),
]
Interface = Annotated[
    str,
    _matching(
        INTERFACE,
        "the name of a network interface",
        "1 to 15 letters, digits, '_', '.' and '-', such as eth0",
    ),
    WithJsonSchema({"type": "string", "pattern": f"^{INTERFACE.pattern}$"}),
]
Address = Annotated[
    IPv4Address, BeforeValidator(_address), WithJsonSchema({"type": "string", "format": "ipv4"})
]
Resolver = Annotated[
    IPv4Address, BeforeValidator(_resolver), WithJsonSchema({"type": "string", "format": "ipv4"})
]
Lease = Annotated[
    int,
    _whole(120, 604800),
    WithJsonSchema({"type": "integer", "minimum": 120, "maximum": 604800}),
]
Compression = Annotated[
    int, _whole(1, 22), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 22})
]
Subnet = Annotated[
    IPv4Network,
    BeforeValidator(_subnet),
    WithJsonSchema({"type": "string", "pattern": "^[0-9.]+/[0-9]+$"}),
]
Range = Annotated[
    AddressRange,
    BeforeValidator(_range),
    WithJsonSchema({"type": "string", "pattern": "^[0-9.]+ *- *[0-9.]+$"}),
]
Mac = Annotated[
    str,
    BeforeValidator(_mac),
    WithJsonSchema({"type": "string", "pattern": "^([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}$"}),
]
TimeSource = Annotated[str, BeforeValidator(_time_source), WithJsonSchema({"type": "string"})]
Weight = Annotated[
    float,
    BeforeValidator(_weight),
    WithJsonSchema({"type": "number", "minimum": 0.01, "maximum": 1000}),
]
Mode = Annotated[
    int, BeforeValidator(_mode), WithJsonSchema({"type": "string", "pattern": "^0?[0-7]{3,4}$"})
]
Package = Annotated[
    str,
    _matching(
        PACKAGE,
        "a Debian package's name",
        "lower-case letters, digits, '+', '-' and '.', such as firefox-esr",
    ),
    WithJsonSchema({"type": "string", "pattern": f"^{PACKAGE.pattern}$"}),
]
Kernel = Annotated[
    str,
    _matching(
        re.compile(r"linux-image-[a-z0-9][a-z0-9+.-]*"),
        "a Debian kernel package",
        "such as linux-image-amd64 or linux-image-cloud-amd64",
    ),
    WithJsonSchema({"type": "string", "pattern": "^linux-image-[a-z0-9][a-z0-9+.-]*$"}),
]
Source = Annotated[str, BeforeValidator(_source), WithJsonSchema({"type": "string"})]
Target = Annotated[
    str, BeforeValidator(_target), WithJsonSchema({"type": "string", "pattern": "^/"})
]
Excluded = Annotated[
    str, BeforeValidator(_excluded), WithJsonSchema({"type": "string", "pattern": "^/."})
]
KernelArg = Annotated[
    str,
    BeforeValidator(_kernel_arg),
    WithJsonSchema({"type": "string", "pattern": f"^{KERNEL_ARG.pattern}$"}),
]
