"""A machine in a tree, for tests of the engine: files are real, programs are played.

Its daemons load all of /etc whenever they start or reload, so a test can tell whether each has
seen the files as they are in the end. The machine's own state lies outside the tree's root and is
replaced atomically: it survives the death of the process that acts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from ets.errors import CommandFailed
from ets.facts.observe import observe
from ets.host.atomic import write_atomic
from ets.host.local import LocalHost
from ets.host.run import Completed
from ets.plan import plan as plans
from ets.plan.desired import Command, Desired
from ets.plan.journal import read_owned
from ets.plan.plan import Plan

#: what packages bring: files, and a unit that they enable and start at once
PACKAGES: dict[str, tuple[dict[str, str], str]] = {
    "webd": ({"/etc/webd.conf": "the package's own\n", "/usr/lib/webd/boot.bin": "\0boot"}, "webd"),
    "timed": ({"/etc/timed.conf": "timed's own\n"}, "timed"),
}
#: kept out of a comparison of two machines: time stamps, process numbers
VOLATILE = ("/var/lib/ets/journal", "/var/lib/ets/receipts", "/run/ets-apply.lock")


class Machine(LocalHost):
    """``folder`` holds ``root`` and the machine's state."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "root", name="alpha")
        self.folder = folder
        self.root = folder / "root"
        self._state = folder / "machine.json"
        #: called before every call that changes something, with its name and first argument
        self.before: Callable[[str, str], None] = lambda _what, _target: None

    @classmethod
    def make(cls, folder: Path) -> Machine:
        """A new machine with systemd, dpkg, and foreign files."""
        machine = cls(folder)
        for name, content in {
            # whoever runs the test is root there
            "etc/passwd": f"root:x:{os.geteuid()}:{os.getegid()}::/:/bin/sh\n",
            "etc/group": f"root:x:{os.getegid()}:\nmedia:x:900:\n",
            "etc/ets/server": "alpha\n",
            "var/lib/dpkg/status": "",
        }.items():
            path = machine.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        (machine.root / "run/systemd/system").mkdir(parents=True)
        machine.save({"packages": [], "auto": [], "units": {}, "reloaded": {}})
        return machine

    @property
    def state(self) -> dict[str, Any]:
        """Packages, units and what they have loaded."""
        data: dict[str, Any] = json.loads(self._state.read_bytes())
        return data

    def save(self, state: dict[str, Any]) -> None:
        """Replace the machine's state."""
        write_atomic(self._state, json.dumps(state, sort_keys=True).encode())

    def files(self) -> dict[str, str]:
        """Everything in the tree but what differs from run to run: path to kind and content."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = "/" + str(path.relative_to(self.root))
            if name.startswith(VOLATILE):
                continue
            about = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[name] = f"{about.st_mode:o} {about.st_uid}:{about.st_gid} {content}"
        return found

    def loaded(self) -> dict[str, str]:
        """What lies in /etc now, as a daemon loads it."""
        return {name: what for name, what in self.files().items() if name.startswith("/etc/")}

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        deadline: float = 60.0,
        check: bool = True,
        hint: str = "",
    ) -> Completed:
        """Play a program."""
        words = [word for word in argv if word not in ("env", "--") and not word.startswith("-")]
        words = [word for word in words if "=" not in word or word.startswith("/")]
        program = PurePosixPath(words[0]).name
        if program not in ("dpkg-query", "journalctl") and words[1:2] != ["show"]:
            self.before("run", " ".join(words))
        play = getattr(self, f"_{program.replace('-', '_')}")
        status, output = play(words[1:])
        if check and status:
            raise CommandFailed(" ".join(argv), status, output)
        return Completed(" ".join(argv), status, output.encode(), b"")

    def _dpkg_query(self, names: list[str]) -> tuple[int, str]:
        have = self.state["packages"]
        return 0, "".join(f"{name}\tinstalled\t1.0\n" for name in names if name in have)

    def _dpkg(self, _words: list[str]) -> tuple[int, str]:
        return 0, ""

    def _apt_get(self, words: list[str]) -> tuple[int, str]:
        if words[0] == "update":
            return 0, ""
        state = self.state
        for name in words[1:]:
            if name not in PACKAGES:
                return 100, f"E: Unable to locate package {name}"
            files, unit = PACKAGES[name]
            for path, content in files.items():
                real = self.root / path[1:]
                real.parent.mkdir(parents=True, exist_ok=True)
                if not real.exists():
                    real.write_text(content)
            started = {"enabled": True, "active": True, "loaded": self.loaded()}
            state["units"][f"{unit}.service"] = started
            state["packages"].append(name)
        self.save(state)
        return 0, ""

    def _apt_mark(self, words: list[str]) -> tuple[int, str]:
        state = self.state
        state["auto"] = sorted({*state["auto"], *words[1:]})
        self.save(state)
        return 0, ""

    def _useradd(self, words: list[str]) -> tuple[int, str]:
        name, number = words[-1], 901
        for file in ("passwd", "group"):
            path = self.root / "etc" / file
            line = f"{name}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin\n"
            extra = line if file == "passwd" else f"{name}:x:{number}:\n"
            write_atomic(path, path.read_bytes() + extra.encode())
        return 0, ""

    def _usermod(self, words: list[str]) -> tuple[int, str]:
        groups, name = words[0].split(","), words[1]
        path = self.root / "etc/group"
        rows = [line.split(":") for line in path.read_text().splitlines()]
        for row in rows:
            if row[0] in groups:
                row[3] = ",".join(sorted({*filter(None, row[3].split(",")), name}))
        write_atomic(path, "".join(":".join(row) + "\n" for row in rows).encode())
        return 0, ""

    def _journalctl(self, words: list[str]) -> tuple[int, str]:
        return 0, "bind: Address already in use\n"

    def _validator(self, words: list[str]) -> tuple[int, str]:
        """Refuses staged files that hold the word BAD, and a staged tree that lacks a file."""
        folder, *names = words
        for name in names:
            content = self.read(folder + name)
            if content is None or b"BAD" in content:
                return 1, f"{name}: no good"
        return 0, ""

    def _systemctl(self, words: list[str]) -> tuple[int, str]:
        verb, names, state = words[0], words[1:], self.state
        units = state["units"]
        if verb == "show":
            return 0, "\n".join(self._shown(name, units) for name in names)
        if verb == "daemon-reload":
            state["reloaded"] = self.loaded()
        for name in names:
            unit = units.setdefault(name, {"enabled": False, "active": False, "loaded": {}})
            if verb in ("enable", "disable"):
                unit["enabled"] = verb == "enable"
            elif verb == "stop":
                unit["active"] = False
            elif verb in ("restart", "reload-or-restart"):
                if b"FAILS" in (self.read(f"/etc/{name.partition('.')[0]}.conf") or b""):
                    unit["active"] = False
                    self.save(state)
                    return 1, "Job failed"
                unit.update(active=True, loaded=self.loaded())
        self.save(state)
        return 0, ""

    def _shown(self, name: str, units: dict[str, Any]) -> str:
        unit = units.get(name)
        file_state = "enabled" if unit and unit["enabled"] else "disabled"
        return (
            f"LoadState={'loaded' if unit else 'not-found'}\n"
            f"UnitFileState={file_state if unit else ''}\n"
            f"ActiveState={'active' if unit and unit['active'] else 'inactive'}\n"
            "SubState=whatever\n"
        )

    def write(
        self,
        path: str,
        content: bytes,
        *,
        mode: int = 0o644,
        owner: str = "root",
        group: str = "root",
    ) -> None:
        """As on the local host, told of before."""
        self.before("write", path)
        super().write(path, content, mode=mode, owner=owner, group=group)

    def prepare(
        self,
        path: str,
        content: bytes,
        *,
        mode: int = 0o644,
        owner: str = "root",
        group: str = "root",
    ) -> None:
        """As on the local host, told of before."""
        self.before("prepare", path)
        super().prepare(path, content, mode=mode, owner=owner, group=group)

    def commit(self, path: str) -> None:
        """As on the local host, told of before."""
        self.before("commit", path)
        super().commit(path)

    def discard(self, path: str) -> None:
        """As on the local host, told of before."""
        self.before("discard", path)
        super().discard(path)

    def remove(self, path: str) -> None:
        """As on the local host, told of before."""
        self.before("remove", path)
        super().remove(path)

    def append(self, path: str, line: bytes) -> None:
        """As on the local host, told of before."""
        self.before("append", path)
        super().append(path, line)

    def make_directory(
        self, path: str, *, mode: int = 0o755, owner: str = "root", group: str = "root"
    ) -> None:
        """As on the local host, told of before."""
        self.before("make_directory", path)
        super().make_directory(path, mode=mode, owner=owner, group=group)

    def hold(self, path: str) -> AbstractContextManager[None]:
        """As on the local host, told of before."""
        self.before("hold", path)
        return super().hold(path)


def in_memory() -> Iterator[Path]:
    """A folder in memory, where waiting for the disk costs nothing: for a fixture."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


def plan_for(
    machine: LocalHost,
    desired: Desired,
    *,
    validate: Iterable[str] = (),
    created: str = "2026-01-01T00:00:00+00:00",
) -> Plan:
    """A plan for the machine, with a validator that wants the files ``validate`` staged."""
    owned = read_owned(machine)
    names = tuple(validate)

    def validators(root: PurePosixPath) -> list[Command]:
        return [Command(("validator", str(root), *names), "the files are good")] if names else []

    return plans.make(
        site="0" * 64,
        server="alpha",
        desired=desired,
        observed=observe(machine, desired, owned),
        owned=owned,
        validators=validators,
        created=created,
    )
