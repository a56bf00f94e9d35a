"""A new server's first start: it applies its plan, asks its services, compares itself with the
server that it was copied from, and enters service when there is no difference left.

Invariant: the marker ``paths.JOINING`` is removed only after a comparison that found nothing, and
nothing else ever removes it. While it is there the agent keeps this server out of service, so a
machine that loses power at any point here comes back joining, and goes on. What is left behind by
an end in the middle (the session, the unit) is cleared away at the next start.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ets import paths
from ets.audit import manifest
from ets.clone import mend
from ets.errors import CloneError, CommandFailed, EtsError
from ets.host.atomic import remove_durably
from ets.host.local import LocalHost
from ets.host.run import run
from ets.host.ssh import SshHost
from ets.host.transport import Host
from ets.site import load

UNIT_NAME = "ets-join.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT_NAME}"
UNIT_LINK = f"/etc/systemd/system/multi-user.target.wants/{UNIT_NAME}"
SESSION = "session.json"

# Type=exec: the start of the machine is complete without it, and its services must be up for it.
UNIT = """\
[Unit]
Description=ETS: let this new server into service once it is equal
Wants=network-online.target
After=network-online.target ets-agent.service
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=/usr/bin/ets clone finish
Restart=on-failure
RestartSec=20

[Install]
WantedBy=multi-user.target
"""

# seconds
APPLY = 600.0
VERIFY = 120.0
#: a comparison hashes everything on both servers
COMPARE = 1800.0
#: how long the server that was copied may be away before this run gives up; the unit tries again
PATIENCE = 120.0

_EVENTS = Path("/dev/virtio-ports/ets.event")


class Primary(Protocol):
    """The server that this one was copied from."""

    source: str

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """``argv`` there as ``argv`` here."""

    def report(self, stage: str, text: str) -> None:
        """Tell it how far this server is; it may be away."""


class Joined:
    """Reached as the installer reached it, with the keys that it approved."""

    def __init__(self, session: Mapping[str, Any], keys: Path) -> None:
        self.source = str(session["source"])
        from ets.clone.joining import Joining

        self._joining = Joining(tuple(session["servers"]), keys, {})
        self._let_in = False

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """By the sshd that runs for the join."""
        if not self._let_in:
            self._joining.wait(PATIENCE, lambda _text: None)
            self._let_in = True
        return self._joining.wrap(argv)

    def report(self, stage: str, text: str) -> None:
        """Signed with this server's key."""
        self._joining.report(stage, text)


class ByHand:
    """Reached by ordinary ssh: for a server that was copied by other means. ``session`` has
    ``source``, ``ssh`` (as for ssh(1)) and ``options`` for it."""

    def __init__(self, session: Mapping[str, Any]) -> None:
        self.source = str(session["source"])
        options = [str(word) for word in session.get("options", ())]
        self._ssh = SshHost(str(session["ssh"]), options=options)

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """By ssh."""
        return self._ssh.wrap(argv)

    def report(self, stage: str, text: str) -> None:
        """Nobody there asked."""


