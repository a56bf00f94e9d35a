"""Builds an image from its recipe: Debian tree → station's parts → initrd → squashfs → hash tree
→ manifest → store. Built twice from the same inputs it is the same bit for bit.

``ensure`` is for whoever just needs the image: it builds only what the store lacks.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ets.errors import CommandFailed, EtsError, ImageError
from ets.image import verity
from ets.image.furnish import furnish, make_initrd
from ets.image.manifest import INITRD, KERNEL, PACKAGES, ROOT, Entry, Manifest
from ets.image.progress import Event, Events, silent
from ets.image.publish import published
from ets.image.recipe import Recipe, load
from ets.image.server import server_excludes, server_packages
from ets.image.store import MANIFEST, Store
from ets.image.strip import secrets_in, strip
from ets.image.tree import BaseTree, base_tree, newest_packaged
from ets.image.workbench import Workbench, workbench
from ets.site.model import Site

#: never in an image: the kernel and the initrd travel beside it, the rest is made at run time
_EXCLUDES = ("boot/*", "dev/*", "proc/*", "run/*", "sys/*", "tmp/*", "root/.ets-script")

#: images of one name that a cache keeps: other sites may use the same name for another recipe
_CACHED = 4


def cache_directory() -> Path:
    """Where Debian trees and the lab's images lie: ``$ETS_CACHE`` or /var/cache/ets."""
    return Path(os.environ.get("ETS_CACHE", "/var/cache/ets"))


def ensure(
    site: Site,
    name: str,
    cache: Path | None = None,
    *,
    base: Path = Path("/etc/ets"),
    events: Events = silent,
) -> str:
    """The digest of the image ``name`` of ``site`` in the store ``<cache>/images``; built when
    no image there was made from the same recipe.

    ``base`` is the site file's folder. Raises as ``load`` and ``build``.
    """
    cache = cache or cache_directory()
    store = Store(cache / "images")
    recipe = load(site, name, base)
    wanted = recipe.digest
    for digest in store.digests():
        if store.manifest(digest).recipe == wanted:
            return digest
    digest = build(recipe, store, cache, events=events)
    _tidy(store, name)
    return digest


def _tidy(store: Store, name: str) -> None:
    """Keep only the newest images of ``name`` in a cache; published ones stay in any case."""
    kept = {digest for p in published(store) for digest in (p.digest, *p.previous)}
    same = [d for d in store.digests() if store.manifest(d).name == name and d not in kept]
    same.sort(key=lambda digest: store.path(digest, MANIFEST).stat().st_mtime)
    for digest in same[:-_CACHED]:
        with store.locked():
            store.remove(digest)


def build(
    recipe: Recipe,
    store: Store,
    cache: Path | None = None,
    *,
    events: Events = silent,
    server_root: Path = Path("/"),
) -> str:
    """Build ``recipe`` and put it into ``store``; returns its digest. Nothing is published.

    Needs root. ``server_root`` is the tree that ``source = "server"`` means. Raises ImageError;
    what was made so far is removed, a store never holds half an image.
    """
    cache = cache or cache_directory()
    what = f"image {recipe.image.name}"
    try:
        with store.incoming(f"build-{recipe.image.name}") as out:
            manifest = _build_into(out, recipe, cache, what, events, server_root)
            (out / "manifest.json").write_bytes(manifest.encode())
            events(Event(what, "putting it into the store"))
            store.admit(out, manifest.digest, trusted=True)
    except (OSError, CommandFailed) as error:
        raise _explain(error, what) from error
    events(Event(what, f"done: {manifest.digest[:12]}", 1.0))
    return manifest.digest


def _build_into(
    out: Path, recipe: Recipe, cache: Path, what: str, events: Events, server_root: Path
) -> Manifest:
    base = (
        _server_tree(server_root)
        if recipe.image.source == "server"
        else base_tree(recipe, cache, events)
    )
    with workbench(cache / "image-work", f"build-{recipe.image.name}") as bench:
        tree = bench.overlay(base.tree)
        seen = bench.inside(tree)
        events(Event(what, "installing the station's parts"))
        strip(seen)
        furnish(bench, tree, recipe, base.epoch)
        events(Event(what, "making the initrd"))
        release, initrd = make_initrd(bench, tree, recipe, base.epoch)
        shutil.copyfile(initrd, out / INITRD)
        shutil.copyfile(seen / "boot" / f"vmlinuz-{release}", out / KERNEL)
        (out / PACKAGES).write_text(base.packages)
        strip(seen)
        if secrets := secrets_in(seen):
            raise ImageError(
                f"{what} would hold what looks like private keys: {', '.join(secrets[:5])}",
                hint="an image can be read by anyone on the stations' network: leave them out",
            )
        excludes = server_excludes() if recipe.image.source == "server" else ()
        _pack(bench, tree, out / ROOT, recipe, base, excludes, what, events)
    events(Event(what, "computing the hash tree", 0.0))
    blocks, roothash = verity.append_tree(
        out / ROOT, lambda part: events(Event(what, "computing the hash tree", part))
    )
    return Manifest(
        name=recipe.image.name,
        roothash=roothash,
        blocks=blocks,
        size=(out / ROOT).stat().st_size,
        kernel=release,
        seal=recipe.image.seal,
        files=entries(out, (ROOT, KERNEL, INITRD, PACKAGES)),
        recipe=recipe.digest,
    )


def entries(directory: Path, names: tuple[str, ...]) -> Mapping[str, Entry]:
    """Digest and size of the files ``names`` in ``directory``."""
    found = {}
    for name in names:
        with (directory / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[name] = Entry(digest, (directory / name).stat().st_size)
    return found


def _server_tree(root: Path) -> BaseTree:
    return BaseTree(root, server_packages(root), newest_packaged(root))


def _pack(
    bench: Workbench,
    tree: Path,
    target: Path,
    recipe: Recipe,
    base: BaseTree,
    excludes: tuple[str, ...],
    what: str,
    events: Events,
) -> None:
    """Make the squashfs: entries in sorted order, no time stamp newer than the packages'."""
    events(Event(what, "packing"))
    excluded = bench.directory / "excludes"
    excluded.write_text("".join(f"{line}\n" for line in (*_EXCLUDES, *excludes)))

    bench.run(
        ["mksquashfs", str(tree), str(target), "-noappend", "-no-progress", "-quiet", "-no-exports",
         "-comp", "zstd", "-Xcompression-level", str(recipe.image.compression),
         "-wildcards", "-ef", str(excluded)],
        deadline=3600,
        env={"SOURCE_DATE_EPOCH": str(base.epoch)},
    )  # fmt: skip


def _explain(error: OSError | CommandFailed, what: str) -> EtsError:
    # Programs that we start meet the full disk too, and only say so in words.
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    if full or os.strerror(errno.ENOSPC) in str(error):
        return ImageError(
            f"the disk is full: {what} was not built, and what was made so far is removed",
            hint="make room ('ets image prune' removes images that nobody uses) and build again",
        )
    return ImageError(f"{what} was not built: {error}")
