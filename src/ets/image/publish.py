"""Which image stations get, and which ones may go.

Publishing is one atomic change of ``published/<name>.json``; the images themselves are never
touched. Stations that run keep the image they booted: an image goes only when it is not
published, not one of the last ones published, and no station runs it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ets.errors import HostError, ImageError
from ets.host.atomic import write_atomic
from ets.image.manifest import is_digest
from ets.image.store import Store

#: how many earlier publications a rollback can go back to
KEPT = 3


@dataclass(frozen=True, slots=True)
class Publication:
    """What is published under ``name``. ``generation`` grows by one with every change;
    ``previous`` are the digests published before, the last one first."""

    name: str
    digest: str
    generation: int
    previous: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an image may be removed, and why in words a person reads."""

    digest: str
    keep: bool
    reason: str


def published(store: Store) -> list[Publication]:
    """All publications, by name. Raises ImageError for one that cannot be read."""
    if not store.published.is_dir():
        return []
    return [_read(store, path.stem) for path in sorted(store.published.glob("*.json"))]


def publication(store: Store, name: str) -> Publication | None:
    """What is published under ``name``; None when nothing is. Raises ImageError."""
    return _read(store, name) if (store.published / f"{name}.json").exists() else None


def publish(store: Store, name: str, digest: str) -> Publication:
    """Give stations of ``name`` the image ``digest`` from now on; running ones keep theirs.

    The image is in the store and exported before the pointer changes. Publishing what is
    published changes nothing. Raises ImageError; then the old image is still published.
    """
    manifest = store.manifest(digest)
    for file, entry in manifest.files.items():
        path = store.path(digest, file)
        if not path.is_file() or path.stat().st_size != entry.size:
            raise ImageError(
                f"the image {digest[:12]} is not complete: {file} is missing or has another size",
                hint=f"run 'ets image verify {digest[:12]}'; what was published stays published",
            )
    with store.locked():
        old = publication(store, name)
        if old is not None and old.digest == digest:
            store.export(digest)
            return old
        earlier = (old.digest, *old.previous) if old else ()
        previous = tuple(other for other in dict.fromkeys(earlier) if other != digest)[:KEPT]
        new = Publication(name, digest, old.generation + 1 if old else 1, previous)
        store.export(digest)
        _write(store, new)
    return new


def rollback(store: Store, name: str) -> Publication:
    """Publish again what was published before; a second rollback comes back.

    Raises ImageError when there is nothing before, or when it is not in the store any more.
    """
    old = publication(store, name)
    if old is None or not old.previous:
        raise ImageError(
            f"no earlier image of {name} is known", hint="'ets image list' shows what there is"
        )
    return publish(store, name, old.previous[0])


def adopt(store: Store, wanted: Publication) -> Publication:
    """Take over a peer's publication when it is newer than ours (a higher generation).

    The image must be in the store. Raises ImageError when it is not, and when the same
    generation names another image here: two servers were published to apart from each other.
    """
    old = publication(store, wanted.name)
    if old is not None and old.generation == wanted.generation and old.digest != wanted.digest:
        raise ImageError(
            f"two images are published as generation {old.generation} of {wanted.name}: "
            f"{old.digest[:12]} here, {wanted.digest[:12]} at a peer",
            hint=f"publish the right one again: ets image publish {wanted.name} DIGEST",
        )
    if old is not None and old.generation >= wanted.generation:
        return old
    store.manifest(wanted.digest)
    with store.locked():
        store.export(wanted.digest)
        _write(store, wanted)
    return wanted


def judge(
    digests: Iterable[str],
    publications: Collection[Publication],
    in_use: Collection[str],
    *,
    keep: int = 1,
) -> list[Verdict]:
    """What may be removed of ``digests``. Pure.

    Invariant: nothing published, nothing of the ``keep`` last publications before it, and nothing
    in ``in_use`` (digests of running stations) is ever judged removable.
    """
    now = {p.digest: p.name for p in publications}
    before = {digest: p.name for p in publications for digest in p.previous[: max(keep, 0)]}
    verdicts = []
    for digest in digests:
        if digest in now:
            verdicts.append(Verdict(digest, True, f"published as {now[digest]}"))
        elif digest in in_use:
            verdicts.append(Verdict(digest, True, "stations run it"))
        elif digest in before:
            verdicts.append(Verdict(digest, True, f"was published as {before[digest]} before"))
        else:
            verdicts.append(Verdict(digest, False, "neither published nor in use"))
    return verdicts


def prune(store: Store, in_use: Collection[str], *, keep: int = 1) -> list[Verdict]:
    """Remove what ``judge`` lets go; returns its verdicts on all images."""
    verdicts = judge(store.digests(), published(store), in_use, keep=keep)
    for verdict in verdicts:
        if not verdict.keep:
            with store.locked():
                # Published in the meantime? Look again under the lock.
                again = judge([verdict.digest], published(store), in_use, keep=keep)
                if not again[0].keep:
                    store.remove(verdict.digest)
    return verdicts


def encode(publication: Publication) -> bytes:
    """The publication as its file holds it."""
    content = {
        "name": publication.name,
        "digest": publication.digest,
        "generation": publication.generation,
        "previous": list(publication.previous),
    }
    return json.dumps(content, sort_keys=True).encode() + b"\n"


def decode(content: bytes, where: str) -> Publication:
    """The publication in ``content``, from a file or a peer. Raises ImageError."""
    try:
        raw = json.loads(content)
        found = Publication(
            str(raw["name"]), raw["digest"], int(raw["generation"]), tuple(raw["previous"])
        )
        sound = all(is_digest(digest) for digest in (found.digest, *found.previous))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ImageError(
            f"{where} is no publication of an image: {error}",
            hint="publish the image again: ets image publish NAME DIGEST",
        ) from error
    if not sound:
        raise ImageError(f"{where} names something that is no digest of an image")
    return found


def _read(store: Store, name: str) -> Publication:
    path = store.published / f"{name}.json"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error
    return decode(content, str(path))


def _write(store: Store, new: Publication) -> None:
    try:
        write_atomic(store.published / f"{new.name}.json", encode(new))
    except HostError as error:
        raise ImageError(
            f"{new.name} was not published: {error.message}",
            hint="the image published before is still served",
        ) from error
