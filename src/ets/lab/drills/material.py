"""What a drill needs before a lab can be brought up, built when it is missing: the servers' tree
and the image that the stations boot."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ets.errors import InputError
from ets.host.run import run
from ets.image import publish
from ets.image.build import ensure
from ets.image.manifest import ROOT, Manifest
from ets.image.store import Store
from ets.lab.lab import packages_of
from ets.lab.tree import cache_directory, server_layers
from ets.site import load
from ets.site.model import Site


class Progress(Protocol):
    """What lab and image say while they work."""

    @property
    def what(self) -> str: ...
    @property
    def doing(self) -> str: ...
    @property
    def done(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Material:
    """``images`` is a store that holds just the published image of the stations (and, where it was
    asked for, the installer's)."""

    images: Path
    manifest: Manifest

    @property
    def root(self) -> Path:
        """The good image, of which every server has a copy of its own."""
        return self.images / "store" / self.manifest.digest / ROOT


def gather(
    site_file: Path, events: Callable[[Progress], None], *, cloneable: bool = False
) -> Material:
    """Build what is missing, servers' tree and image at the same time; ``cloneable``: for a lab in
    which a server joins, with the installer. Raises EtsError."""
    site = load.read(site_file)
    cache = cache_directory()
    base = site_file.resolve().parent
    wanted = [site.defaults.image]
    if cloneable:
        wanted.append(_installer(site))
    with ThreadPoolExecutor(max_workers=2) as pool:
        packages = packages_of(site, cloneable=cloneable)
        tree = pool.submit(server_layers, packages, cache, events)
        images = [pool.submit(ensure, site, n, cache, base=base, events=events) for n in wanted]
        tree.result()
        digests = {name: image.result() for name, image in zip(wanted, images, strict=True)}
    manifest = Store(cache / "images").manifest(digests[site.defaults.image])
    return Material(_alone(cache, digests), manifest)


def _installer(site: Site) -> str:
    if site.installer is None:
        raise InputError(
            f"site {site.name} has no image that installs servers",
            hint='add one: [images.installer] with role = "installer"',
        )
    return site.installer.name


def _alone(cache: Path, digests: Mapping[str, str]) -> Path:
    """A store with just these images (by name), published: a lab copies a whole store to each of
    its servers."""
    home = cache / "drill-images"
    key = hashlib.sha256("".join(sorted(digests.values())).encode()).hexdigest()
    place = home / (next(iter(digests.values())) if len(digests) == 1 else key)
    store = Store(place)
    if not all((place / "published" / f"{name}.json").exists() for name in digests):
        _forget(home)
        shutil.rmtree(place, ignore_errors=True)
        store.prepare()
        whole = Store(cache / "images")
        for name, digest in digests.items():
            run(["cp", "--archive", "--link", str(whole.store / digest), str(store.store)])
            store.export(digest)
            publish.publish(store, name, digest)
    os.utime(place)
    return place


def _forget(home: Path) -> None:
    """Remove stores that nothing has used for a week: their images have changed since."""
    for path in home.iterdir() if home.is_dir() else ():
        if path.stat().st_mtime < time.time() - 7 * 86400:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def block_sums(root: Path) -> Iterator[Callable[[int], str]]:
    """The sha256 (hex) of each 4096-byte block of a good image, computed when asked for."""
    handle = os.open(root, os.O_RDONLY)
    try:
        yield lambda block: hashlib.sha256(os.pread(handle, 4096, block * 4096)).hexdigest()
    finally:
        os.close(handle)
