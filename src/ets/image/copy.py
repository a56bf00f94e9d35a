"""Copies of images from a peer: fetched into ``incoming``, checked, and only then in the store.

The digest is known before (from a publication or a person), so a source cannot give us anything
but that image; whatever else it sends is refused and named.
"""

from __future__ import annotations

import errno
import shlex
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import httpx

from ets.errors import EtsError, HostError, ImageError
from ets.image.manifest import LONGEST, Manifest, parse
from ets.image.progress import Event, Events, silent
from ets.image.store import MANIFEST, Store

_CHUNK = 1 << 20


class Source(Protocol):
    """Where an image can be had."""

    @property
    def name(self) -> str:
        """What a person calls it."""

    def open(self, digest: str, file: str) -> AbstractContextManager[Iterator[bytes]]:
        """The content of ``file`` of the image ``digest`` in pieces. Raises EtsError, OSError."""


class FolderSource:
    """Another store on this machine, or one that is mounted (a USB disk)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def name(self) -> str:
        """Its path."""
        return str(self._root)

    @contextmanager
    def open(self, digest: str, file: str) -> Iterator[Iterator[bytes]]:
        """See ``Source``."""
        with (self._root / "store" / digest / file).open("rb") as stream:
            yield iter(lambda: stream.read(_CHUNK), b"")


class PeerSource:
    """A peer's agent over HTTPS: ``<url>/v1/images/<digest>/<file>``.

    ``context`` carries our certificate and trusts only the site's own authority.
    """

    def __init__(self, url: str, context: ssl.SSLContext, *, stall: float = 20) -> None:
        self._url = url.rstrip("/")
        self._context = context
        self._stall = stall

    @property
    def name(self) -> str:
        """Its URL."""
        return self._url

    @contextmanager
    def open(self, digest: str, file: str) -> Iterator[Iterator[bytes]]:
        """See ``Source``. ``stall`` seconds without a byte end it."""
        url = f"{self._url}/v1/images/{digest}/{file}"
        try:
            with (
                httpx.Client(verify=self._context, timeout=self._stall, trust_env=False) as client,
                client.stream("GET", url) as answer,
            ):
                if answer.status_code != httpx.codes.OK:
                    raise ImageError(f"{url} answers {answer.status_code}")
                yield answer.iter_raw(_CHUNK)
        except httpx.HTTPError as error:
            raise ImageError(
                f"{url} could not be fetched: {error or type(error).__name__}",
                hint="is that server's agent running? 'ets status' tells",
            ) from error


class SshSource:
    """A peer's store over ssh, for servers that have no agent yet."""

    def __init__(self, host: str, root: Path = Path("/var/lib/ets/images")) -> None:
        self._host = host
        self._root = root

    @property
    def name(self) -> str:
        """As ssh calls it."""
        return f"{self._host}:{self._root}"

    @contextmanager
    def open(self, digest: str, file: str) -> Iterator[Iterator[bytes]]:
        """See ``Source``."""
        path = self._root / "store" / digest / file
        argv = ["ssh", "-oBatchMode=yes", "-oConnectTimeout=10", "--", self._host]
        with subprocess.Popen(
            [*argv, shlex.join(["cat", "--", str(path)])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            if process.stdout is None or process.stderr is None:
                raise ImageError("ssh has no output")
            stream = process.stdout
            try:
                yield iter(lambda: stream.read(_CHUNK), b"")
            except BaseException:
                process.kill()
                raise
            said = process.stderr.read().decode(errors="replace").strip()
        if process.returncode != 0:
            raise ImageError(
                f"{file} could not be read over ssh: {said}",
                hint=f"can you log in there without a password: ssh {self._host} true?",
            )


def fetch(store: Store, digest: str, source: Source, *, events: Events = silent) -> Manifest:
    """Bring the image ``digest`` from ``source`` into ``store``; nothing to do when it is there.

    Every file's size and sha256 and the whole hash tree are checked before the image is served.
    Raises ImageError: the source lacks it, sends something else, or the disk is full. Then the
    store is as it was.
    """
    what = f"image {digest[:12]}"
    if digest in store.digests():
        store.export(digest)
        return store.manifest(digest)
    try:
        with store.incoming(f"fetch-{digest[:12]}") as folder:
            manifest = _fetch_manifest(folder, digest, source)
            total = sum(entry.size for entry in manifest.files.values()) or 1
            done = 0
            for name, entry in sorted(manifest.files.items()):
                done += _fetch_file(
                    folder / name,
                    entry.size,
                    source,
                    digest,
                    _Share(what, source.name, events, done, total),
                )
            events(Event(what, "checking what came"))
            store.admit(folder, digest)
    except ImageError as error:
        raise ImageError(
            f"{what} was not taken from {source.name}: {error.message}",
            hint=error.hint or "the store is as before; try another server",
        ) from error
    except (OSError, HostError) as error:
        raise _explain(error, what, source) from error
    events(Event(what, f"fetched from {source.name}", 1.0))
    return manifest


def fetch_any(
    store: Store, digest: str, sources: list[Source], *, events: Events = silent
) -> tuple[Manifest, list[EtsError]]:
    """``fetch`` from the first of ``sources`` that has the right image.

    Returns what the others did wrong too, so that it can be reported. Raises ImageError when none
    has it, saying why for each.
    """
    failures: list[EtsError] = []
    for source in sources:
        try:
            return fetch(store, digest, source, events=events), failures
        except ImageError as error:
            failures.append(error)
    said = "\n".join(f"  {error.message}" for error in failures) or "  no server to ask"
    raise ImageError(f"the image {digest[:12]} could not be fetched:\n{said}")


class _Share:
    """Turns bytes of one file into the done part of all."""

    def __init__(self, what: str, where: str, events: Events, before: int, total: int) -> None:
        self._event: Callable[[float], Event] = lambda part: Event(
            what, f"fetching from {where}", part
        )
        self._events = events
        self._before = before
        self._total = total

    def __call__(self, got: int) -> None:
        self._events(self._event((self._before + got) / self._total))


def _fetch_manifest(folder: Path, digest: str, source: Source) -> Manifest:
    content = b""
    with source.open(digest, MANIFEST) as pieces:
        for piece in pieces:
            content += piece
            if len(content) > LONGEST:
                raise ImageError("its manifest does not end")
    manifest = parse(content)
    if manifest.digest != digest:
        raise ImageError(f"it sent the image {manifest.digest[:12]} instead")
    (folder / MANIFEST).write_bytes(content)
    return manifest


def _fetch_file(path: Path, size: int, source: Source, digest: str, share: _Share) -> int:
    got = 0
    with source.open(digest, path.name) as pieces, path.open("wb") as file:
        for piece in pieces:
            got += len(piece)
            if got > size:
                raise ImageError(f"{path.name} is longer than the {size} bytes it should have")
            file.write(piece)
            share(got)
    if got != size:
        raise ImageError(f"{path.name} ended after {got} of {size} bytes")
    return got


def _explain(error: OSError | HostError, what: str, source: Source) -> ImageError:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return ImageError(
            f"the disk is full: {what} was not fetched, and what had come is removed",
            hint="make room: 'ets image prune' removes images that nobody uses",
        )
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{source.name} does not have {what}")
    return ImageError(f"{what} could not be fetched from {source.name}: {error}")
