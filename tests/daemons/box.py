"""A small network of Debian trees for tests that need one real daemon, not a whole lab.

A ``Box`` is a switch; ``machine`` adds a server's tree with a network card on it. Everything lives
in namespaces held by processes that die with this one, so nothing is left behind even after
SIGKILL: no named namespace, no mount, no interface.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ets.host.deadline import Deadline, wait_for
from ets.host.run import Completed, run
from ets.lab.tree import server_tree

_CLONE_NEWNET = 0x40000000
_HOLD = ["setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--kill-child", "--pid"]


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started, as numbered here."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


class Space:
    """Namespaces (network, mounts, processes) held by a sleeping process."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            [*_HOLD, "--net", "--mount", "--mount-proc", "sh", "-c",
             "ip link set lo up; echo up; exec sleep infinity"],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        if self._holder.stdout is None or self._holder.stdout.readline() != b"up\n":
            raise RuntimeError("unshare did not come up")
        # the first process inside, as numbered outside; nothing inside outlives it
        (self.pid,) = children(self._holder.pid)
        self._children: list[subprocess.Popen[bytes]] = []

    def enter(self, argv: Sequence[str]) -> list[str]:
        """``argv`` so that it runs inside."""
        target = str(self.pid)
        return ["nsenter", "--target", target, "--net", "--mount", "--", *argv]

    def run(self, *argv: str, check: bool = True, stdin: bytes = b"") -> Completed:
        """Run to the end, inside."""
        return run(self.enter(argv), check=check, stdin=stdin)

    def start(self, *argv: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a daemon inside; it ends with ``close``, or with this process."""
        with log.open("wb") as file:
            child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.enter(argv)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self._children.append(child)
        return child

    def open_socket(self, family: int, kind: int, proto: int = 0) -> socket.socket:
        """A socket of this network, made by a thread that went there."""
        made: list[socket.socket] = []

        def make() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            descriptor = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
            try:
                if libc.setns(descriptor, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
                made.append(socket.socket(family, kind, proto))
            finally:
                os.close(descriptor)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def close(self) -> None:
        """End everything inside."""
        os.kill(self.pid, signal.SIGKILL)
        for child in self._children:
            child.kill()
        for child in [*self._children, self._holder]:
            child.wait(10)
        if self._holder.stdout is not None:
            self._holder.stdout.close()


class Machine(Space):
    """A server's tree, writable, with network cards of its own."""

    def __init__(self, place: Path, tree: Path) -> None:
        super().__init__()
        self.place = place
        self.root = place / "root"
        for directory in ("rw", "root"):
            (place / directory).mkdir(parents=True)
        rw = place / "rw"
        self.run("mount", "-t", "tmpfs", "tmpfs", str(rw))
        self.run("mkdir", f"{rw}/upper", f"{rw}/work")
        layers = f"lowerdir={tree},upperdir={rw}/upper,workdir={rw}/work"
        self.run("mount", "-t", "overlay", "overlay", "-o", layers, str(self.root))
        self.run("mount", "-t", "proc", "proc", f"{self.root}/proc")
        self.run("mount", "--rbind", "/dev", f"{self.root}/dev")
        self.run("mount", "-t", "tmpfs", "tmpfs", f"{self.root}/run")

    def enter(self, argv: Sequence[str]) -> list[str]:
        """``argv`` so that it runs inside, also as a process of it: daemons leave workers behind,
        which end with the machine's first process only if they are numbered there."""
        return ["nsenter", "--target", str(self.pid), "--net", "--mount", "--pid", "--", *argv]

    def stop(self, daemon: subprocess.Popen[bytes]) -> None:
        """Kill one daemon that was started here."""
        for pid in children(daemon.pid):
            os.kill(pid, signal.SIGKILL)
        daemon.wait(10)

    def inside(self, *argv: str, check: bool = True, stdin: bytes = b"") -> Completed:
        """Run ``argv`` in the tree."""
        return self.run("chroot", str(self.root), *argv, check=check, stdin=stdin)

    def write(self, path: str, content: bytes) -> None:
        """Put a file into the tree; missing directories are made."""
        script = 'mkdir -p "${1%/*}" && cat > "$1"'
        self.inside("sh", "-c", script, "sh", path, stdin=content)

    def daemon(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start a daemon of the tree in the foreground; its output is ``log``."""
        return self.start(
            "chroot", str(self.root), *argv, log=self.place / f"{Path(argv[0]).name}.log"
        )


class Box:
    """The switch, the client's side of it, and the machines."""

    def __init__(self, place: Path, packages: Sequence[str] = ()) -> None:
        self._place = place
        self._tree = server_tree(packages)
        self._machines: list[Machine] = []
        self.client = Space()
        self.client.run("ip", "link", "add", "switch", "type", "bridge")
        self.client.run("ip", "link", "set", "switch", "up", "promisc", "on")

    def __enter__(self) -> Box:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for space in (*self._machines, self.client):
            space.close()

    def machine(self, name: str, interface: str, address: str) -> Machine:
        """A new machine; ``address`` with its prefix length on ``interface``."""
        machine = Machine(self._place / name, self._tree)
        self._machines.append(machine)
        self.wire(machine, name, interface, address)
        return machine

    def wire(self, machine: Machine, port: str, interface: str, address: str) -> None:
        """Another network card for ``machine``, at the switch's port of that name."""
        # not as a process of the machine, where the client's number means nothing
        argv = ["ip", "link", "add", interface, "type", "veth"]
        argv += ["peer", "name", port, "netns", str(self.client.pid)]
        run(Space.enter(machine, argv))
        machine.run("ip", "address", "add", address, "dev", interface)
        machine.run("ip", "link", "set", interface, "up")
        self.client.run("ip", "link", "set", port, "master", "switch", "up")
        wait_for(
            f"a carrier on {interface} of {port}",
            lambda: "LOWER_UP" in machine.run("ip", "link", "show", interface).text,
            Deadline(10),
        )
