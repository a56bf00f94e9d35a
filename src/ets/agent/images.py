"""Follows what is published: tells the peers of a newer image here, fetches a newer one of
theirs, and takes a damaged one out of service until it is whole again.

Invariant: nothing is published here that is not in the store, and nothing is in the store that
was not verified whole. Until a newer image has come, the older one is served.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from ets.agent.peers import Peers
from ets.agent.place import Place, tls
from ets.agent.state import STANDING, State
from ets.agent.supervise import run
from ets.cluster.bootscript import BootImage
from ets.cluster.records import Record, canonical, made
from ets.errors import EtsError, ImageError
from ets.host.atomic import write_atomic
from ets.image.copy import PeerSource, Source, fetch_any
from ets.image.manifest import Manifest, is_digest
from ets.image.publish import Publication, adopt, publication
from ets.image.scrub import GENTLE, quarantine
from ets.image.store import MANIFEST, Store
from ets.services.blocks import SERVICE

log = structlog.get_logger("ets.agent.images")

#: seconds before a failed fetch is tried again, and for which a peer's failure is shown
AGAIN = 10.0
FAILED = 3600.0
#: all that is stored is read again every so many seconds, at so many bytes a second (what was
#: touched: at ``GENTLE``)
ROUND = 6 * 3600.0
SLOWLY = 2e6
BLOCKS_UNIT = SERVICE


class Images:
    """The published images of one server."""

    def __init__(
        self,
        place: Place,
        state: State,
        peers: Peers,
        *,
        alive: Callable[[str], bool],
        monotonic: Callable[[], float],
    ) -> None:
        self._place = place
        self._state = state
        self._peers = peers
        self._alive = alive
        self._monotonic = monotonic
        self.store = Store(place.tree.images)
        self._signature: object = None
        self._pointers: dict[str, Publication] = {}
        self._boot: dict[str, BootImage] = {}
        self._trouble: dict[str, str] = {}
        self._not_before: dict[str, float] = {}
        self._tls = tls(place.tree.pki, ssl.PROTOCOL_TLS_CLIENT)
        self._began = monotonic()
        #: by digest: how the files looked when they were last found whole; kept on the disk
        self._file = place.tree.runtime / "images.json"
        self._whole = _known_whole(self._file)
        self._there = set(self.store.digests())
        self._read_at: dict[str, float] = {}

    def boot_images(self) -> Mapping[str, BootImage]:
        """What stations are told to boot, by name: published here, and whole."""
        return self._boot

    def published_here(self) -> dict[str, dict[str, object]]:
        """The pointers of this server: digest and generation by name."""
        return {
            name: {"digest": p.digest, "generation": p.generation}
            for name, p in self._pointers.items()
        }

    def condition(self) -> dict[str, str]:
        """What is wrong, by name of image."""
        return {name: text for name, text in self._trouble.items() if text}

    def file(self, digest: str, file: str) -> Path | None:
        """A file of an image in the store, or None. Looks at the disk."""
        try:
            manifest = self.store.manifest(digest)
        except ImageError:
            return None
        path = self.store.path(digest, file)
        return path if file in (MANIFEST, *manifest.files) and path.is_file() else None

    def changed(self) -> None:
        """Look at everything again at the next step."""
        self._signature = None

    async def step(self) -> None:
        """Look at the pointers; tell, follow and repair. Raises HostError."""
        await self._look()
        for name, pointer in self._pointers.items():
            self._tell(name, pointer)
        for key, record in self._state.held.items():
            kind, _, name = key.partition("/")
            if kind == "image" and name in self._place.site.images:
                await self._follow(name, record)

    async def _look(self) -> None:
        signature = await asyncio.to_thread(_signature, self.store)
        if signature == self._signature:
            return
        self._pointers, wrong = await asyncio.to_thread(_pointers, self.store)
        if wrong:
            self._state.alarm(wrong)
        boot = {}
        for name, pointer in self._pointers.items():
            try:
                manifest = await asyncio.to_thread(self.store.manifest, pointer.digest)
            except ImageError:
                continue
            boot[name] = _boot_image(name, pointer.digest, manifest)
        self._boot, self._signature = boot, signature
        await self._trust_new()

    def _tell(self, name: str, pointer: Publication) -> None:
        key, generation, digest = f"image/{name}", pointer.generation, pointer.digest
        record = self._state.held.get(key)
        if record is None or generation > record.version:
            content = {"digest": digest, "previous": list(pointer.previous)}
            self._state.put(made(key, self._place.me.name, generation, content))
            log.info("published here", image=name, generation=generation, digest=digest[:12])
            return
        theirs = _publication(name, record)
        if theirs is None or (generation == record.version and theirs.digest != digest):
            said = theirs.digest[:12] if theirs else "unreadable"
            self._state.alarm(
                f"image {name}: generation {generation} is {digest[:12]} here and {said} on"
                f" {record.owner}; publish the right one again: ets image publish",
                keep=STANDING,
            )

    async def _follow(self, name: str, record: Record) -> None:
        """Have what is published: the peer's, when it is newer, and all of it."""
        wanted = _publication(name, record)
        mine = self._pointers.get(name)
        if mine is not None and (wanted is None or mine.generation >= wanted.generation):
            wanted = mine
        if wanted is None or (wanted is mine and name in self._boot):
            self._trouble.pop(name, None)
            return
        if self._monotonic() < self._not_before.get(name, 0.0):
            return
        try:
            sources, having = self._sources(wanted, record.owner)
            await asyncio.to_thread(self._have, wanted, sources, having)
            self._trouble.pop(name, None)
        except EtsError as error:
            self._trouble[name] = error.message
            self._not_before[name] = self._monotonic() + AGAIN
            log.warning("image", image=name, trouble=error.message)
        self.changed()

    def _sources(self, wanted: Publication, owner: str) -> tuple[list[Source], bool]:
        """The peers to ask, and whether they should have it: those that say that they publish
        it, and its owner; where there are none of them, all that are not lost."""
        alive = [peer for peer in self._place.peers if self._alive(peer.name)]
        having = [
            peer for peer in alive if peer.name == owner or self._peers.publishes(peer.name, wanted)
        ]
        having.sort(key=lambda peer: peer.name != owner)
        sources: list[Source] = [
            PeerSource(self._peers.url(peer), self._tls, stall=10.0) for peer in having or alive
        ]
        return sources, bool(having)

    def _have(self, wanted: Publication, sources: list[Source], having: bool) -> None:
        if wanted.digest in self.store.digests():
            self.store.manifest(wanted.digest)
        else:
            _, failures = fetch_any(self.store, wanted.digest, sources)
            for error in failures if having else ():
                self._state.alarm(error.message, keep=FAILED)
            log.info("fetched", image=wanted.name, digest=wanted.digest[:12])
        adopt(self.store, wanted)

    # -- damage -----------------------------------------------------------------------------

    async def scrub(self) -> None:
        """Read what is stored again: at once when a file was touched since it was last found
        whole (also while this agent did not run), else slowly, round after round. What is damaged
        is no longer served, and is fetched again. Raises EtsError."""
        for digest in await asyncio.to_thread(self.store.digests):
            seen = await asyncio.to_thread(_touched, self.store, digest)
            due = self._monotonic() - self._read_at.get(digest, self._began) >= ROUND
            if self._whole.get(digest) != seen:
                await self._read(digest, GENTLE)
            elif due:
                await self._read(digest, SLOWLY)

    async def _trust_new(self) -> None:
        """What comes into the store while we run was verified on its way in."""
        for digest in await asyncio.to_thread(self.store.digests):
            if digest not in self._whole and digest not in self._there:
                await self._found_whole(
                    digest, await asyncio.to_thread(_touched, self.store, digest)
                )
            self._there.add(digest)

    async def _read(self, digest: str, rate: float) -> None:
        seen = await asyncio.to_thread(_touched, self.store, digest)
        try:
            wrong = await asyncio.to_thread(self.store.verify, digest, rate=rate)
        except ImageError as error:
            wrong = [error.message]
        self._read_at[digest] = self._monotonic()
        if not wrong:
            await self._found_whole(digest, seen)
            return
        if not (self.store.store / digest).is_dir():
            return
        text = f"image {digest[:12]} is damaged on this server: {'; '.join(wrong)}"
        self._state.alarm(text[:500])
        # A publication stays, so that _follow fetches the right image again.
        await asyncio.to_thread(quarantine, self.store, digest)
        self._there.discard(digest)
        self._whole.pop(digest, None)
        self.changed()
        await self._restart_blocks()

    async def _found_whole(self, digest: str, seen: str) -> None:
        there = await asyncio.to_thread(self.store.digests)
        self._whole = {d: s for d, s in self._whole.items() if d in there} | {digest: seen}
        body = canonical(self._whole).encode() + b"\n"
        await asyncio.to_thread(write_atomic, self._file, body, mode=0o600)

    async def _restart_blocks(self) -> None:
        """The block export may hold the damaged file open: start it anew, where it is there."""
        try:
            status, output = await run(("systemctl", "try-restart", BLOCKS_UNIT))
        except OSError as error:
            status, output = -1, str(error)
        if status != 0:
            self._state.alarm(f"{BLOCKS_UNIT} was not restarted: {output.strip()[-200:]}")


