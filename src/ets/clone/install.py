"""The installer: what a blank machine does from its first question to its restart.

Invariant: until the very last step the machine's disks say "unfinished", and a machine with
unfinished disks never becomes a server by itself. Whatever ends the installer in between (power,
the primary's death, a full disk), the next run finds out from the disk how far the last one came
and goes on, or starts clean. So every step may be done again: the copy brings only what differs,
rewriting and the boot loader write the same once more.

The keys by which the primary knows this machine move to its disk as soon as there is one, so that
an installation that lost power goes on without anybody being asked again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ets import paths
from ets.clone import bootloader, disks, partition, pull, rewrite
from ets.clone.disks import Machine
from ets.clone.finish import SESSION
from ets.clone.joining import Joining, Offer
from ets.clone.layout import Kind, Layout
from ets.clone.partition import Target
from ets.clone.pull import Copied, Progress, SourceFacts
from ets.errors import CloneError, EtsError
from ets.host.transport import Host

#: on the new disk while an installation is under way; never copied, gone at the end
NOTES = ".ets-install"
#: seconds to wait for somebody who approves this machine
PATIENCE = 7 * 86400.0
#: seconds that the clock may differ from the primary's before it is set
CLOCKS_APART = 60.0

KINDS: tuple[Kind, ...] = ("plain", "lvm", "btrfs")


class Screen(Protocol):
    """Where a person sees what happens and is asked the one question."""

    def say(self, text: str) -> None:
        """A line worth keeping."""

    def progress(self, text: str, done: float | None) -> None:
        """What goes on at the moment."""

    def token(self) -> str | None:
        """The join token, typed by a person; None when there is to be none."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the kernel command line asks. ``servers`` may take the join, in order; ``mac`` is the
    card that the machine booted from; ``disks`` are named ones (none: the installer chooses)."""

    servers: tuple[str, ...]
    mac: str
    disks: tuple[str, ...] = ()


def wishes(cmdline: str) -> Wishes:
    """What a kernel command line says: ``ets.join=A,B``, ``BOOTIF=01-MAC``, ``ets.disk=X,Y``.
    Raises CloneError when it names no server."""
    words: dict[str, str] = {}
    for word in cmdline.split():
        key, _, value = word.partition("=")
        words[key] = value
    servers = tuple(part for part in words.get("ets.join", "").split(",") if part)
    if not servers:
        raise CloneError(
            "the kernel command line has no ets.join=ADDRESS: no server to ask",
            hint="boot this machine from the network after `ets join NAME` on the primary",
        )
    return Wishes(
        servers,
        words.get("BOOTIF", "")[3:].replace("-", ":").lower(),
        tuple(part for part in words.get("ets.disk", "").split(",") if part),
    )


@dataclass
class Install:
    """One run of the installer on ``host``. ``volatile`` is a directory in memory."""

    host: Host
    screen: Screen
    wishes: Wishes
    volatile: Path = Path("/run/ets-install")
    _joining: Joining | None = field(default=None, init=False)
    _target: Target | None = field(default=None, init=False)

    def run(self) -> Offer:
        """Everything up to the restart, which is the caller's. Raises CloneError, HostError: the
        primary has been told, nothing is in service, and running again goes on."""
        machine = disks.inventory(self.host)
        for line in described(machine):
            self.screen.say(line)
        self._target = self._unfinished(machine)
        try:
            return self._install(machine)
        except EtsError as error:
            self._report("failed", error.message)
            raise
        finally:
            if self._target is not None:
                partition.close(self.host, self._target)
                self._target = None

    def _install(self, machine: Machine) -> Offer:
        joining = self._let_in(machine)
        offer = joining.offer
        self._set_clock(offer)
        source = pull.facts(joining.wrap)
        target = self._make_room(machine, offer, source)
        self._keep_keys(target)
        self._copy(joining, target, source)
        self._become(target, offer, source)
        self._say("boot loader", "installing the boot loaders for BIOS and UEFI")
        for line in bootloader.install(self.host, target, tell=self._tell):
            self.screen.say(line)
        self._leave_session(target, offer)
        self._target = None
        partition.close(self.host, target, finished=True)
        self._say("copied", "installed; starting from its own disk")
        return offer

    # -- the steps ---------------------------------------------------------------------------

    def _unfinished(self, machine: Machine) -> Target | None:
        """What an installation that was interrupted has left, mounted, and its keys taken back."""
        for kind in KINDS:
            for mirror in (False, True):
                layout = Layout(kind, mirror)
                target = partition.find(self.host, machine, layout, tell=self.screen.say)
                if target is not None:
                    kept = target.root / NOTES / "keys"
                    if kept.is_dir() and not self._keys.exists():
                        shutil.copytree(kept, self._keys)
                    return target
        return None

    def _let_in(self, machine: Machine) -> Joining:
        """Ask until this machine may come in. A token is asked for unless it was let in before,
        or no join wants one."""
        servers = self.wishes.servers
        told = {**machine.record(), "mac": self.wishes.mac}
        joining = Joining(servers, self._keys, told)
        if not (self._keys / "agreed.json").exists() and self._wants_token(joining):
            token = self.screen.token()
            joining = Joining(servers, self._keys, told, token=token)
        joining.wait(PATIENCE, self.screen.say)
        self._joining = joining
        return joining

    def _wants_token(self, joining: Joining) -> bool:
        """Is any of the joins that are open for this machine one that takes a token? Raises
        CloneError when no server answers."""
        last: CloneError | None = None
        for address in self.wishes.servers:
            try:
                rows = joining.open(address)
            except CloneError as error:
                last = error
                continue
            mine = [row for row in rows if row.get("for_you")] or list(rows)
            return not all(row.get("unattended") for row in mine)
        if last is not None:
            raise last
        return False

    def _set_clock(self, offer: Offer) -> None:
        """A machine that was in a cupboard for years must not reject a certificate of today."""
        if offer.now and abs(time.time() - offer.now) > CLOCKS_APART:
            self.screen.say("this machine's clock is wrong; it is set after the primary's")
            self.host.run(["date", "--utc", "--set", f"@{offer.now:.0f}"])

    def _make_room(self, machine: Machine, offer: Offer, source: SourceFacts) -> Target:
        """The mounted disks: those of the interrupted installation when it had the same layout."""
        layout = Layout(kind_of(offer.layout), offer.mirror, source.files)
        found = self._target
        if found is not None:
            if (found.layout.kind, found.layout.mirror) == (layout.kind, layout.mirror):
                return found
            partition.close(self.host, found)
            self._target = None
        choice = disks.choose(
            machine,
            room=layout.room(source.needed),
            disks=layout.disks,
            wanted=self.wishes.disks,
            erase=offer.erase,
        )
        self._say("disks", choice.reason)
        for line in choice.erases:
            self.screen.say(f"erasing {line}")
        self._target = partition.make(self.host, choice, layout, tell=self._tell)
        return self._target

    def _keep_keys(self, target: Target) -> None:
        """On the disk in one step: half a key would be worse than none."""
        kept = target.root / NOTES / "keys"
        part = kept.with_name("keys.part")
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        for place in (part, kept):
            shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self._keys, part)
        self.host.run(["sync", "--file-system", str(part)], deadline=600)
        part.rename(kept)

    def _copy(self, joining: Joining, target: Target, source: SourceFacts) -> None:
        self._say("copying", f"copying {disks.size_words(source.needed)} from {source.server}")
        copied = pull.pull(joining.wrap, target.root, exclude=(f"/{NOTES}",), events=self._copying)
        self._say("copying", summary(copied))
        for note in copied.notes:
            self.screen.say(note)

    def _copying(self, event: Progress) -> None:
        done = event.done / event.total if event.total else None
        text = progress_words(event)
        self.screen.progress(text, done)
        self._report("copying", text, done)

    def _become(self, target: Target, offer: Offer, source: SourceFacts) -> None:
        self._say("identity", f"making it {offer.server}")
        newcomer = rewrite.Newcomer(
            server=offer.server,
            filesystems=target.filesystems,
            nics=rewrite.cards(
                self.host,
                target.root,
                offer.server,
                self.wishes.mac,
                source=source.server,
                known=source.cards,
            ),
            certificate=offer.certificate,
            key=(self._keys / "server.key").read_bytes(),
            ca=offer.ca,
        )
        for line in rewrite.rewrite(target.root, newcomer, old=source.server):
            self.screen.say(line)

    def _leave_session(self, target: Target, offer: Offer) -> None:
        """What the first start needs to compare itself with the primary and to say that it is
        done; the installer's own notes go."""
        place = target.root / str(paths.JOIN).lstrip("/")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700, parents=True)
        shutil.copytree(self._keys, place / "keys")
        session = {"servers": list(self.wishes.servers), "source": offer.source}
        (place / SESSION).write_text(json.dumps(session, indent=1) + "\n")
        shutil.rmtree(target.root / NOTES)

    # -- saying ------------------------------------------------------------------------------

    @property
    def _keys(self) -> Path:
        return self.volatile / "keys"

    def _say(self, stage: str, text: str) -> None:
        self.screen.say(text)
        self._report(stage, text)

    def _tell(self, text: str) -> None:
        self.screen.progress(text, None)

    def _report(self, stage: str, text: str, done: float | None = None) -> None:
        if self._joining is not None:
            self._joining.report(stage, text, done)


