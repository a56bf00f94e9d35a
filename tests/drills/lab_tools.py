"""What the lab's drills share: labs with names of their own, and a look for what they leave."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.unit.image_store import make_image

from ets.image import publish
from ets.image.store import Store
from ets.lab.lab import Lab
from ets.lab.state import RUN
from ets.lab.topology import Namespace
from ets.lab.tree import cache_directory

PAIR = Path(__file__).parents[2] / "examples/pair.toml"

# One attempt to use a server's block export, in one word. A server's kernel may accept the
# connection although nobody is there, so only the greeting counts.
_ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.7) as link:
        link.settimeout(0.7)
        print("answers" if link.recv(8) else "closed")
except ConnectionError:
    print("refused")
except TimeoutError:
    print("silent")
except OSError as error:
    print("unreachable")
"""


def lab_name(tag: str) -> str:
    """A name that no other run of the tests has at the same time."""
    return f"t{tag}{os.getpid()}"[:12]


def leftovers(name: str) -> list[str]:
    """Everything of the lab ``name`` that this machine still has: must be empty."""
    found = [f"namespace {path.name}" for path in Path("/run/netns").glob(f"ets-{name}-*")]
    found += [str(path) for path in RUN.glob(name)]
    found += [str(path) for path in (cache_directory() / "labs").glob(name)]
    found += [str(path) for path in Path("/run/systemd/nspawn").glob(f"*/ets-{name}-*")]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/ets-lab/{name}")]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [line for line in mounts if f"/labs/{name}/" in line or f"ets-{name}-" in line]
    links = json.loads(subprocess.check_output(["ip", "-json", "link"]))
    ours = ("br-lan", "br-stations", "br-compute", "s0-lan", "s0-stations", "tap0")
    found += [link["ifname"] for link in links if link["ifname"] in ours]
    return found + list(processes(name))


def processes(name: str) -> Iterator[str]:
    """Processes of the lab: in its cgroup, or with its paths on their command line. Not those
    that have ended and only wait to be noticed by the machine's init."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            group = (directory / "cgroup").read_text()
            line = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            ended = b") Z " in (directory / "stat").read_bytes()
        except OSError:
            continue
        if ended:
            continue
        if f"/ets-lab/{name}/" in group or f"/labs/{name}/" in line or f"ets-{name}-" in line:
            yield f"{directory.name} {line}"


def ask(net: Namespace, address: object, port: int = 10809) -> str:
    """``answers``, ``closed``, ``refused``, ``silent`` or ``unreachable``."""
    return net.run(["python3", "-c", _ASK, str(address), str(port)]).text.strip()


def tiny_store(root: Path) -> str:
    """An image store with one published image that boots nothing; returns its root hash."""
    store = Store(root)
    store.prepare()
    digest = make_image(store, os.urandom(64 * 4096))
    store.export(digest)
    publish.publish(store, "console", digest)
    return store.manifest(digest).roothash


def image_read(net: Namespace, address: object, export: str) -> bytes:
    """The whole image as a server exports it."""
    return net.run(["nbdcopy", f"nbd://{address}/{export}", "-"], deadline=60).stdout


@contextmanager
def bystander(lab: Lab, address: str) -> Iterator[Namespace]:
    """A machine of no importance on the stations' network."""
    name = f"ets-{lab.state.name}-by"
    with Namespace(name) as net:
        lab.topology.net.batch(
            [
                f"link add by type veth peer name eth0 netns {name}",
                "link set by master br-stations up",
            ]
        )
        net.batch([f"address add {address} dev eth0", "link set eth0 up"])
        yield net
