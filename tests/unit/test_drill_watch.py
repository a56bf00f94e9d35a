"""Watching: records are taken as they arrive, cut lines wait for their rest, counters are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ets.lab.drills.watch import ProbeLog, counted


def line(t: float, us: int = 5000) -> bytes:
    record = {"t": t, "wall": 0, "block": 1, "us": us, "sum": "a", "err": 0}
    return json.dumps(record).encode() + b"\n"


def test_a_cut_line_waits_for_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "probe"
    probe = ProbeLog(path)
    probe.look()
    assert probe.reads(0) == ()
    whole = line(1.0) + line(1.1)
    path.write_bytes(whole[:-10])
    probe.look()
    assert probe.count == 1
    path.write_bytes(whole)
    probe.look()
    assert probe.count == 2


def test_reads_are_put_on_the_watchers_clock_and_keep_their_distances(tmp_path: Path) -> None:
    path = tmp_path / "probe"
    path.write_bytes(line(1.0) + b"garbage\n" + line(3.5, us=500_000))
    probe = ProbeLog(path)
    probe.look()
    first, second = probe.reads(0)
    assert second.start - first.start == pytest.approx(2.5)
    assert second.took == 0.5


def test_counters_of_nft_are_bytes_by_pair() -> None:
    listed = {
        "nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {
                "set": {
                    "name": "blocks",
                    "elem": [
                        {
                            "elem": {
                                "val": {"concat": ["10.77.0.11", "10.77.1.5"]},
                                "counter": {"packets": 5, "bytes": 2158},
                            }
                        }
                    ],
                }
            },
        ]
    }
    assert counted(json.dumps(listed).encode()) == {("10.77.0.11", "10.77.1.5"): 2158}
    assert counted(b'{"nftables": [{"set": {"name": "blocks"}}]}') == {}


def test_what_nft_never_says_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        counted(b"")
