"""Files that are replaced whole or not at all, and stay so after a power cut.

Invariant: at every moment ``path`` is either as it was or entirely the new content with its final
owner and mode; once ``write_atomic`` has returned, the new one survives a power cut. A killed
writer leaves at most one ``.NAME.ets-new`` beside the file, which the next write of the same file
takes over and ``remove_durably`` removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from ets.errors import HostError


def write_atomic(
    path: str | os.PathLike[str],
    content: bytes,
    *,
    mode: int = 0o644,
    owner: str | int | None = None,
    group: str | int | None = None,
) -> None:
    """Replace ``path`` by a file with ``content``; missing parents are made (0755).

    ``owner`` and ``group`` are names or numbers on this machine; None leaves the process's own.
    Writers of one file wait for each other. A symbolic link at ``path`` is replaced, not followed.
    Raises HostError; a full disk is named as such and leaves the old file in place.
    """
    target = Path(path)
    with _written(target, content, mode, owner, group) as temporary:
        temporary.replace(target)
        sync_directory(target.parent)


def prepare(
    path: str | os.PathLike[str],
    content: bytes,
    *,
    mode: int = 0o644,
    owner: str | int | None = None,
    group: str | int | None = None,
) -> None:
    """The first half of ``write_atomic``: all that can fail for want of space, in ``path`` itself
    nothing. ``commit`` is the second, ``discard`` takes it back. Raises as ``write_atomic``."""
    with _written(Path(path), content, mode, owner, group) as temporary:
        sync_directory(temporary.parent)


def commit(path: str | os.PathLike[str]) -> None:
    """Swap in what ``prepare`` made. Raises HostError, also when nothing was prepared."""
    target = Path(path)
    with _explained(target, 0):
        _temporary_of(target).replace(target)
        sync_directory(target.parent)


def discard(path: str | os.PathLike[str]) -> None:
    """Remove what ``prepare``, or a killed writer, left beside ``path``; well when nothing is."""
    with _explained(Path(path), 0), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        _temporary_of(Path(path)).unlink()


def append_durably(path: str | os.PathLike[str], line: bytes, *, mode: int = 0o600) -> None:
    """Append ``line`` to ``path`` (made with ``mode`` when missing) and wait for the disk.

    A line that a crash cut short is ended first, so that it spoils no line but itself.
    Raises HostError.
    """
    target = Path(path)
    with _explained(target, len(line)):
        new = not target.exists()
        if new:
            make_parents(target.parent)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(target, flags, mode)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            sync_directory(target.parent)


def remove_durably(path: str | os.PathLike[str]) -> None:
    """Remove a file, a symbolic link or an empty directory, and what a killed writer of it left;
    well when there is none. Raises HostError, also when a directory is not empty."""
    target = Path(path)
    discard(target)
    with _explained(target, 0):
        try:
            if stat.S_ISDIR(target.lstat().st_mode):
                target.rmdir()
            else:
                target.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        sync_directory(target.parent)


def make_parents(directory: Path) -> None:
    """Make ``directory`` and what is missing above it (0755, whatever the umask), durably."""
    if directory.is_dir():
        return
    make_parents(directory.parent)
    with contextlib.suppress(FileExistsError):
        directory.mkdir()
        directory.chmod(0o755)
    sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Wait until the names in ``directory`` are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def user_id(owner: str | int) -> int:
    """The uid of a user of this machine. Raises HostError when there is none of that name."""
    if isinstance(owner, int):
        return owner
    try:
        return pwd.getpwnam(owner).pw_uid
    except KeyError as error:
        raise HostError(f"there is no user {owner}", hint="is its package installed?") from error


def group_id(group: str | int) -> int:
    """The gid of a group of this machine. Raises HostError when there is none of that name."""
    if isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise HostError(f"there is no group {group}", hint="is its package installed?") from error


def _temporary_of(target: Path) -> Path:
    return target.with_name(f".{target.name[:240]}.ets-new")


@contextlib.contextmanager
def _written(
    target: Path, content: bytes, mode: int, owner: str | int | None, group: str | int | None
) -> Iterator[Path]:
    """The temporary file of ``target``, complete and on the disk, still locked."""
    uid = -1 if owner is None else user_id(owner)
    gid = -1 if group is None else group_id(group)
    with _explained(target, len(content)):
        make_parents(target.parent)
        with _temporary(target) as (descriptor, temporary):
            os.ftruncate(descriptor, 0)
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            _own(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
            yield temporary


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[tuple[int, Path]]:
    """The open, locked temporary file of ``target``; it is removed unless it was renamed.

    Its name is fixed, so that a crash leaves at most one. The lock, and the look whether the name
    still means the file that was locked, keep two writers apart.
    """
    temporary = _temporary_of(target)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        descriptor = os.open(temporary, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            mine = os.fstat(descriptor)
            try:
                named = temporary.lstat()
            except FileNotFoundError:
                continue
            if (mine.st_dev, mine.st_ino) != (named.st_dev, named.st_ino):
                continue
            if mine.st_uid != os.geteuid() or mine.st_nlink != 1:
                temporary.unlink()  # somebody else put it there, and may hold it open
                continue
            try:
                yield descriptor, temporary
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise
            return
        finally:
            os.close(descriptor)


def _own(descriptor: int, uid: int, gid: int) -> None:
    now = os.fstat(descriptor)
    if uid not in (-1, now.st_uid) or gid not in (-1, now.st_gid):
        os.fchown(descriptor, uid, gid)


@contextlib.contextmanager
def _explained(target: Path, size: int) -> Iterator[None]:
    """Turn an OSError into a HostError that names the file and the next step."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HostError(
                f"the disk that holds {target} is full: {size} bytes could not be written",
                hint=f"make room there (df -h {target.parent}), then run it again",
            ) from error
        hint = "run it as root" if error.errno in (errno.EACCES, errno.EPERM) else ""
        raise HostError(f"cannot change {target}: {error.strerror}", hint=hint) from error
