"""What a drill needs before a lab can be brought up, built when it is missing: the servers' tree
and the image that the stations boot."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ets.host.run import run
from ets.image import publish
from ets.image.build import ensure
from ets.image.manifest import ROOT, Manifest
from ets.image.store import Store
from ets.lab.lab import packages_of
from ets.lab.tree import cache_directory, server_layers
from ets.site import load


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
    """``images`` is a store that holds just the published image of the stations."""

    images: Path
    manifest: Manifest

    @property
    def root(self) -> Path:
        """The good image, of which every server has a copy of its own."""
        return self.images / "store" / self.manifest.digest / ROOT


def gather(site_file: Path, events: Callable[[Progress], None]) -> Material:
    """Build what is missing, servers' tree and image at the same time. Raises EtsError."""
    site = load.read(site_file)
    cache = cache_directory()
    name = site.defaults.image
    base = site_file.resolve().parent
    with ThreadPoolExecutor(max_workers=2) as pool:
        tree = pool.submit(server_layers, packages_of(site), cache, events)
        image = pool.submit(ensure, site, name, cache, base=base, events=events)
        tree.result()
        digest = image.result()
    return Material(_alone(cache, name, digest), Store(cache / "images").manifest(digest))


def _alone(cache: Path, name: str, digest: str) -> Path:
    """A store with one image, published: a lab copies a whole store to each of its servers."""
    place = cache / "drill-images" / digest
    store = Store(place)
    if not (place / "published" / f"{name}.json").exists():
        shutil.rmtree(place, ignore_errors=True)
        store.prepare()
        whole = Store(cache / "images").store / digest
        run(["cp", "--archive", "--link", str(whole), str(store.store)])
        store.export(digest)
        publish.publish(store, name, digest)
    return place


@contextmanager
def block_sums(root: Path) -> Iterator[Callable[[int], str]]:
    """The sha256 (hex) of each 4096-byte block of a good image, computed when asked for."""
    handle = os.open(root, os.O_RDONLY)
    try:
        yield lambda block: hashlib.sha256(os.pread(handle, 4096, block * 4096)).hexdigest()
    finally:
        os.close(handle)