@dataclass(frozen=True, slots=True)
class Finish:
    """One run. ``say`` is told every step."""

    host: Host
    primary: Primary
    say: Callable[[str, str], None]

    def run(self) -> bool:
        """Into service (true), or to a restart with what had changed meanwhile. Raises a CloneError
        that says what is still different."""
        self._apply()
        self._verify()
        mine, theirs = self._lists()
        different = manifest.compare(mine, theirs, peer=self.primary.source)
        if different and self._mended(mine, theirs):
            return False
        if different:
            raise CloneError(
                f"this server is not equal to {self.primary.source}, and stays out of service:\n"
                + "\n".join(f"  {line}" for line in different),
                hint="make them equal; it looks again by itself, twice a minute",
            )
        remove_durably(str(paths.JOINING))
        self._tell("done", f"equal to {self.primary.source}, in service")
        return True

    def _apply(self) -> None:
        self._tell("applying", "applying what the site file asks of this server")
        self.host.run(["ets", "apply", "--yes"], deadline=APPLY)

    def _verify(self) -> None:
        self._tell("verifying", "asking every service whether it answers")
        done = self.host.run(["ets", "verify", "--json", "--seconds", "60"], check=False,
                             deadline=VERIFY)  # fmt: skip
        wrong = _wrong(done.text)
        if done.status != 0 or wrong:
            output = "\n".join(wrong) or done.stderr.decode(errors="replace")
            raise CommandFailed(done.command, done.status, output)

    def _lists(self) -> tuple[manifest.Manifest, manifest.Manifest]:
        self._tell("comparing", f"comparing every file with {self.primary.source}")
        excluded = load.read(str(paths.SITE_FILE)).clone.exclude
        mine, theirs = manifest.take(exclude=excluded), self._theirs()
        if manifest.differing(mine, theirs):
            time.sleep(2)  # it may have been in the middle of a change: a second look at both
            mine, theirs = manifest.take(exclude=excluded), self._theirs()
        return mine, theirs

    def _mended(self, mine: manifest.Manifest, theirs: manifest.Manifest) -> bool:
        """Bring over what changed there since the copy, and start again with it."""
        for line in manifest.compare(mine, theirs, peer=self.primary.source):
            self.say("different", line)
        count = mend.mend(self.primary.wrap, mine, theirs)
        if count:
            changed = f"{count} paths changed on {self.primary.source} since the copy"
            self._tell("mended", f"{changed}, and were brought over; starting again")
            self.host.run(["systemctl", "--no-block", "reboot"])
        return count > 0

    def _theirs(self) -> manifest.Manifest:
        done = run(self.primary.wrap(["ets", "clone", "manifest"]), deadline=COMPARE)
        return manifest.load(done.text.splitlines())

    def _tell(self, stage: str, text: str) -> None:
        self.say(stage, text)
        try:
            self.primary.report(stage, text)
        except EtsError as error:
            self.say("unheard", f"{self.primary.source} did not hear of it: {error.message}")


def finish(say: Callable[[str, str], None] | None = None) -> None:
    """What ``ets clone finish`` does on a new server. Well when the server is in service.

    Raises EtsError: it stays out of service, and its unit tries again.
    """
    say = say or announce
    session = _session()
    try:
        if Path(paths.JOINING).exists():
            if not Finish(LocalHost(), primary(session), say).run():
                return
        elif session:  # it ended between the two: the primary may not have heard
            primary(session).report("done", "in service")
    except EtsError as error:
        say("waiting", error.message)
        raise
    clear()


def primary(session: Mapping[str, Any]) -> Primary:
    """The server that the session names. Raises CloneError when there is none."""
    if "ssh" in session:
        return ByHand(session)
    if "servers" in session:
        return Joined(session, Path(paths.JOIN) / "keys")
    raise CloneError(
        f"this server does not know whose copy it is: {paths.JOIN}/{SESSION} is missing",
        hint="copy it again; or compare it by hand (ets clone manifest on both servers), and "
        f"remove {paths.JOINING} when they are equal",
    )


def clear() -> None:
    """Remove what only a new server needs: the session with its keys, and the unit."""
    shutil.rmtree(Path(paths.JOIN), ignore_errors=True)
    for path in (UNIT_LINK, UNIT_FILE):
        remove_durably(path)
    run(["systemctl", "daemon-reload"], check=False)


def announce(stage: str, text: str) -> None:
    """A line in the journal, and one for whoever watches a virtual machine."""
    print(f"{stage}: {text}", flush=True)  # noqa: T201 - the unit's standard output is the journal
    line = json.dumps({"event": "finish", "stage": stage, "text": text, "wall": time.time()})
    try:
        with _EVENTS.open("w") as port:
            port.write(line + "\n")
    except OSError:
        return  # not a virtual machine, or nobody watches


def _session() -> Mapping[str, Any]:
    place = Path(paths.JOIN) / SESSION
    try:
        found = json.loads(place.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CloneError(f"cannot read {place}: {error}", hint="copy this server again") from error
    return found if isinstance(found, dict) else {}


def _wrong(text: str) -> list[str]:
    try:
        found = json.loads(text)
        drift = [f"{step['verb']} {step['target']}" for step in found["drift"]]
        ill = [
            f"{probe['name']}: {probe['said']}" for probe in found["probes"] if not probe["well"]
        ]
    except (ValueError, KeyError, TypeError):
        return []
    return [*ill, *(f"not as the site file wants it: {line}" for line in drift)]
