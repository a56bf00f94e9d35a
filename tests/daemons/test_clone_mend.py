"""What changed on the primary since the copy is brought over, by the real programs on both sides.

The primary's /etc is a directory of the test's, seen as /etc by its side alone.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ets import paths
from ets.audit import manifest
from ets.clone import mend
from ets.errors import CloneError
from ets.host.run import run

pytestmark = pytest.mark.root

_SEEN = 'mount --bind "$0" /etc && exec "$@"'
_CHANGES = """
set -e
echo changed >motd
chmod 0700 kept
chown 12:34 kept/file
mkdir new; ln -s ../motd new/link; mkfifo new/pipe
touch "$(printf 'odd\\nname\\377')"
rm -r gone
rm turned; mkdir turned; echo x >turned/x
rm -r folder; echo x >folder
echo other >hostname
"""


class Pair:
    def __init__(self, place: Path) -> None:
        self.primary, self.mine = place / "primary", place / "mine"
        etc = self.primary / "etc"
        for name in ("kept", "gone/deep", "folder"):
            (etc / name).mkdir(parents=True)
        for name in ("motd", "turned", "hostname", "kept/file", "gone/deep/file", "folder/file"):
            (etc / name).write_text(f"{name}\n")
        shutil.copytree(self.primary, self.mine, symlinks=True)

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """``argv`` where the primary's /etc is /etc."""
        ets = [sys.executable, "-m", "ets"] if argv[0] == "ets" else [argv[0]]
        inside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SEEN]
        return [*inside, str(self.primary / "etc"), *ets, *argv[1:]]

    def lists(self) -> tuple[manifest.Manifest, manifest.Manifest]:
        return manifest.take(self.mine), manifest.take(self.primary)

    def mend(self) -> int:
        return mend.mend(self.wrap, *self.lists(), root=self.mine)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_equal_servers_need_nothing(pair: Pair) -> None:
    assert pair.mend() == 0


def test_every_kind_of_change_is_brought_over(pair: Pair) -> None:
    run(["sh", "-c", _CHANGES], cwd=str(pair.primary / "etc"))
    os.setxattr(pair.primary / "etc/kept", "trusted.note", b"x")
    assert pair.mend() > 8
    mine, theirs = pair.lists()
    assert manifest.compare(mine, theirs) == ()
    assert (pair.mine / "etc/hostname").read_text() == "hostname\n"
    assert (pair.mine / "etc/motd").stat().st_mtime == (pair.primary / "etc/motd").stat().st_mtime
    assert not (pair.mine / str(mend.STAGE)[1:]).exists()


def test_after_some_rounds_a_person_must_look(pair: Pair) -> None:
    for number in range(mend.ROUNDS):
        (pair.primary / "etc/motd").write_text(f"{number}\n")
        assert pair.mend() == 1
    (pair.primary / "etc/motd").write_text("again\n")
    assert pair.mend() == 0


def test_a_copy_that_went_wrong_is_not_mended(pair: Pair) -> None:
    for number in range(mend.MOST + 1):
        (pair.primary / f"etc/kept/{number}").touch()
    assert pair.mend() == 0


def test_a_primary_that_breaks_off_changes_nothing(pair: Pair) -> None:
    run(["sh", "-c", _CHANGES], cwd=str(pair.primary / "etc"))
    before = manifest.take(pair.mine)
    with pytest.raises(CloneError, match="could not be fetched: no route"):
        mend.mend(
            lambda _argv: ["sh", "-c", "echo no route >&2; exit 255"],
            *pair.lists(),
            root=pair.mine,
        )
    assert manifest.take(pair.mine) == before


def test_only_what_must_be_equal_is_given_out(pair: Pair) -> None:
    key = pair.primary / str(paths.SERVER_KEY).lstrip("/")
    key.parent.mkdir(parents=True)
    key.write_text("secret")
    asked = [str(paths.SERVER_KEY), "/etc/../root/.profile", "/root/.profile", "/etc/shadow/..",
             "relative", "/etc/hostname", "/etc/motd"]  # fmt: skip
    given = run(pair.wrap(["ets", "clone", "give"]), stdin="\0".join(asked).encode())
    listed = run(["tar", "--list", "--file=-"], stdin=given.stdout).text.split()
    assert listed == ["/etc/motd"]
