"""The helper behind a real kernel's /dev/nbd0, in a QEMU station with Debian's cloud kernel."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

import pytest

from _rootguest import Guest
from _rootrig import BLOCK, Image, Rig, make_image, now

pytestmark = [pytest.mark.root, pytest.mark.slow]

# the data process is the one of the two whose parent is not init
KILL_DATA_PROCESS = (
    "for p in $(/bin/busybox pidof rootd @bin/rootd); do "
    "[ \"$(/bin/busybox awk '/^PPid/{print $2}' /proc/$p/status)\" != 1 ] "
    "&& /bin/busybox kill -9 $p; done"
)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """128 MiB, so that the probe finds new blocks for minutes."""
    return make_image(tmp_path_factory.mktemp("disk") / "root.img", 32768)


@pytest.fixture
def rig(tmp_path: Path, disk: Image) -> Rig:
    """Two servers that have the disk and run."""
    rig = Rig(tmp_path, 2)
    for server in rig.servers:
        server.give(disk)
        server.start()
    return rig


def check_bytes(guest: Guest, disk: Image) -> None:
    """Every read of the probe was right, and none failed."""
    data = disk.path.read_bytes()
    for read in guest.reads:
        assert read.err == 0
        at = read.block * BLOCK
        assert read.sum == hashlib.sha256(data[at : at + BLOCK]).hexdigest()


def test_data_process_killed(rig: Rig, disk: Image) -> None:
    """Nine times, at work: the kernel does not notice."""
    extra = f"( for i in 1 2 3 4 5 6 7 8 9; do /bin/busybox sleep 3; {KILL_DATA_PROCESS}; done ) &"
    with rig, Guest(rig, disk, extra=extra, rate=100) as guest:
        guest.wait_reading(50)
        began = now()
        time.sleep(30)
        assert guest.longest(began) <= 1
        guest.wait_reading(50)
        check_bytes(guest, disk)
        console = guest.console.read_text(errors="replace")
        assert console.count("ets-rootd: the data process died of signal 9") >= 5
        assert "nbd0: Receive" not in console


def test_new_socket(rig: Rig, disk: Image) -> None:
    """Where the stream is lost the device gets another; reads under way take the kernel's 30 s."""
    extra = f"( /bin/busybox sleep 5; {KILL_DATA_PROCESS} ) &"
    with rig, Guest(rig, disk, options="--new-socket", extra=extra, rate=100) as guest:
        guest.wait_reading(50)
        time.sleep(10)
        guest.wait_reading(200, seconds=60)
        time.sleep(30)
        assert guest.longest(0) <= 35
        check_bytes(guest, disk)
        assert "starting another" in guest.console.read_text(errors="replace")


def test_shape_of_the_processes(rig: Rig, disk: Image) -> None:
    """What lets it survive the switch of roots, the shutdown and a full memory."""
    extra = (
        "for p in $(/bin/busybox pidof rootd @bin/rootd); do "
        "/bin/busybox tr '\\0' ' ' < /proc/$p/cmdline; "
        "/bin/busybox grep -E 'VmLck|VmRSS|SigIgn' /proc/$p/status; "
        "echo oom $(/bin/busybox cat /proc/$p/oom_score_adj); done > /dev/ttyS0; "
        "/bin/busybox kill -TERM $(/bin/busybox pidof rootd @bin/rootd)"
    )
    with rig, Guest(rig, disk, extra=extra) as guest:
        guest.wait_reading(100)
        console = guest.console.read_text(errors="replace")
        assert console.count("@bin/rootd --device 0") == 2
        assert console.count("oom -1000") == 2
        locked = [int(kib) for kib in re.findall(r"VmLck:\s+(\d+) kB", console)]
        resident = [int(kib) for kib in re.findall(r"VmRSS:\s+(\d+) kB", console)]
        assert len(locked) == 2
        assert all(kib > 0 for kib in locked)
        assert all(kib < 16 << 10 for kib in resident), resident
        check_bytes(guest, disk)
