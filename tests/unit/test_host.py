"""Every kind of host keeps the same contract: the local machine, a tree, ssh."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import threading
from pathlib import Path

import pytest

from ets.errors import CommandFailed, HostError
from ets.host import atomic, lock
from ets.host.local import LocalHost
from ets.host.ssh import SshHost
from ets.host.transport import Host

ME = pwd.getpwuid(os.geteuid()).pw_name
MY_GROUP = grp.getgrgid(os.getegid()).gr_name

FAKE_SSH = """#!/bin/sh
# what sshd does: the last argument goes to the account's shell
for last; do :; done
[ -e "$(dirname "$0")/away" ] && { echo "No route to host" >&2; exit 255; }
exec sh -c "$last"
"""


@pytest.fixture(params=["machine", "tree", "ssh"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Host, str, Path]:
    """A host, a folder on it, and the same folder on this machine."""
    folder = tmp_path / "folder"
    folder.mkdir()
    if request.param == "tree":
        return LocalHost(tmp_path), "/folder", folder
    if request.param == "ssh":
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "ssh").write_text(FAKE_SSH)
        (programs / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        return SshHost("root@beta"), str(folder), folder
    return LocalHost(), str(folder), folder


def test_writes_reads_and_removes(place: tuple[Host, str, Path]) -> None:
    host, folder, real = place
    path = f"{folder}/sub dir/file'$x"
    host.write(path, b"one\0two", mode=0o640, owner=ME, group=MY_GROUP)
    file = real / "sub dir/file'$x"
    assert file.read_bytes() == b"one\0two"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o755
    assert host.read(path) == b"one\0two"
    assert host.names(f"{folder}/sub dir") == ("file'$x",)
    host.remove(path)
    host.remove(path)
    assert host.read(path) is None
    host.remove(f"{folder}/sub dir")
    assert host.names(folder) == ()
    host.remove(f"{folder}/never/was")


def test_prepared_is_not_yet_there(place: tuple[Host, str, Path]) -> None:
    host, folder, real = place
    (real / "f").write_bytes(b"old")
    for path in (f"{folder}/f", f"{folder}/new"):
        host.prepare(path, b"next", owner=ME, group=MY_GROUP)
    assert (real / "f").read_bytes() == b"old"
    assert not (real / "new").exists()
    host.commit(f"{folder}/f")
    assert (real / "f").read_bytes() == b"next"
    host.discard(f"{folder}/new")
    host.discard(f"{folder}/new")
    assert sorted(p.name for p in real.iterdir()) == ["f"]
    with pytest.raises(HostError, match="new"):
        host.commit(f"{folder}/new")


def test_looks_at_all_kinds(place: tuple[Host, str, Path]) -> None:
    host, folder, real = place
    (real / "f").write_bytes(b"")
    (real / "f").chmod(0o4711)
    (real / "d").mkdir(mode=0o700)
    (real / "l").symlink_to("f")
    (real / "broken").symlink_to("nowhere")
    os.mkfifo(real / "p")
    names = ("f", "d", "l", "p", "broken", "none", "f/below")
    seen = host.look([f"{folder}/{name}" for name in names])
    assert {path.rpartition("/")[2]: entry.kind for path, entry in seen.items()} == {
        "f": "file", "d": "directory", "l": "link", "p": "other", "broken": "link",
    }  # fmt: skip
    file = seen[f"{folder}/f"]
    assert (file.mode, file.owner, file.group) == (0o4711, ME, MY_GROUP)
    assert file.digest == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    followed = host.look([f"{folder}/l", f"{folder}/broken"], follow=True)
    assert [*followed] == [f"{folder}/l"]
    assert followed[f"{folder}/l"] == file
    assert host.look([]) == {}


def test_makes_directories(place: tuple[Host, str, Path]) -> None:
    host, folder, real = place
    host.make_directory(f"{folder}/a/b", mode=0o2750, owner=ME, group=MY_GROUP)
    assert stat.S_IMODE((real / "a/b").stat().st_mode) == 0o2750
    host.make_directory(f"{folder}/a/b", mode=0o700, owner=ME, group=MY_GROUP)
    assert stat.S_IMODE((real / "a/b").stat().st_mode) == 0o700
    (real / "file").write_bytes(b"")
    (real / "link").symlink_to("a")
    for name in ("file", "link"):
        with pytest.raises(HostError, match=name):
            host.make_directory(f"{folder}/{name}", owner=ME, group=MY_GROUP)
    (real / "a/b/c").write_bytes(b"")
    with pytest.raises(HostError, match="a/b"):
        host.remove(f"{folder}/a/b")


def test_appends_whole_lines(place: tuple[Host, str, Path]) -> None:
    host, folder, real = place
    host.append(f"{folder}/j/log", b"one\n")
    (real / "j/log").write_bytes(b"one\ntw")  # as a crash left it
    host.append(f"{folder}/j/log", b"three\n")
    assert (real / "j/log").read_bytes() == b"one\ntw\nthree\n"


def test_one_holder_at_a_time(place: tuple[Host, str, Path]) -> None:
    host, folder, _real = place
    path = f"{folder}/run/lock"
    with host.hold(path), pytest.raises(HostError, match="another run of ets"), host.hold(path):
        pass
    with host.hold(path):
        pass


def test_unknown_owner_is_named(place: tuple[Host, str, Path]) -> None:
    host, folder, real = place
    with pytest.raises(HostError, match="nosuchuser"):
        host.write(f"{folder}/f", b"", owner="nosuchuser", group=MY_GROUP)
    assert [*real.iterdir()] == []


def test_ssh_away_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ssh").write_text(FAKE_SSH)
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    host = SshHost("root@beta", name="beta")
    assert host.run(["printf", "%s|", "a b", "c'd", "$HOME"]).stdout == b"a b|c'd|$HOME|"
    with pytest.raises(CommandFailed) as failed:
        host.run(["sh", "-c", "echo no >&2; exit 3"])
    assert failed.value.status == 3
    (tmp_path / "away").touch()
    with pytest.raises(HostError, match="cannot reach beta by ssh: No route"):
        host.read("/etc/hostname")


def test_tree_keeps_links_inside(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "usr/lib/ipxe").mkdir(parents=True)
    (tree / "usr/lib/ipxe/real").write_bytes(b"x")
    (tree / "lib").symlink_to("/usr/lib")
    (tree / "usr/lib/ipxe/link").symlink_to("/lib/ipxe/real")
    (tree / "up").symlink_to("../../../../usr/lib/ipxe")
    (tree / "loop").symlink_to("loop")
    host = LocalHost(tree)
    assert host.read("/lib/ipxe/link") == b"x"
    assert host.read("/up/real") == b"x"
    assert host.look(["/lib/ipxe/link"])["/lib/ipxe/link"].kind == "link"
    host.write("/lib/new", b"y", owner=ME, group=MY_GROUP)
    assert (tree / "usr/lib/new").read_bytes() == b"y"
    with pytest.raises(HostError, match="too many symbolic links"):
        host.read("/loop")
    with pytest.raises(HostError, match="not an absolute path"):
        host.read("/../etc/passwd")
    with pytest.raises(HostError, match="only files"):
        host.run(["true"])


def test_tree_uses_its_own_names(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(f"kea:x:{os.geteuid()}:{os.getegid()}::/:/bin/false\n")
    (tmp_path / "etc/group").write_text(f"dhcp:x:{os.getegid()}:\n")
    host = LocalHost(tmp_path)
    host.write("/f", b"", owner="kea", group="dhcp")
    entry = host.look(["/f"])["/f"]
    assert (entry.owner, entry.group) == ("kea", "dhcp")


def test_a_writer_replaces_a_link_not_its_target(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"kept")
    (tmp_path / "link").symlink_to("target")
    atomic.write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"kept"
    assert not (tmp_path / "link").is_symlink()


def test_leftovers_are_taken_over(tmp_path: Path) -> None:
    leftover = tmp_path / ".f.ets-new"
    leftover.write_bytes(b"longer than what comes now")
    atomic.write_atomic(tmp_path / "f", b"now")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"now"
    (tmp_path / "other").write_bytes(b"kept")
    leftover.hardlink_to(tmp_path / "other")
    atomic.write_atomic(tmp_path / "f", b"again")
    assert (tmp_path / "other").read_bytes() == b"kept"


def test_writers_at_once_never_mix(tmp_path: Path) -> None:
    contents = [bytes([65 + n]) * 100_000 for n in range(6)]
    seen: list[bytes] = []

    def write(content: bytes) -> None:
        for _ in range(5):
            atomic.write_atomic(tmp_path / "f", content)
            seen.append((tmp_path / "f").read_bytes())

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 30
    assert set(seen) <= set(contents)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        with lock.hold(tmp_path / "lock"):
            os.write(go, b".")
            os.kill(os.getpid(), 9)
    os.read(ready, 1)
    os.waitpid(child, 0)
    with lock.hold(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text().strip() == str(os.getpid())
