"""What the helper's tests share: the programs with the sanitizers in them, one image, a rig."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from tests.rootd.reader import Station

from _rootrig import Image, Rig, build, make_image

Start = Callable[..., AbstractContextManager[Station]]


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of the programs, built with the address and undefined-behaviour sanitizers."""
    return build(check=True)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """5000 blocks (three levels of hash tree; not a multiple of anything) of random data."""
    return make_image(tmp_path_factory.mktemp("image") / "root.img", 5000)


@pytest.fixture
def pair(tmp_path: Path, image: Image) -> Iterator[Rig]:
    """Two servers that have the image and run."""
    with Rig(tmp_path, 2) as rig:
        for server in rig.servers:
            server.give(image)
            server.start()
        yield rig


@pytest.fixture
def start(programs: Path, image: Image, tmp_path: Path) -> Callable[..., Station]:
    """Starts the helper on a rig: ``start(rig, "--with-tree")``."""

    def begin(rig: Rig, *options: str, of: Image = image) -> Station:
        return Station(programs, of, rig.addresses, rig=rig, options=options, folder=tmp_path)

    return begin
