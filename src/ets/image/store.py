"""Images on a server, by digest: complete, verified and read-only, or not there at all.

::

    store/<digest>/         manifest.json, root.img, vmlinuz, initrd.img, packages.txt
    exports/<roothash>      hard link to root.img: what the block export serves under that name
    published/<name>.json   which digest stations get (``ets.image.publish``)
    incoming/               builds and copies on their way; what a crash left there is removed
    quarantine/<digest>     images that were found damaged, kept for a look, never served

Invariant: what lies in ``store`` got there by one rename of a directory whose every file had the
sha256 that the manifest says, and is never written again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ets.errors import ImageError
from ets.host.atomic import sync_directory
from ets.image import verity
from ets.image.manifest import LONGEST, ROOT, Manifest, is_digest, parse
from ets.image.verity import Watch

MANIFEST = "manifest.json"


class Store:
    """The images below ``root`` (``/var/lib/ets/images`` on a server)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = root / "store"
        self.exports = root / "exports"
        self.published = root / "published"
        self.arriving = root / "incoming"
        self.quarantine = root / "quarantine"

    def prepare(self) -> None:
        """Make the store's folders, where they are missing."""
        for folder in (self.root, self.store, self.exports, self.published):
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        self.arriving.mkdir(exist_ok=True, mode=0o700)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store against other processes that change it; freed by the kernel at a crash."""
        self.prepare()
        with (self.root / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def digests(self) -> list[str]:
        """All images, sorted."""
        if not self.store.is_dir():
            return []
        return sorted(path.name for path in self.store.iterdir() if is_digest(path.name))

    def path(self, digest: str, file: str) -> Path:
        """Where ``file`` of the image ``digest`` lies."""
        return self.store / digest / file

    def manifest(self, digest: str) -> Manifest:
        """The manifest of ``digest``, checked against it. Raises ImageError."""
        path = self.path(digest, MANIFEST)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ImageError(
                f"there is no image {digest[:12]} in {self.root}: {error.strerror}",
                hint="'ets image list' shows what is there",
            ) from error
        return _checked(content, digest, str(path))

    def find(self, text: str) -> str:
        """The one digest that begins with ``text``. Raises ImageError for none and for several."""
        found = [digest for digest in self.digests() if digest.startswith(text)]
        if len(found) != 1 or not text:
            said = "no image's digest begins" if not found else f"{len(found)} digests begin"
            raise ImageError(
                f"{said} with {text!r}", hint="'ets image list' shows all images and their digests"
            )
        return found[0]

    @contextlib.contextmanager
    def incoming(self, prefix: str) -> Iterator[Path]:
        """A folder for an image on its way, removed at the end whatever happens.

        What killed builders and copiers left there is removed too: each folder is locked by the
        process that fills it.
        """
        self.prepare()
        self._sweep()
        folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=self.arriving))
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)

    def admit(self, folder: Path, digest: str, *, trusted: bool = False) -> None:
        """Take the image in ``folder`` (of ``incoming``) into the store, by one rename.

        Every file's sha256 and the hash tree are checked before, unless ``trusted`` (they were
        just computed here). An image that is already there stays as it is; either way it is
        exported afterwards. Raises ImageError and takes nothing when something does not fit.
        """
        manifest = _checked((folder / MANIFEST).read_bytes(), digest, str(folder))
        names = {path.name for path in folder.iterdir()}
        if strange := names - {MANIFEST, *manifest.files}:
            raise ImageError(
                f"the image {digest[:12]} holds files that its manifest lacks: {strange}"
            )
        if not trusted and (wrong := verify_folder(folder, manifest)):
            raise ImageError(
                f"the image {digest[:12]} is not what its digest says: {'; '.join(wrong)}"
            )
        for name in names:
            (folder / name).chmod(0o444)
            _sync_file(folder / name)
        with self.locked():
            place = self.store / digest
            if not place.exists():
                folder.chmod(0o755)
                folder.rename(place)
                sync_directory(self.store)
            self.export(digest)

    def export(self, digest: str) -> None:
        """Serve the image's root under its root hash (a hard link; well when it is there)."""
        manifest = self.manifest(digest)
        link = self.exports / manifest.roothash
        source = self.path(digest, ROOT)
        if link.exists() and link.samefile(source):
            return
        new = self.exports / f".{manifest.roothash}.new"
        new.unlink(missing_ok=True)
        new.hardlink_to(source)
        new.rename(link)
        sync_directory(self.exports)

    def exported(self, digest: str) -> bool:
        """True when the block export serves this image."""
        link = self.exports / self.manifest(digest).roothash
        return link.exists()

    def remove(self, digest: str) -> None:
        """Remove an image. Whether it may go is the caller's decision (``ets.image.publish``)."""
        self._take_away(digest, self.arriving / f"removed-{digest}")
        shutil.rmtree(self.arriving / f"removed-{digest}", ignore_errors=True)

    def set_aside(self, digest: str) -> Path:
        """Stop serving an image and move it to ``quarantine``; returns where it lies now."""
        self.quarantine.mkdir(exist_ok=True, mode=0o700)
        place = self.quarantine / digest
        shutil.rmtree(place, ignore_errors=True)
        self._take_away(digest, place)
        return place

    def verify(self, digest: str, *, rate: float = 0, watch: Watch = verity.unwatched) -> list[str]:
        """What is wrong with an image: one sentence each, none when it is sound.

        ``rate`` (bytes per second) limits the reading. Raises ImageError when it is not there.
        """
        return verify_folder(self.store / digest, self.manifest(digest), rate=rate, watch=watch)

    def _take_away(self, digest: str, place: Path) -> None:
        # The export goes first: nobody new may open what is about to disappear.
        with contextlib.suppress(ImageError):
            roothash = self.manifest(digest).roothash
            others = (self.manifest(other).roothash for other in self.digests() if other != digest)
            if roothash not in others:
                (self.exports / roothash).unlink(missing_ok=True)
                sync_directory(self.exports)
        shutil.rmtree(place, ignore_errors=True)
        (self.store / digest).rename(place)
        sync_directory(self.store)

    def _sweep(self) -> None:
        for folder in self.arriving.iterdir():
            with contextlib.suppress(OSError):
                handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
                finally:
                    os.close(handle)


