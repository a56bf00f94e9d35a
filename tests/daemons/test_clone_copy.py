"""Copies are equal by other people's tools, whatever is in them and whatever happens on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.daemons.clone_trees import differences, make, pulling, thaw, wrap

from ets.clone.marker import MARKER
from ets.clone.pull import Progress, facts, pull
from ets.errors import CloneError

pytestmark = [pytest.mark.root, pytest.mark.daemons]

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "source"
    make(root)
    yield root
    thaw(root, tmp_path)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    root = tmp_path / "into"
    root.mkdir()
    return root


@pytest.mark.parametrize("compress", [False, True])
def test_everything_is_there(source: Path, into: Path, compress: bool) -> None:
    seen: list[Progress] = []
    copied = pull(wrap, into, source=str(source), compress=compress, events=seen.append)
    assert differences(source, into) == ""
    assert not (into / "srv/socket").exists()
    assert copied.method == "all"
    assert copied.files > 300
    assert (into / "srv/sparse").stat().st_blocks * 512 < 1 << 20
    assert all(event.done <= event.total for event in seen)


def test_a_copy_again_brings_what_changed_and_nothing_else(source: Path, into: Path) -> None:
    pull(wrap, into, source=str(source))
    thaw(source)
    home = source / "home/anna"
    keep = (home / "file7").stat()
    (home / "file7").write_bytes(bytes(keep.st_size))  # same length, same time but nanoseconds
    os.utime(home / "file7", ns=(1, keep.st_mtime_ns + 1))
    (home / "file8").rename(home / "moved")
    (home / "file9").unlink()
    (home / "file9").mkdir()
    (home / "file10").chmod(0o700)
    os.removexattr(source / "srv/deep", "user.note")
    os.removexattr(source / "srv/deep", "system.posix_acl_default")
    os.removexattr(source / "srv/acl", "system.posix_acl_access")
    os.setxattr(source / "srv/capable", "user.new", b"1")
    (source / "srv/link1").unlink()
    (source / "srv/link1").hardlink_to(home / "file11")
    (source / "srv/zero").unlink()
    os.mknod(source / "srv/zero", 0o020666, os.makedev(8, 301))
    # and what a person did to the copy
    thaw(into)
    (into / "srv/more").mkdir()
    (into / "srv/more/file").write_text("not of the source")
    (into / "home/anna/file20").unlink()
    (into / "home/anna/file20").symlink_to("/etc")
    (into / "opt").rmdir()
    (into / "opt").symlink_to(source)
    copied = pull(wrap, into, source=str(source))
    assert differences(source, into) == ""
    assert copied.method == "missing"
    assert copied.files < 40


def test_nothing_is_changed_outside(source: Path, into: Path, tmp_path: Path) -> None:
    """A directory of the source is a symbolic link to elsewhere in an older copy."""
    outside = tmp_path / "outside"
    (outside / "deeper").mkdir(parents=True)
    (outside / "deeper/precious").write_text("precious")
    (into / "srv").mkdir()
    (into / "srv/deep").symlink_to(outside)
    (into / "file").write_text("no blank directory")
    pull(wrap, into, source=str(source))
    assert differences(source, into) == ""
    assert [path.name for path in outside.rglob("*")] == ["deeper", "precious"]


def test_what_other_mounts_hide_is_copied_and_what_they_show_is_not(
    source: Path, into: Path
) -> None:
    (source / "mnt").mkdir()
    (source / "mnt/hidden").write_text("of the disk")
    script = 'mount -t tmpfs tmpfs "$0" && touch "$0/shown" && exec "$@"'

    def mounted(argv: Sequence[str]) -> list[str]:
        start = ["unshare", "--mount", "sh", "-c", script, str(source / "mnt")]
        return [*start, *wrap(argv)]

    pull(mounted, into, source=str(source))
    assert (into / "mnt/hidden").read_text() == "of the disk"
    assert not (into / "mnt/shown").exists()


def test_excludes_of_the_site_and_of_the_table(source: Path, into: Path) -> None:
    (source / "etc/ets").mkdir(parents=True)
    site = '[clone]\nexclude = ["/srv/deep", "/home/*/file1?"]\n'
    (source / "etc/ets/site.toml").write_text(site)
    (source / "var/log").mkdir(parents=True)
    (source / "var/log/syslog").write_text("what one machine did")
    (into / "srv/deep").mkdir(parents=True)
    (into / "srv/deep/own").write_text("of the target: not touched")
    (into / "file").write_text("no blank directory")
    pull(wrap, into, source=str(source))
    assert sorted(path.name for path in (into / "srv/deep").iterdir()) == ["own"]
    names = {path.name for path in (into / "home/anna").iterdir()}
    assert "file1" in names
    assert "file12" not in names
    assert "file120" in names
    assert not (into / "var/log/syslog").exists()


def test_facts(source: Path) -> None:
    found = facts(lambda argv: [*wrap(argv), f"--source={source}"])
    assert found.files > 300
    assert 1 << 20 < found.needed < 1 << 30


def test_killed_at_any_moment_it_continues_and_ends_equal(source: Path, into: Path) -> None:
    for number in range(60):
        (source / f"opt/large{number}").write_bytes(random.Random(number).randbytes(1 << 20))
    chance = random.Random(8)
    died = 0
    for _ in range(20):
        with subprocess.Popen(
            pulling(source, into), cwd=TOP, stdout=subprocess.PIPE, start_new_session=True
        ) as process:
            time.sleep(chance.uniform(0.1, 1.6))
            died += process.poll() is None
            process.kill()
    assert died > 5
    assert pull(wrap, into, source=str(source)).method == "missing"
    assert differences(source, into) == ""
    assert not (into / MARKER).exists()


def test_the_primary_dies_in_the_middle(source: Path, into: Path) -> None:
    started: list[int] = []

    def remembering(argv: Sequence[str]) -> list[str]:
        return ["sh", "-c", f'echo $$ >{into.parent}/pid; exec "$@"', "sh", *wrap(argv)]

    def kill(event: Progress) -> None:
        if not started:
            started.append(int((into.parent / "pid").read_text()))
            os.kill(started[0], signal.SIGKILL)

    for number in range(40):
        (source / f"opt/large{number}").write_bytes(random.Random(number).randbytes(8 << 20))
    with pytest.raises(CloneError, match="broke in the middle"):
        pull(remembering, into, source=str(source), compress=False, events=kill)
    assert started
    assert (into / MARKER).exists()
    pull(wrap, into, source=str(source))
    assert differences(source, into) == ""


def test_a_primary_that_says_nothing_is_given_up(
    into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ets.clone import pull as pulled
    from ets.clone.stream import Receiver

    monkeypatch.setattr(pulled, "Receiver", lambda fd: Receiver(fd, stall=0.5))
    with pytest.raises(CloneError, match=r"nothing for 0\.5 s"):
        pull(lambda argv: ["sleep", "60"], into)


def test_a_primary_that_cannot_be_reached_says_why(into: Path) -> None:
    with pytest.raises(CloneError, match="no route to it"):
        pull(lambda argv: ["sh", "-c", "echo there is no route to it >&2; exit 255"], into)


def test_a_full_disk_is_said_and_what_came_counts(source: Path, into: Path) -> None:
    for number in range(40):
        (source / f"opt/large{number}").write_bytes(random.Random(number).randbytes(1 << 20))
    script = 'mount -t tmpfs -o size=20m tmpfs "$0" && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, str(into), *pulling(source, into)]
    done = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "the disk of the new server is full" in done.stderr


def test_files_that_change_and_vanish_while_they_are_read(source: Path, into: Path) -> None:
    over = threading.Event()

    def disturb() -> None:
        number = 0
        while not over.is_set():
            number += 1
            path = source / f"opt/busy{number % 200}"
            with path.open("ab") as file:
                file.write(os.urandom(20_000))
            if number % 3 == 0:
                path.unlink()
            if number % 7 == 0:
                path.mkdir(exist_ok=True) if not path.exists() else None
            if number % 200 == 0:
                for old in (source / "opt").iterdir():
                    old.rmdir() if old.is_dir() else old.unlink()

    def safely() -> None:
        while not over.is_set():
            try:
                disturb()
            except OSError:
                continue

    thread = threading.Thread(target=safely)
    thread.start()
    try:
        for _ in range(3):
            pull(wrap, into, source=str(source))
    finally:
        over.set()
        thread.join()
    pull(wrap, into, source=str(source))
    assert differences(source, into) == ""


def test_after_a_power_cut_files_that_had_not_reached_the_disk_come_again(
    source: Path, into: Path
) -> None:
    pull(wrap, into, source=str(source))
    thaw(into)
    lost, safe = into / "home/anna/file200", into / "home/anna/file100"
    about, now = lost.stat(), time.time_ns()
    time.sleep(0.05)
    lost.write_bytes(bytes(about.st_size))  # what a power cut leaves: all as it should be but zeros
    os.utime(lost, ns=(about.st_atime_ns, about.st_mtime_ns))
    marker = {"boot": "another run of the machine", "safe": now}
    (into / MARKER).write_text(json.dumps(marker))
    copied = pull(wrap, into, source=str(source))
    assert copied.files < 20
    assert differences(source, into) == ""
    assert safe.read_bytes() == (source / "home/anna/file100").read_bytes()


def test_nothing_is_left_on_the_primary(source: Path, into: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    pull(wrap, into, source=str(source))
    spool = Path("/var/lib/ets/clone")
    assert not spool.exists() or list(spool.iterdir()) == []
    assert Path("/proc/self/mountinfo").read_text() == before


BTRFS = """
set -e
disk=$0/disk root=$1 ets="$2 -m ets"
shift 2
truncate -s 400M "$disk"
mkfs.btrfs -q "$disk" >/dev/null
mount -o loop "$disk" "$root"
for name in @ @home; do btrfs subvolume create "$root/$name" >/dev/null; done
umount "$root"
mount -o loop,subvol=@ "$disk" "$root"
mkdir "$root/home"
mount -o subvol=@home "$(findmnt -nvo SOURCE "$root")" "$root/home"
echo one >"$root/one"; ln "$root/one" "$root/three"; echo two >"$root/home/two"
btrfs subvolume snapshot -r "$root" "$root/.ets-clone-snapshot" >/dev/null  # a killed copy's
$ets clone facts --source "$root" | grep -o '"method": "[a-z]*"'
"$@"
echo more >>"$root/home/two"; rm "$root/three"
"$@"
btrfs subvolume list "$root" | grep snapshot || echo clean
btrfs subvolume create "$root/inner" >/dev/null
touch "$root/inner/file"
$ets clone facts --source "$root" | grep -o '"method": "[a-z]*"'
"$@"
"""


def test_snapshots_where_the_file_systems_have_them(tmp_path: Path, into: Path) -> None:
    """Not where a snapshot would lose something: a subvolume within another."""
    root = tmp_path / "root"
    root.mkdir()
    argv = ["unshare", "--mount", "sh", "-c", BTRFS, str(tmp_path), str(root), sys.executable]
    done = subprocess.run(
        [*argv, *pulling(root, into)], cwd=TOP, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if "[debug" not in line]
    btrfs, passes = '"method": "btrfs"', '"method": "passes"'
    assert said == [btrfs, "all", "missing", "clean", passes, "missing"]
    assert (into / "home/two").read_text() == "two\nmore\n"
    assert sorted(path.name for path in into.iterdir()) == ["home", "inner", "one"]
    assert (into / "inner/file").exists()
