"""The probe: every block once, at its time, with its digest; a stalled read delays no other."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from _rootrig import BLOCK, Image

pytestmark = pytest.mark.root


def probe(programs: Path, image: Image, out: Path, *options: str) -> list[dict[str, object]]:
    """Runs the probe on the image file to its end."""
    subprocess.run(
        [programs / "ets-probe", "--device", image.path, "--out", out, *options],
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("threads", ["1", "8"])
def test_reads_every_block_once(threads: str, programs: Path, image: Image, tmp_path: Path) -> None:
    lines = probe(
        programs, image, tmp_path / "out", "--rate", "100000", "--seed", "7", "--threads", threads
    )
    data = image.path.read_bytes()
    assert sorted(line["block"] for line in lines) == list(range(len(data) // BLOCK))  # type: ignore[type-var]
    for line in lines:
        at = int(str(line["block"])) * BLOCK
        assert line["sum"] == hashlib.sha256(data[at : at + BLOCK]).hexdigest()
        assert line["err"] == 0


def test_order_is_the_seeds_and_random(programs: Path, image: Image, tmp_path: Path) -> None:
    def order(name: str, seed: str) -> list[object]:
        lines = probe(
            programs, image, tmp_path / name, "--rate", "100000", "--seed", seed, "--threads", "1",
            "--count", "200",
        )  # fmt: skip
        return [line["block"] for line in lines]

    assert order("a", "1") == order("b", "1")
    assert order("c", "2") != order("d", "1")
    assert order("e", "3") != sorted(order("f", "3"), key=str)


def test_rate(programs: Path, image: Image, tmp_path: Path) -> None:
    lines = probe(programs, image, tmp_path / "out", "--rate", "50", "--count", "51")
    times = sorted(float(str(line["t"])) for line in lines)
    assert 0.95 <= times[-1] - times[0] <= 1.5


def test_wrong_command_line(programs: Path) -> None:
    done = subprocess.run([programs / "ets-probe", "--rate", "0"], capture_output=True, check=False)
    assert done.returncode == 2
