"""What a server must have installed before it can be copied to some layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from ets.clone.bootloader import missing, require
from ets.clone.layout import Layout
from ets.errors import CloneError


def _has(root: Path, *programs: str) -> Path:
    for program in programs:
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        (root / program).touch()
    return root


def test_a_plain_disk_needs_nothing_of_the_server(tmp_path: Path) -> None:
    assert missing(Layout(), tmp_path) == ()


@pytest.mark.parametrize("usr", ["usr/", ""])
def test_what_is_installed_is_found_with_and_without_merged_usr(tmp_path: Path, usr: str) -> None:
    layout = Layout("lvm", mirror=True)
    assert missing(layout, tmp_path) == ("lvm2", "mdadm")
    assert missing(layout, _has(tmp_path, f"{usr}sbin/mdadm")) == ("lvm2",)
    assert missing(layout, _has(tmp_path, f"{usr}sbin/lvm")) == ()
    assert missing(Layout("btrfs"), _has(tmp_path, f"{usr}bin/btrfs")) == ()


def test_what_is_missing_is_said_with_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(CloneError) as caught:
        require(Layout("btrfs", mirror=True), tmp_path)
    assert "a server on btrfs and a mirror needs btrfs-progs, mdadm" in caught.value.message
    assert caught.value.hint.startswith("on that server: apt install btrfs-progs mdadm")
