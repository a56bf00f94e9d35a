"""The Debian trees that the lab's servers are made of, built once and cached by what they hold.

Two layers, so that a changed lock file does not cost a new Debian: ``server_tree`` (Debian with
the services' packages) and ``python_layer`` (ETS' Python dependencies in ``/opt/ets/lib``). Both
are made beside their final place and renamed, under a lock, so a killed build leaves nothing that
looks finished and two builders never do the work twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ets.errors import LabError
from ets.host.run import run
from ets.image.library import install_dependencies
from ets.lab.progress import Event, Events, silent

SUITE = "bookworm"
MIRROR = os.environ.get("ETS_MIRROR", "http://deb.debian.org/debian")
SECURITY = os.environ.get("ETS_MIRROR_SECURITY", "http://deb.debian.org/debian-security")

#: what makes a tree a server that systemd-nspawn can boot and a person can look around in
BASE = (
    "systemd", "systemd-sysv", "dbus", "netbase", "iproute2", "iputils-ping", "procps", "python3",
    "ca-certificates", "openssh-server", "rsync",
)  # fmt: skip
#: what the services of a first site need, whatever the services of today ask for
SERVICES = (
    "kea-dhcp4-server", "nginx-light", "nbdkit", "chrony", "nftables", "tftpd-hpa", "ipxe",
)  # fmt: skip

#: raised when the recipe below changes, so that old trees are not taken for new ones
_RECIPE = 3

#: seconds after which a tree that nobody used goes, when another one is made
_UNUSED = 7 * 86400

# Nothing starts by itself in a fresh tree: what runs on a server is ETS' decision. A unit of which
# only the alias were left would be called enabled, and never start. An image that several servers
# share must hold no identity either.
_FINISH = r"""
set -e
find "$1/etc/systemd/system" -path '*.wants/*' -type l -delete
find "$1/etc/systemd/system" -maxdepth 1 -type l ! -lname /dev/null -delete
for link in "$1"/etc/rc?.d/S??*; do mv "$link" "${link%/S*}/K01${link##*/S??}"; done
rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/hostname" "$1/etc/resolv.conf" "$1/var/lib/dbus/machine-id"
: >"$1/etc/machine-id"
rm -rf "$1"/usr/share/doc/* "$1"/usr/share/man/* "$1"/var/log/*.log "$1"/var/cache/apt/*.bin
"""


def cache_directory() -> Path:
    """Where everything that is expensive to make lies: ``$ETS_CACHE`` or /var/cache/ets."""
    return Path(os.environ.get("ETS_CACHE", "/var/cache/ets"))


def package_list(packages: Iterable[str] = ()) -> tuple[str, ...]:
    """``packages`` and everything a lab server has in any case, sorted, without duplicates."""
    return tuple(sorted({*BASE, *SERVICES, *packages}))


def tree_key(packages: Iterable[str] = ()) -> str:
    """The name of the tree with these packages: 16 hex digits over recipe, suite and list."""
    text = "\n".join([str(_RECIPE), SUITE, *package_list(packages)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def server_tree(
    packages: Iterable[str] = (), cache: Path | None = None, events: Events = silent
) -> Path:
    """The Debian tree with ``packages`` (and ``BASE`` and ``SERVICES``), built if missing.

    Read-only by agreement: put an overlay above it. Takes a minute or two the first time.
    Raises LabError when mmdebstrap fails.
    """
    wanted = package_list(packages)
    home = (cache or cache_directory()) / "server-tree"
    return _made(
        home / tree_key(packages),
        lambda part: _debootstrap(wanted, part, events),
        lambda: events(Event("server tree", "waiting for another builder")),
    )


def python_layer(cache: Path | None = None, events: Events = silent) -> Path:
    """A tree that holds only /opt/ets/lib with the locked Python dependencies, built if missing.

    Keyed by the digest of ``uv.lock``. Raises LabError outside a checkout, or without uv.
    """
    lock = checkout() / "uv.lock"
    key = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    return _made(
        (cache or cache_directory()) / "server-python" / key,
        lambda part: _install_python(part, events),
        lambda: events(Event("python layer", "waiting for another builder")),
    )


def server_layers(
    packages: Iterable[str] = (), cache: Path | None = None, events: Events = silent
) -> tuple[Path, Path]:
    """Both layers, top first: the lower directories of a server's overlay."""
    return python_layer(cache, events), server_tree(packages, cache, events)


def checkout() -> Path:
    """The source tree that this code runs from. Raises LabError when it is installed without."""
    top = Path(__file__).resolve().parents[3]
    if not (top / "uv.lock").is_file():
        raise LabError(
            f"the lab needs ETS' source tree, and {top} has no uv.lock",
            hint="run the lab from a checkout of ETS",
        )
    return top


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (made if missing); ``waiting`` is called once when
    somebody else has it. The lock goes with the process, so a killed holder blocks nobody."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _made(place: Path, make: Callable[[Path], None], waiting: Callable[[], None]) -> Path:
    if not place.is_dir():
        with locked(place.parent / f".{place.name}.lock", waiting):
            if not place.is_dir():
                _prune(place.parent)
                part = place.parent / f"{place.name}.part"
                _discard(part)
                try:
                    make(part)
                except BaseException:
                    _discard(part)
                    raise
                part.rename(place)
    os.utime(place)
    return place


def _prune(home: Path) -> None:
    """Remove trees that nobody has asked for in a week: their package list has changed since."""
    for path in home.iterdir():
        with contextlib.suppress(OSError):
            if not path.name.startswith(".") and path.stat().st_mtime < time.time() - _UNUSED:
                _discard(path)


def _discard(tree: Path) -> None:
    """Remove a tree; well when there is none. Raises LabError when something is mounted in it,
    such as the machine's /dev."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    if any(line.split()[4].startswith(f"{tree}/") for line in mounts):
        raise LabError(f"something is mounted below {tree}", hint="findmnt shows it; unmount it")
    shutil.rmtree(tree, ignore_errors=True)


def _debootstrap(packages: tuple[str, ...], target: Path, events: Events) -> None:
    # Check-Valid-Until: lab machines with a wrong clock or a frozen mirror are common, and the
    # Release file's signature is checked all the same.
    argv = [
        "setpriv", "--pdeathsig", "TERM",
        "mmdebstrap", "--verbose", "--mode=root", "--format=directory", "--variant=minbase",
        "--aptopt=Acquire::Check-Valid-Until false", "--aptopt=Apt::Install-Recommends false",
        "--aptopt=Acquire::Languages none", "--dpkgopt=force-unsafe-io",
        "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        f"--include={','.join(packages)}",
        f"--customize-hook={_FINISH}",
        SUITE, str(target),
        f"deb {MIRROR} {SUITE} main",
        f"deb {MIRROR} {SUITE}-updates main",
        f"deb {SECURITY} {SUITE}-security main",
    ]  # fmt: skip
    events(Event("server tree", "starting mmdebstrap", 0.0))
    progress = _DpkgProgress(events)
    tail: list[str] = []
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    ) as process:
        try:
            for line in process.stdout or ():
                tail = [*tail[-30:], line]
                progress.feed(line)
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise LabError(
            f"mmdebstrap ended with status {process.returncode}:\n{''.join(tail)}",
            hint=f"is {MIRROR} reachable? (ETS_MIRROR names another one)",
        )
    events(Event("server tree", "done", 1.0))


class _DpkgProgress:
    """Turns mmdebstrap's verbose output into progress: packages downloaded, unpacked, set up."""

    _STEP = re.compile(r"^(Get:\d+|Unpacking|Setting up) .*?([a-z0-9][a-z0-9+.-]+)")
    _TOTAL = re.compile(r"(\d+) newly installed")
    _USUAL = 190

    def __init__(self, events: Events) -> None:
        self._events = events
        self._total = 0
        self._steps = 0
        self._share = 0.0

    def feed(self, line: str) -> None:
        """Take one line of output."""
        if match := self._TOTAL.search(line):
            self._total += int(match[1])
        elif match := self._STEP.match(line):
            self._steps += 1
            words = {"Unpacking": "unpacking", "Setting up": "setting up"}
            doing = words.get(match[1], "downloading")
            name = match[2] if doing != "downloading" else ""
            # two rounds (essential packages, then the rest) announce their numbers one by one
            share = self._steps / (3 * max(self._total, self._USUAL))
            self._share = max(self._share, min(0.99, share))
            self._events(Event("server tree", f"{doing} {name}".strip(), self._share))
        elif line.startswith("I: "):
            self._events(Event("server tree", line[3:].strip().rstrip(".")))


def _install_python(target: Path, events: Events) -> None:
    events(Event("python layer", "installing the locked dependencies"))
    lib = target / "opt/ets/lib"
    install_dependencies(checkout(), lib)
    run(["/usr/bin/python3", "-m", "compileall", "-q", str(lib)], check=False, deadline=300)
    events(Event("python layer", "done", 1.0))
