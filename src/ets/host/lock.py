"""One at a time: a lock file that a dead process cannot keep."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ets.errors import HostError
from ets.host.atomic import make_parents


@contextlib.contextmanager
def hold(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock file ``path`` (flock(2), so the kernel gives it back when the process ends).

    The file stays and names the holder's pid, for people only. Programs started inside do not
    inherit it. Raises HostError at once when another process holds it.
    """
    target = Path(path)
    try:
        make_parents(target.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(target, flags, 0o600)
    except OSError as error:
        raise HostError(
            f"cannot open the lock {target}: {error.strerror}",
            hint="run it as root" if os.geteuid() else "",
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise HostError(
                f"another run of ets (process {holder}) is changing this server",
                hint=f"wait for it to end; it holds {target}",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
