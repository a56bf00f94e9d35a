"""Real agents in network namespaces of their own: a whole site but for the other daemons.

A ``Net`` is a switch for each network with one port a server. The agents are the real process
with the real ports and keys; their files lie below a directory of the test's.
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.daemons.box import Space

from ets.agent.place import Tree
from ets.host import pki
from ets.host.deadline import Deadline, wait_for
from ets.lab.tree import server_tree
from ets.paths import KEA_CONFIG
from ets.services import dhcp
from ets.site.load import parse
from ets.site.model import Server, Site

PAIR = Path(__file__).parents[2] / "examples" / "pair.toml"
_RUN = """
import logging, sys
from pathlib import Path
from ets.agent.place import Ports, Tree
from ets.agent.run import run
from ets.errors import EtsError
try:
    run(Tree.below(Path(sys.argv[1])), Ports())
except EtsError as error:
    print(f"ets: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


def three(text: str) -> str:
    """The pair's site file with a third server, gamma."""
    third = (
        '[[servers]]\nname = "gamma"\nweight = 1\nlan = "192.168.77.13"\n'
        'stations = "10.77.0.13"\ncompute = "10.78.0.13"\n\n[stations]\n'
    )
    return text.replace("[stations]\n", third, 1)


class Unix(http.client.HTTPConnection):
    """HTTP to a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("agent", timeout=10)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self._path)


class AgentHost(Space):
    """One server with an agent."""

    def __init__(self, directory: Path, server: Server, site_file: str, authority: Path) -> None:
        super().__init__()
        self.server = server
        self.root = directory / server.name
        self.tree = Tree.below(self.root)
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}
        self.tree.site.parent.mkdir(parents=True)
        self.tree.site.write_text(site_file)
        self.tree.name.write_text(server.name + "\n")
        pki.issue(authority, server.name, server.addresses.values(), self.tree.pki)
        secret = (authority / "site.secret").read_text().strip()
        pki.write_secret(self.tree.pki / "site.secret", secret)

    @property
    def log(self) -> str:
        """What the agent logged since its last start."""
        return (self.root / "agent.log").read_text()

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the agent; it may not be ready yet."""
        told = (f"{name}={value}" for name, value in self.environment.items())
        argv = ("env", *told, sys.executable, "-c", _RUN, str(self.root))
        self.process = self.start(*argv, log=self.root / "agent.log")
        return self.process

    def up(self) -> None:
        """Start the agent and wait until it answers."""
        process = self.launch()

        def answering() -> bool:
            assert process.poll() is None, self.log
            return self.tree.socket.exists() and self.answers()

        wait_for(f"the agent of {self.server.name}", answering, Deadline(60))

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def term(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def answers(self) -> bool:
        """Does the local socket answer?"""
        try:
            self.status()
        except OSError:
            return False
        return True

    def status(self) -> dict[str, Any]:
        """The status document."""
        connection = Unix(self.tree.socket)
        try:
            connection.request("GET", "/v1/status")
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            document: dict[str, Any] = json.loads(answer.read())
        finally:
            connection.close()
        return document

    def row(self, name: str) -> dict[str, Any]:
        """What it says of one server."""
        return next(row for row in self.status()["servers"] if row["name"] == name)

    def http(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        port: int = 8470,
    ) -> tuple[int, bytes]:
        """A request to the loopback listener, as nginx makes it."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.sock = self.tcp("127.0.0.1", port)
        try:
            connection.request(method, path, body or None, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def tcp(self, address: str, port: int, source: str = "") -> socket.socket:
        """A TCP connection made in this server's network."""
        sock = self.open_socket(socket.AF_INET, socket.SOCK_STREAM)
        if source:
            sock.bind((source, 0))
        sock.settimeout(10)
        sock.connect((address, port))
        return sock

    def memory(self) -> float:
        """Resident memory in MB."""
        assert self.process is not None
        for line in Path(f"/proc/{self.agent_pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")

    def cpu(self) -> float:
        """Seconds of processor time used so far."""
        fields = Path(f"/proc/{self.agent_pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    @property
    def agent_pid(self) -> int:
        """The agent's process: setpriv and nsenter become it by exec."""
        assert self.process is not None
        return self.process.pid


#: directories that systemd makes for the unit
KEA_FOLDERS = ("/run/kea", "/run/lock/kea", "/var/lib/kea")


class Kea:
    """A real Kea in a server's network and file tree, where its agent finds it."""

    def __init__(self, host: AgentHost, site: Site) -> None:
        self._host = host
        self._config = json.dumps(dhcp.kea_config(site, host.server, newcomers=False)).encode()
        place = host.root / "kea"
        self.root = place / "root"
        for directory in ("rw", "root"):
            (place / directory).mkdir(parents=True)
        rw = place / "rw"
        host.run("mount", "-t", "tmpfs", "tmpfs", str(rw))
        host.run("mkdir", f"{rw}/upper", f"{rw}/work")
        layers = f"lowerdir={server_tree()},upperdir={rw}/upper,workdir={rw}/work"
        host.run("mount", "-t", "overlay", "overlay", "-o", layers, str(self.root))
        host.run("mount", "-t", "tmpfs", "tmpfs", f"{self.root}/run")
        host.run("mkdir", "-p", *(f"{self.root}{d}" for d in KEA_FOLDERS))
        for path in (host.tree.kea.parent, host.tree.leases.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(f"{self.root}/{path.relative_to(host.root)}")
        self.process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        """Start it with the file that ``ets apply`` writes."""
        path = f"{self.root}{KEA_CONFIG}"
        self._host.run("sh", "-c", 'cat > "$1"', "sh", path, stdin=self._config)
        self.process = self._host.start(
            "chroot", str(self.root), "kea-dhcp4", "-c", str(KEA_CONFIG),
            log=self._host.root / "kea.log",
        )  # fmt: skip

    def send(self, number: signal.Signals) -> None:
        """kill -9, hang (SIGSTOP), go on (SIGCONT)."""
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait(10)


class Net:
    """The servers of a site, their networks, and nothing else."""

    def __init__(self, directory: Path, site_file: str | None = None) -> None:
        text = PAIR.read_text() if site_file is None else site_file
        self.site: Site = parse(text.encode())
        self._authority = directory / "ca"
        pki.make_ca(self._authority, self.site.name)
        pki.write_secret(self._authority / "site.secret", pki.new_secret())
        #: holds the switches, named lan and stations, and may speak on them
        self.switch = Space()
        for role in ("lan", "stations"):
            self.switch.run("ip", "link", "add", role, "type", "bridge")
            self.switch.run("ip", "link", "set", role, "up", "promisc", "on")
        self.hosts = {
            server.name: AgentHost(directory, server, text, self._authority)
            for server in self.site.servers
        }
        for host in self.hosts.values():
            for role in ("lan", "stations"):
                self._wire(host, role)

    def __enter__(self) -> Net:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for space in (*self.hosts.values(), self.switch):
            space.close()
        if error is not None:
            for name, host in self.hosts.items():
                if (host.root / "agent.log").exists():
                    print(f"--- log of {name}\n{host.log[-6000:]}")  # noqa: T201

    def __getitem__(self, name: str) -> AgentHost:
        return self.hosts[name]

    def up(self) -> None:
        """Start all agents and wait until each hears all others on both networks."""
        for host in self.hosts.values():
            host.launch()
        for host in self.hosts.values():
            wait_for(f"the agent of {host.server.name}", host.answers, Deadline(60), every=0.2)
        for host in self.hosts.values():
            for peer in self.site.peers(host.server.name):
                self.wait_verdict(host, peer.name, "alive")

    def wait_verdict(self, host: AgentHost, peer: str, verdict: str, seconds: float = 20) -> None:
        """Wait until ``host`` has that opinion of ``peer``."""
        wait_for(
            f"{peer} {verdict} on {host.server.name}",
            lambda: host.row(peer)["verdict"] == verdict,
            Deadline(seconds),
        )

    def cable(self, name: str, role: str, state: str) -> None:
        """Pull (``down``) or plug (``up``) the cable of a server on one network."""
        self.switch.run("ip", "link", "set", f"{name}-{role}"[:15], state)

    def _wire(self, host: AgentHost, role: str) -> None:
        network = self.site.networks[role]  # type: ignore[index]
        port = f"{host.server.name}-{role}"[:15]
        host.run(
            "ip", "link", "add", network.interface, "type", "veth",
            "peer", "name", port, "netns", str(self.switch.pid),
        )  # fmt: skip
        address = f"{host.server.addresses[role]}/{network.subnet.prefixlen}"  # type: ignore[index]
        host.run("ip", "address", "add", address, "dev", network.interface)
        host.run("ip", "link", "set", network.interface, "up")
        self.switch.run("ip", "link", "set", port, "master", role, "up")
