"""A throw-away sshd in a network of its own, and a tree to copy."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ets.host.deadline import Deadline, wait_for
from ets.host.run import run
from ets.lab.tree import server_tree

PORT = "8473"
_FILES, _BYTES = 60_000, 2_200_000_000
_SETUP = """
ip link set lo up && mount --bind "$1/passwd" /etc/passwd && mkdir -p /run/sshd || exit 1
shift
exec "$@"
"""


class Wire:
    """ssh to this machine itself, over the loopback of a network namespace, as to another one."""

    def __init__(self, place: Path, speed: str = "") -> None:
        place.mkdir()
        self.place = place
        for name in ("host", "user"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)])
        users = Path("/etc/passwd").read_text()
        if "\nsshd:" not in users:
            users += "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
        (place / "passwd").write_text(users)
        host = (place / "host.pub").read_text().split()
        (place / "known").write_text(f"[127.0.0.1]:{PORT} {host[0]} {host[1]}\n")
        (place / "config").write_text(
            f"Port {PORT}\nListenAddress 127.0.0.1\nHostKey {place}/host\nPidFile none\n"
            f"AuthorizedKeysFile {place}/user.pub\nUsePAM no\nStrictModes no\n"
            "PermitRootLogin prohibit-password\n"
        )
        sshd, libraries = _sshd()
        argv = [sshd, "-D", "-e", "-f", str(place / "config")]
        with (place / "log").open("wb") as log:
            self._sshd = subprocess.Popen(
                ["unshare", "--net", "--mount", "sh", "-c", _SETUP, "sh", str(place), *argv],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "LD_LIBRARY_PATH": libraries},
            )  # fmt: skip
        wait_for("sshd", lambda: b"listening" in (place / "log").read_bytes(), Deadline(10))
        if speed:
            shape = "qdisc add dev lo root tbf burst 1mb latency 50ms rate".split()  # noqa: SIM905
            run([*self._inside(), "tc", *shape, speed])

    def _inside(self) -> list[str]:
        return ["nsenter", "--target", str(self._sshd.pid), "--net", "--"]

    @property
    def ssh(self) -> list[str]:
        """The command line of ssh, without the host."""
        return [
            *self._inside(), "ssh", "-p", PORT, "-i", str(self.place / "user"),
            "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={self.place}/known",
            "-c", "aes128-gcm@openssh.com",
        ]  # fmt: skip

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """As a newcomer's: our own ``ets`` at the other end."""
        words = [sys.executable, "-m", "ets", *argv[1:]] if argv[0] == "ets" else list(argv)
        return [*self.ssh, "root@127.0.0.1", shlex.join(words)]

    def seconds(self) -> float:
        """Processor seconds of all that this process and sshd have started and that has ended."""
        time.sleep(0.5)  # sshd notices the end of a connection a moment later
        own = resource.getrusage(resource.RUSAGE_CHILDREN)
        words = Path(f"/proc/{self._sshd.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks = sum(int(word) for word in words[11:15])
        return own.ru_utime + own.ru_stime + ticks / os.sysconf("SC_CLK_TCK")

    def received(self) -> int:
        """Bytes that have passed over the loopback."""
        table = run([*self._inside(), "cat", "/proc/net/dev"]).text
        (line,) = (line for line in table.splitlines() if line.strip().startswith("lo:"))
        return int(line.split(":")[1].split()[0])

    def close(self) -> None:
        """End sshd."""
        self._sshd.kill()
        self._sshd.wait()


def _sshd() -> tuple[str, str]:
    """The server of this machine, or of the lab's tree; and where that finds its libraries."""
    if Path("/usr/sbin/sshd").exists():
        return "/usr/sbin/sshd", ""
    tree = server_tree()
    return str(tree / "usr/sbin/sshd"), str(tree / "usr/lib/x86_64-linux-gnu")


@contextlib.contextmanager
def wire(place: Path, speed: str = "") -> Iterator[Wire]:
    """A ``Wire`` that is ended."""
    made = Wire(place, speed)
    try:
        yield made
    finally:
        made.close()


def make_tree(root: Path, *, files: int = _FILES, size: int = _BYTES) -> None:
    """Files as a server has them: most are small, most bytes are in few, about half of it can be
    compressed; some hard links, links and directories. The same every time."""
    chance = random.Random(3)
    text = b" ".join(b"%d" % chance.getrandbits(24) for _ in range(1 << 20))
    noise = chance.randbytes(1 << 23)
    weights = [chance.lognormvariate(8.0, 2.2) for _ in range(files)]
    scale = size / sum(weights)
    folder = root
    for number, weight in enumerate(weights):
        if number % 24 == 0:
            folder = root / f"d{number // 1200}" / f"e{number // 24}"
            folder.mkdir(parents=True)
        path = folder / f"f{number}"
        pool = text if number % 2 else noise
        left = int(weight * scale)
        with path.open("wb") as file:
            while left > 0:
                at = chance.randrange(len(pool) // 2)
                left -= file.write(pool[at : at + left])
        if number % 50 == 0:
            path.with_name(f"l{number}").hardlink_to(path)
            path.with_name(f"s{number}").symlink_to(path.name)
        os.chown(path, number % 3000, number % 100)


def warm(root: Path) -> None:
    """Have the tree in memory, and memory for another one."""
    run(["sh", "-c", 'tar -cf - -C "$1" . | cat >/dev/null', "sh", str(root)], deadline=600)


def clear(root: Path) -> None:
    """An empty directory, and nothing left to be written."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    run(["sync", "--file-system", str(root)], deadline=600)