def kind_of(layout: str) -> Kind:
    """The layout of that name. Raises CloneError for one that this version does not know."""
    for kind in KINDS:
        if kind == layout:
            return kind
    raise CloneError(
        f"the primary asks for the layout {layout!r}, which this installer does not know",
        hint=f"build and publish the installer's image anew; it knows {', '.join(KINDS)}",
    )


def described(machine: Machine) -> Sequence[str]:
    """What was found in the machine, in lines."""
    memory = disks.size_words(machine.memory)
    what = f"{machine.product or 'unnamed'}, {machine.processors} processors, {memory} of memory"
    lines = [f"this machine: {what}, {machine.firmware.upper()}"]
    for nic in machine.nics:
        speed = f", {nic.speed} Mbit/s" if nic.speed else ""
        lines.append(f"network card {nic.name}: {nic.mac}, {'up' if nic.up else 'down'}{speed}")
    for disk in machine.disks:
        lines.append(f"disk {disk.words}: {'; '.join(disk.holds) or 'blank'}")
    return lines if machine.disks else [*lines, "no disk at all"]


def progress_words(event: Progress) -> str:
    """A copy's progress on one line: how much, how fast, how long."""
    share = f"{disks.size_words(event.done)} of {disks.size_words(event.total)}"
    left = "" if event.left is None else f", {_minutes(event.left)} left"
    return f"{event.stage}: {share}, {disks.size_words(int(event.rate))}/s{left}"


def summary(copied: Copied) -> str:
    """What a copy was, on one line."""
    return (
        f"copied {copied.files} files, {disks.size_words(copied.bytes)}"
        f" ({disks.size_words(copied.wire)} on the wire) in {_minutes(copied.seconds)};"
        f" the primary's writers stood still for {copied.paused:.1f} s"
    )


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
