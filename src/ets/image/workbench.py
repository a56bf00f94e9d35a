"""A private place to build in: mounts made there are seen by nobody else and go with it.

A small process holds a mount and a process namespace; commands enter both, and files in it are
reached through ``/proc/<pid>/root``. When this program ends, also by SIGKILL, the kernel kills the
holder, with it every process in the namespace, and with them every mount disappears; only the
working directory may be left, and the next build of the same kind removes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ets.errors import CommandFailed, ImageError
from ets.host.run import Completed, run

#: what programs inside a tree see: nothing of ours, so that a build is the same everywhere
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}

# A chroot with the few devices that programs want, process ids of its own, and no network.
_INSIDE = r"""
set -e
tree=$1; shift
mount -t tmpfs -o mode=0755 tmpfs "$tree/dev"
for node in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 0666 "$tree/dev/${node%:*}" c 1 "${node#*:}"
done
ln -s /proc/self/fd "$tree/dev/fd"
mount -t tmpfs tmpfs "$tree/run"
mount -t tmpfs tmpfs "$tree/tmp"
exec chroot "$tree" "$@"
"""


@dataclass(frozen=True, slots=True)
class Workbench:
    """Namespaces (of the process ``holder``) and a ``directory`` of its own in them."""

    holder: int
    directory: Path

    def inside(self, path: Path) -> Path:
        """``path`` of the namespace as this process can open it."""
        return Path(f"/proc/{self.holder}/root") / path.relative_to("/")

    def run(
        self, argv: Sequence[str], *, deadline: float = 600, env: dict[str, str] | None = None
    ) -> Completed:
        """Run ``argv`` in the namespace. Raises as ``ets.host.run.run``."""
        return run([*self._enter(), *argv], deadline=deadline, env=env)

    def follow(
        self, argv: Sequence[str], line: Callable[[str], None], env: dict[str, str] | None = None
    ) -> None:
        """Run ``argv`` in the namespace and hand over what it prints, line by line.

        Raises CommandFailed with the end of what it printed.
        """
        tail: list[str] = []
        with subprocess.Popen(
            [*self._enter(), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
        ) as process:
            try:
                for text in process.stdout or ():
                    tail = [*tail[-40:], text]
                    line(text.rstrip())
            except BaseException:
                process.terminate()
                raise
        if process.returncode != 0:
            raise CommandFailed(" ".join(argv[:2]) + " …", process.returncode, "".join(tail))

    def chroot(
        self, tree: Path, argv: Sequence[str], *, epoch: int, deadline: float = 900
    ) -> Completed:
        """Run ``argv`` inside ``tree`` as root, without a network and without our environment."""
        clean = [f"{key}={value}" for key, value in ENVIRONMENT.items()]
        return self.run(
            ["unshare", "--net", "--pid", "--fork", "--kill-child", f"--mount-proc={tree}/proc",
             "env", "-i", *clean, f"SOURCE_DATE_EPOCH={epoch}",
             "sh", "-c", _INSIDE, "ets-chroot", str(tree), *argv],
            deadline=deadline,
        )  # fmt: skip

    def overlay(self, lower: Path, name: str = "tree") -> Path:
        """A writable view of ``lower``; what is written goes with the workbench."""
        layers = self.directory / f"{name}.layers"
        upper, work, merged = layers / "upper", layers / "work", self.directory / name
        layers.mkdir()
        if _is_overlay(layers):
            # An overlay cannot lie on an overlay, which is what a container's root often is.
            self.run(["mount", "-t", "tmpfs", "tmpfs", str(layers)])
        self.run(["mkdir", str(upper), str(work), str(merged)])
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        self.run(["mount", "-t", "overlay", "-o", options, "overlay", str(merged)])
        return merged

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self.holder}", "--mount", "--pid", "--"]


@contextlib.contextmanager
def workbench(where: Path, prefix: str) -> Iterator[Workbench]:
    """A workbench with a directory ``where``/``prefix``-XXXX, which is removed at the end.

    Needs root. Raises ImageError when the namespace cannot be made.
    """
    where.mkdir(parents=True, exist_ok=True)
    for left in where.glob(f"{prefix}-*"):
        # Not ours while its maker lives: the name ends in the process id of that one.
        pid = left.name.rsplit("-", 1)[1].split(".")[0]
        if not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=f"{prefix}-{os.getpid()}.", dir=where))
    directory.chmod(0o755)
    holder = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private",
         "--pid", "--fork", "--kill-child", "sleep", "infinity"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Workbench(_first_process(holder), directory)
    finally:
        holder.kill()
        holder.communicate()
        shutil.rmtree(directory, ignore_errors=True)


def _first_process(holder: subprocess.Popen[bytes]) -> int:
    """The process id, as we see it, of the first process in the holder's namespaces."""
    for _ in range(500):
        if holder.poll() is not None:
            said = holder.communicate()[1].decode(errors="replace").strip()
            raise ImageError(
                f"cannot make namespaces to build in: {said}",
                hint="images are built as root, on a machine that allows namespaces",
            )
        with contextlib.suppress(OSError, IndexError):
            # sleep is started after unshare has made the mounts private
            children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text()
            first = int(children.split()[0])
            if Path(f"/proc/{first}/comm").read_text().strip() == "sleep":
                return first
        time.sleep(0.01)
    raise ImageError("the namespaces to build in were not made within 5 s")


def _is_overlay(path: Path) -> bool:
    kind = run(["stat", "--file-system", "--format=%T", str(path)]).text.strip()
    return kind == "overlayfs"