def verify_folder(
    folder: Path,
    manifest: Manifest,
    *,
    rate: float = 0,
    watch: Watch = verity.unwatched,
) -> list[str]:
    """What is wrong with the files of an image in ``folder``, one sentence each.

    The root is checked block by block against its root hash and as a whole by its sha256.
    """
    wrong = []
    for name, entry in sorted(manifest.files.items()):
        path = folder / name
        try:
            size = path.stat().st_size
            if size != entry.size:
                wrong.append(f"{name} has {size} bytes instead of {entry.size}")
                continue
            if name != ROOT and _sha256(path) != entry.sha256:
                wrong.append(f"{name} does not have the sha256 that the manifest says")
            if name == ROOT:
                bad = verity.bad_blocks(
                    path, manifest.blocks, manifest.roothash, rate=rate, watch=watch
                )
                if bad:
                    wrong.append(f"{name} has {len(bad)} bad blocks, the first is {bad[0]}")
        except OSError as error:
            wrong.append(f"{name} cannot be read: {error.strerror}")
    return wrong


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _checked(content: bytes, digest: str, where: str) -> Manifest:
    got = hashlib.sha256(content).hexdigest() if len(content) <= LONGEST else "too long"
    if got != digest:
        raise ImageError(
            f"the manifest in {where} is not that of the image {digest[:12]} (it has {got[:12]})",
            hint="the image is damaged: it is fetched again from a peer, or build it again",
        )
    return parse(content)
