"""What a copy that is under way knows about itself, across power cuts."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ets.clone import listing
from ets.errors import EtsError
from ets.host.atomic import write_atomic

#: seconds between two moments up to which everything is known to be on the disk
CHECKPOINT = 30.0
MARKER = ".ets-copying"


class Marker:
    """A file in the target while it is being copied: up to which moment everything written there
    is known to be on the disk, and in which run of the machine."""

    def __init__(self, into: Path) -> None:
        self._path = into / MARKER
        self._into = into
        self._boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._offset = time.time() - time.monotonic()
        self._found = self._read()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep it while the work inside goes on."""
        self._write(self._safe())
        over, lock = threading.Event(), threading.Lock()

        def keep() -> None:
            while not over.wait(CHECKPOINT):
                now = time.time_ns()
                try:
                    listing.settle(self._into)
                except EtsError:  # no more is known to be safe than before
                    continue
                # a clock that was set meanwhile says nothing about files from before
                steady = abs(time.time() - time.monotonic() - self._offset) < 1
                with lock:
                    if steady and not over.is_set():
                        self._write(now)

        threading.Thread(target=keep, daemon=True).start()
        try:
            yield
        finally:
            with lock:  # the disk may take long, and nobody has to wait for it
                over.set()

    def trusted(
        self, there: listing.Listing, digests: Mapping[bytes, bytes]
    ) -> Mapping[bytes, bytes]:
        """``digests`` without those of files that a power cut may have taken the content of."""
        about = self._found
        if about is None or about.get("boot") == self._boot:
            return digests
        safe = int(about.get("safe", 0))
        entries = there.entries
        return {
            path: digest[:1] + bytes(8)
            if digest[:1] == b"f" and listing.parse(entries[path]).ctime >= safe
            else digest
            for path, digest in digests.items()
        }

    def remove(self) -> None:
        """The copy is whole."""
        about = self._into.stat()
        self._path.unlink(missing_ok=True)
        os.utime(self._into, ns=(about.st_atime_ns, about.st_mtime_ns))

    def _safe(self) -> int:
        about = self._found
        return int(about.get("safe", 0)) if about and about.get("boot") == self._boot else 0

    def _read(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self._path.read_bytes()))
        except (OSError, ValueError):
            return None

    def _write(self, safe: int) -> None:
        with contextlib.suppress(EtsError):
            content = json.dumps({"boot": self._boot, "safe": safe}).encode()
            write_atomic(self._path, content, mode=0o600)
