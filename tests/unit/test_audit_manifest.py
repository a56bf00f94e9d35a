"""The list of what must be equal on all servers: it finds every difference, and no other."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ets.audit import manifest
from ets.errors import HostError
from ets.host.run import run


def lay_out(root: Path) -> Path:
    (root / "etc/cups").mkdir(parents=True)
    (root / "etc/app").mkdir()
    (root / "usr/bin").mkdir(parents=True)
    (root / "etc/app/conf").write_text("a = 1\n")
    (root / "etc/hostname").write_text("alpha\n")
    (root / "usr/bin/tool").write_bytes(bytes(3 << 20))
    (root / "etc/link").symlink_to("app/conf")
    (root / "etc/cups/printers.conf").write_text(
        "# Printer configuration file\n# Written by cupsd on 2026-01-01\n<Printer a>\n"
        "State Idle\nStateTime 1700000000\nDeviceURI ipp://x\n</Printer>\n"
    )
    os.mkfifo(root / "etc/app/pipe")
    with open(os.fsencode(root) + b"/etc/app/odd\n\xff", "wb") as file:  # noqa: PTH123
        file.write(b"x")
    return root


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return lay_out(tmp_path / "one"), lay_out(tmp_path / "two")


def told(two: tuple[Path, Path]) -> tuple[str, ...]:
    mine, theirs = (manifest.take(root) for root in two)
    # over the wire and back
    return manifest.compare(mine, manifest.load(manifest.dump(theirs)), peer="alpha")


def test_equal_trees_are_equal(two: tuple[Path, Path]) -> None:
    assert told(two) == ()
    assert "/etc/app/odd\n\udcff" in manifest.take(two[0])


ATTRIBUTE = 'import os; os.setxattr("usr/bin/tool", "trusted.x", b"1")'

#: a change of the tree, as a shell command in it, and what is said of it
CHANGES = {
    "echo a = 2 >etc/app/conf": "/etc/app/conf has another content than on alpha",
    "printf x >>usr/bin/tool": "/usr/bin/tool has another content than on alpha",
    "chmod 4755 usr/bin/tool": "/usr/bin/tool has mode 4755, on alpha 0644",
    "chown 7:8 etc/app": "/etc/app belongs to 7:8, on alpha to 0:0",
    f"python3 -c '{ATTRIBUTE}'": "/usr/bin/tool has other ACLs, capabilities or attributes than on"
    " alpha",
    "ln -sfn x etc/link": "/etc/link points to x, on alpha to app/conf",
    "rm etc/app/pipe; mkdir etc/app/pipe": "/etc/app/pipe is a directory, on alpha a pipe",
    "rm etc/app/conf": "/etc/app/conf is on alpha only",
    "mkdir etc/new; touch etc/new/a": "/etc/new is not on alpha",
    "rm etc/app/odd*": "/etc/app/odd\\n\\xff is on alpha only",
    "echo '<Printer b>' >etc/cups/printers.conf": "/etc/cups/printers.conf has another content"
    " than on alpha",
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_difference_is_told_once_in_words(two: tuple[Path, Path], change: str) -> None:
    run(["sh", "-c", f"umask 022; {change}"], cwd=str(two[0]))
    assert told(two) == (CHANGES[change],)


def test_what_may_differ_is_passed_over(two: tuple[Path, Path]) -> None:
    (two[0] / "etc/hostname").write_text("beta\n")
    (two[0] / "etc/ssh").mkdir()
    (two[1] / "etc/ssh").mkdir()
    (two[0] / "etc/ssh/ssh_host_rsa_key").touch()
    printers = two[0] / "etc/cups/printers.conf"
    printers.write_text(printers.read_text().replace("Idle", "Stopped").replace("17", "18"))
    os.utime(two[0] / "usr/bin/tool", (1, 1))
    assert told(two) == ()


def test_the_sites_own_excludes(two: tuple[Path, Path]) -> None:
    (two[0] / "etc/app/conf").write_text("other\n")
    mine, theirs = (manifest.take(root, exclude=["/etc/app"]) for root in two)
    assert mine == theirs
    assert "/etc/app" not in mine


def test_many_differences_are_counted(two: tuple[Path, Path]) -> None:
    for number in range(60):
        (two[0] / f"etc/app/{number:03}").touch()
    said = told(two)
    assert len(said) == manifest.SHOWN + 1
    assert said[-1] == "and 20 more"


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["ets: error"],
        ['["ets manifest 9",0]'],
        ['["ets manifest 1",2]', '["/a","file",1,0,0,"",""]'],
        ['["ets manifest 1",1]', '["/a","file"]'],
        ["[" * 100_000],
    ],
)
def test_what_is_no_whole_list_is_refused(lines: list[str]) -> None:
    with pytest.raises(HostError, match="no list of its files"):
        manifest.load(lines)


def test_a_cut_list_is_refused(two: tuple[Path, Path]) -> None:
    lines = list(manifest.dump(manifest.take(two[0])))
    assert json.loads(lines[0])[1] == len(lines) - 1
    with pytest.raises(HostError):
        manifest.load(lines[:-1])
