"""Site files for drills, made from figures."""

from __future__ import annotations

from pathlib import Path


def campus(path: Path, *, servers: int, known: int) -> Path:
    """A site with so many servers and known stations, and room for as many guests."""
    names = ("alpha", "beta", "gamma", "delta", "epsilon")[:servers]
    lines = [
        "[site]", 'name = "drill"', 'domain = "drill.example"', 'timezone = "Europe/Berlin"',
        "[networks.lan]", 'interface = "eth0"', 'subnet = "192.168.78.0/24"',
        "[networks.stations]", 'interface = "eth1"', 'subnet = "10.79.0.0/21"',
        'known = "10.79.1.1-10.79.3.250"', 'guests = "10.79.4.1-10.79.7.250"',
        "[stations]", 'image = "console"', "guests = true", "lease = 600",
        "[images.console]", 'suite = "bookworm"', 'kernel = "linux-image-cloud-amd64"',
    ]  # fmt: skip
    for index, name in enumerate(names):
        lines += [
            "[[servers]]", f'name = "{name}"', f'lan = "192.168.78.{11 + index}"',
            f'stations = "10.79.0.{11 + index}"',
        ]  # fmt: skip
    for index, mac in enumerate(known_macs(known)):
        lines += ["[[stations.known]]", f'mac = "{mac}"', f'name = "ws{index:03}"']
    path.write_text("\n".join(lines) + "\n")
    return path


def known_macs(count: int) -> list[str]:
    """The MACs of the known stations of ``campus``."""
    return [f"52:54:00:78:{index >> 8:02x}:{index & 255:02x}" for index in range(count)]


def guest_macs(count: int, series: int = 0) -> list[str]:
    """MACs that no site file knows."""
    return [f"52:54:00:9d:{series:02x}:{index:02x}" for index in range(count)]