def _boot_image(name: str, digest: str, manifest: Manifest) -> BootImage:
    return BootImage(name, digest, manifest.roothash, manifest.blocks, manifest.seal)


def _publication(name: str, record: Record) -> Publication | None:
    """What a record says is published; None when it makes no sense."""
    value = record.value
    if not isinstance(value, dict) or not isinstance(value.get("previous"), list):
        return None
    digests = [value.get("digest"), *value["previous"]]
    if not all(isinstance(digest, str) and is_digest(digest) for digest in digests):
        return None
    return Publication(name, digests[0], record.version, tuple(digests[1:]))


def _pointers(store: Store) -> tuple[dict[str, Publication], str]:
    """The publications that can be read, and what is wrong with the others."""
    found, wrong = {}, []
    for path in sorted(store.published.glob("*.json")) if store.published.is_dir() else ():
        try:
            made = publication(store, path.stem)
        except ImageError as error:
            wrong.append(error.message)
            continue
        if made is not None and made.name == path.stem:
            found[made.name] = made
    return found, "; ".join(wrong)


def _stat(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _signature(store: Store) -> object:
    """Changes when something is published, or comes into or leaves the store."""
    pointers = sorted(store.published.glob("*.json")) if store.published.is_dir() else []
    return (
        _stat(store.store),
        _stat(store.exports),
        [(path.name, _stat(path)) for path in pointers],
    )


def _touched(store: Store, digest: str) -> str:
    """Changes when a file of the image is written to."""
    folder = store.store / digest
    return canonical([(path.name, _stat(path)) for path in sorted(folder.glob("*"))])


def _known_whole(file: Path) -> dict[str, str]:
    """What the last agent found whole; nothing when that cannot be read."""
    try:
        content = json.loads(file.read_bytes())
        return {str(digest): str(seen) for digest, seen in content.items()}
    except (OSError, ValueError, AttributeError):
        return {}
