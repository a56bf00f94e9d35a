"""A server's body: its tree booted by systemd-nspawn, in a cgroup and a network namespace of its
own, on an overlay above the shared server tree.

The overlay is mounted in the container's own mount namespace, so it goes with its processes, and
nothing has to be unmounted after a crash. Everything that has to be found again by another process
follows from lab and server name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ets.errors import HostError, LabError
from ets.host.deadline import Deadline, wait_for
from ets.host.local import LocalHost
from ets.host.run import Completed, run
from ets.lab.cgroup import Cgroup
from ets.lab.topology import Namespace

# slave: what is unmounted outside (a removed network namespace) disappears here too
_MOUNT_AND = r"""
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root" || exit 1
shift 2
exec "$@"
"""
# systemd in the container uses cgroup v2 whatever the machine's own layout is; nspawn's lock files
# would stay behind when it is killed, and nobody else knows the lab's directories.
_NSPAWN = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_LOCK": "0"}


class Container:
    """One systemd-nspawn container. ``directory`` holds its overlay and its console's log."""

    def __init__(
        self,
        name: str,
        hostname: str,
        layers: Sequence[Path],
        directory: Path,
        cgroup: Cgroup,
        net: Namespace,
    ) -> None:
        self.name = name
        self.hostname = hostname
        self.directory = directory
        self.cgroup = cgroup
        self._layers = tuple(layers)
        self._net = net
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    @property
    def upper(self) -> Path:
        """What the server has changed of its tree. Write here only while it is not running."""
        return self.directory / "upper"

    @property
    def console(self) -> Path:
        """What it printed on its console, of all boots."""
        return self.directory / "console.log"

    def prepare(self) -> None:
        """Make the overlay's directories."""
        for name in ("upper", "work", "root"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
            (self.directory / name).chmod(0o755)

    def start(self) -> None:
        """Start booting; returns at once. Raises LabError when it runs already."""
        if self.running:
            raise LabError(f"{self.hostname} is running already")
        self.cgroup.make()
        nspawn = [
            "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit",
            f"--directory={self.directory / 'root'}", f"--machine={self.name}",
            f"--hostname={self.hostname}", f"--network-namespace-path={self._net.path}",
            # CAP_SYS_TIME is not among them: the machine's clock is everybody's
            "--capability=CAP_NET_ADMIN",
            "--console=read-only", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
        ]  # fmt: skip
        lower = ":".join(str(layer) for layer in self._layers)
        mounted = ["sh", "-c", _MOUNT_AND, "sh", lower, str(self.directory), *nspawn]
        argv = ["unshare", "--mount", "--propagation", "slave", *mounted]
        with self.console.open("ab") as log:
            self._process = subprocess.Popen(
                self.cgroup.entering(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={"PATH": os.environ.get("PATH", ""), **_NSPAWN},
            )

    @property
    def running(self) -> bool:
        """True while it has processes, also stopped ones."""
        return bool(self.cgroup.pids())

    @property
    def leader(self) -> int:
        """The container's init, as numbered on this machine. Raises HostError when it is not
        running."""
        if self._leader and Path(f"/proc/{self._leader}/ns/pid").exists():
            return self._leader
        pids = self.cgroup.child("payload").child("init.scope").pids()
        if not pids:
            raise HostError(f"{self.hostname} is not running")
        self._leader = pids[0]
        return self._leader

    def wait_booted(self, deadline: Deadline) -> str:
        """Wait until systemd has finished booting; returns ``running`` or ``degraded``.

        Raises LabError when the container ends, DeadlinePassed.
        """
        return wait_for(f"{self.hostname} to boot", self._boot_state, deadline)

    def _boot_state(self) -> str:
        if self._process is not None and self._process.poll() is not None:
            tail = self.console.read_text(errors="replace")[-2000:]
            raise LabError(f"{self.hostname} did not start: {tail}")
        try:
            state = run(
                self.entering(["systemctl", "is-system-running"]), deadline=5, check=False
            ).text.strip()
        except HostError:
            return ""
        return state if state in ("running", "degraded") else ""

    def entering(self, argv: Sequence[str]) -> list[str]:
        """``argv``, changed so that it runs in the container. Raises HostError when it is not
        running."""
        return [
            "nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid",
            "--cgroup", "--root", "--wdns=/", "--", "/usr/bin/env", "-i", "HOME=/root",
            "TERM=linux", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", *argv,
        ]  # fmt: skip

    def kill(self) -> None:
        """SIGKILL everything in it at once; its files stay. Well when it is not running."""
        self.cgroup.kill()
        self._reap()
        self._leader = 0

    def remove(self) -> None:
        """Kill it and remove everything of it."""
        self.cgroup.remove()
        self._reap()
        shutil.rmtree(self.directory, ignore_errors=True)
        for path in Path("/run/systemd/nspawn").glob(f"*/{self.name}"):
            with contextlib.suppress(OSError):
                path.rmdir()

    def _reap(self) -> None:
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process = None


class ContainerHost(LocalHost):
    """A running container as a ``Host``: programs run in it, files are changed through its
    root directory. It must be running."""

    def __init__(self, container: Container) -> None:
        super().__init__(f"/proc/{container.leader}/root", name=container.hostname)
        self._container = container

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        deadline: float = 60.0,
        check: bool = True,
        hint: str = "",
    ) -> Completed:
        """As ``ets.host.run.run``, in the container."""
        return run(
            self._container.entering(argv), stdin=stdin, deadline=deadline, check=check, hint=hint
        )
