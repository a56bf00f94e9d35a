"""Small images for tests of the store: complete and valid, but they boot nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ets.image import verity
from ets.image.manifest import Entry, Manifest
from ets.image.store import MANIFEST, Store


def make_image(store: Store, content: bytes = b"data", name: str = "console") -> str:
    """Put an image whose root begins with ``content`` into ``store``; returns its digest."""
    with store.incoming("test") as folder:
        (folder / "root.img").write_bytes(content + bytes(3 * 4096))
        blocks, roothash = verity.append_tree(folder / "root.img")
        (folder / "vmlinuz").write_bytes(b"kernel")
        (folder / "initrd.img").write_bytes(b"initrd " + content)
        names = ("root.img", "vmlinuz", "initrd.img")
        files = {
            name: Entry(
                hashlib.sha256((folder / name).read_bytes()).hexdigest(),
                (folder / name).stat().st_size,
            )
            for name in names
        }
        manifest = Manifest(
            name, roothash, blocks, files["root.img"].size, "6.1", False, files, "ef" * 32
        )
        (folder / MANIFEST).write_bytes(manifest.encode())
        store.admit(folder, manifest.digest)
    return manifest.digest


def damage(path: Path, at: int = 100) -> None:
    """Flip one bit of a file that is read-only by agreement."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
