"""Samba's own programs in a renamed tree: the SID, and with it every user's, stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from ets.clone import samba
from ets.clone.trees import Tree
from ets.host.run import run
from ets.lab.tree import server_tree

pytestmark = [pytest.mark.root, pytest.mark.daemons, pytest.mark.slow]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A server called alpha with a SID of its own and a user anna in passdb.tdb."""
    root = tmp_path / "root"
    run(["cp", "--archive", str(server_tree(["samba-common-bin", "tdb-tools"])), str(root)],
        deadline=300)  # fmt: skip
    tree = Tree(root)
    tree.write("/etc/samba/smb.conf", b"[global]\n  workgroup = HOUSE\n  netbios name = alpha\n")
    for name in ("private", "msg.lock"):
        tree.make_directory(f"/var/lib/samba/{name}")
    tree.inside(["useradd", "anna"])
    tree.inside(["sh", "-c", "printf 'x\\nx\\n' | pdbedit -t -a anna >/dev/null"])
    return tree


def sid(tree: Tree, what: str) -> str:
    """The SID of the server, or of a user, as Samba itself tells it."""
    argv = ["net", "getlocalsid"] if what == "server" else ["pdbedit", "-v", what]
    said = tree.inside(argv).text
    key = "is: " if what == "server" else "User SID:"
    return said.split(key)[1].split()[0]


def test_the_sid_stays(tree: Tree) -> None:
    server, user = sid(tree, "server"), sid(tree, "anna")
    assert user.startswith(f"{server}-")
    said = list(samba.carry_over(tree, "alpha", "beta"))
    assert said == [f"samba's SID {server} goes with the new name BETA"]
    assert b"netbios name = beta" in (tree.read("/etc/samba/smb.conf") or b"")
    assert (sid(tree, "server"), sid(tree, "anna")) == (server, user)
    # done again, nothing changes
    list(samba.carry_over(tree, "alpha", "beta"))
    assert sid(tree, "server") == server


def test_without_it_the_sid_would_change(tree: Tree) -> None:
    """What this is for: Samba invents a new one for a new name, and says nothing."""
    before = sid(tree, "server")
    tree.write("/etc/samba/smb.conf", b"[global]\n  netbios name = beta\n")
    assert sid(tree, "server") != before


def test_a_name_that_all_servers_share_stays(tree: Tree) -> None:
    tree.edit("/etc/samba/smb.conf", lambda text: text.replace("= alpha", "= HOUSE1"))
    before = sid(tree, "server")
    (said,) = samba.carry_over(tree, "alpha", "beta")
    assert "keeps its NetBIOS name HOUSE1" in said
    assert sid(tree, "server") == before
