"""A running server is copied to a tree, the tree becomes another server, boots, applies its plan,
is compared with the first one, and enters service: all of a clone but the disk."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.drills.lab_tools import PAIR, lab_name, leftovers

from ets import identity, paths
from ets.clone import mend, pull, rewrite
from ets.clone.rewrite import Newcomer
from ets.errors import HostError
from ets.host import pki
from ets.host.deadline import Deadline, wait_for
from ets.lab.cgroup import lab_group
from ets.lab.container import Container
from ets.lab.lab import Lab
from ets.lab.nspawn import ContainerServer

pytestmark = [pytest.mark.root, pytest.mark.daemons]

SESSION = paths.JOIN / "session.json"
SSH = """
set -e
mkdir -p -m 700 /root/.ssh /var/lib/ets/join
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/join
cp /root/.ssh/join.pub /root/.ssh/authorized_keys
ssh-keygen -A
systemctl enable --now ssh
useradd --create-home anna
echo 'the same on both' >/home/anna/note
touch "/home/anna/$(printf 'odd\\nname\\377')"
getcap -r /usr/bin >/dev/null 2>&1 || true
ln /home/anna/note /home/anna/link
systemctl restart systemd-journald
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """alpha, well; beta has been lost with its disk."""
    name = lab_name("c")
    with Lab.up(PAIR, name=name, apply=False) as lab:
        container(lab, "beta").container.remove()
        alpha = container(lab, "alpha")
        alpha.apply()
        alpha.host.run(["sh", "-c", SSH])
        yield lab
    assert leftovers(name) == []


def container(lab: Lab, name: str) -> ContainerServer:
    server = lab.server(name)
    assert isinstance(server, ContainerServer)
    return server


def files(server: ContainerServer) -> Path:
    """The root directory of a running one, as seen from here."""
    return Path(f"/proc/{server.container.leader}/root")


def copied(lab: Lab, directory: Path) -> tuple[Path, list[str]]:
    """alpha's tree, copied while it runs, as beta's."""
    alpha, tree, keys = container(lab, "alpha"), directory / "tree", directory / "keys"
    tree.mkdir()
    pull.pull(alpha.shell, tree)
    beta = lab.site.server("beta")
    authority = Path(lab.state.directory) / "authority"
    pki.issue(authority, "beta", beta.addresses.values(), keys)
    newcomer = Newcomer(
        "beta", (), {},
        certificate=(keys / "server.crt").read_bytes(),
        key=(keys / "server.key").read_bytes(),
        ca=(keys / "ca.crt").read_bytes(),
    )  # fmt: skip
    said = rewrite.rewrite(tree, newcomer, old="alpha")
    session = {
        "source": "alpha",
        "ssh": f"root@{alpha.server.peering}",
        "options": [
            "-i",
            "/root/.ssh/join",
            "-o",
            "StrictHostKeyChecking=accept-new",
            "-o",
            "UserKnownHostsFile=/var/lib/ets/join/known_hosts",
        ],
    }
    place = tree / str(SESSION)[1:]
    place.parent.mkdir(mode=0o700, exist_ok=True)
    place.write_text(json.dumps(session))
    return tree, list(said)


def as_server(lab: Lab, tree: Path) -> ContainerServer:
    """beta with ``tree`` as its disk."""
    beta = container(lab, "beta")
    group = lab_group(lab.state.name).child("beta")
    directory = beta.container.directory
    beta.container = Container(
        beta.container.name, "beta", [tree], directory, group, lab.topology.namespace(beta.server)
    )
    beta.container.prepare()
    return beta


def joining(server: ContainerServer) -> bool:
    return (files(server) / str(paths.JOINING)[1:]).exists()


def entered(server: ContainerServer) -> bool:
    """Has it come so far that its files can be seen, and is it in service?"""
    try:
        named = (files(server) / str(paths.SERVER_NAME)[1:]).exists()
        return named and not joining(server)
    except HostError:
        return False


def seen(server: ContainerServer) -> dict[bytes, bytes]:
    """All of a server's disk, as find and sha256sum tell it there."""
    listed = server.host.run(["find", "/", "-xdev", "-printf", r"%p\0%y %m %U %G %l\0"]).stdout
    names = listed.split(b"\0")[:-1]
    found = dict(zip(names[::2], names[1::2], strict=True))
    script = "find / -xdev -type f -print0 | xargs -0 sha256sum -z || true"
    for row in server.host.run(["sh", "-c", script], deadline=300).stdout.split(b"\0")[:-1]:
        digest, _, name = row.partition(b"  ")
        found[name] = found.get(name, b"") + digest
    return found


def differing(one: ContainerServer, other: ContainerServer) -> set[str]:
    """Where two servers differ in kind, mode, owner, target or content."""
    mine, theirs = seen(one), seen(other)
    assert len(mine) > 5000
    paths = {*mine, *theirs}
    return {os.fsdecode(path) for path in paths if mine.get(path) != theirs.get(path)}


def state(server: ContainerServer, name: str) -> str:
    status = json.loads(server.host.run(["ets", "status", "--json"], check=False).text or "{}")
    rows = {row["name"]: row["state"] for row in status.get("servers", [])}
    return str(rows.get(name))


def journal(server: ContainerServer) -> str:
    return server.host.run(["journalctl", "--unit=ets-join", "--output=cat"]).text


def test_a_copy_becomes_a_server_and_enters_service(lab: Lab, tmp_path: Path) -> None:
    alpha = container(lab, "alpha")
    tree, said = copied(lab, tmp_path)
    assert any("it is beta" in line for line in said), said
    # a difference that nothing excuses, and that was not mended in several rounds, keeps it out
    (tree / "etc/motd").write_text("only here\n")
    (tree / str(mend.COUNT)[1:]).write_text(f"{mend.ROUNDS}\n")
    beta = as_server(lab, tree)
    beta.boot()
    wait_for("the difference to be found", lambda: "/etc/motd" in journal(beta), Deadline(120))
    assert "stays out of service" in journal(beta)
    assert joining(beta)
    assert state(beta, "beta") == "joining"
    assert state(alpha, "beta") == "joining"
    (files(beta) / "etc/motd").write_bytes((files(alpha) / "etc/motd").read_bytes())
    wait_for("it to enter service", lambda: not joining(beta), Deadline(120), every=0.5)
    wait_for("alpha to hear", lambda: state(alpha, "beta") == "in service", Deadline(10))
    beta.wait_answering()
    unit = files(beta) / "etc/systemd/system/ets-join.service"
    wait_for("the unit to be gone", lambda: not unit.exists(), Deadline(10))
    assert not (files(beta) / str(paths.JOIN)[1:]).exists()
    different = differing(alpha, beta)
    assert sorted(path for path in different if identity.compared(path)) == []
    assert {"/etc/hostname", "/etc/ets/server", "/etc/machine-id"} <= different


CHANGES = """
set -e
echo changed >/etc/motd
useradd bob
chmod 0700 /etc/kernel
setfattr -n trusted.note -v x /etc/kernel || true
mkdir /etc/new
ln -s ../motd /etc/new/link
touch "/etc/new/$(printf 'odd\\nname\\377')"
rm -r /etc/profile.d
"""


def test_what_changed_since_the_copy_is_brought_over(lab: Lab, tmp_path: Path) -> None:
    alpha = container(lab, "alpha")
    tree, _ = copied(lab, tmp_path)
    alpha.host.run(["sh", "-c", CHANGES])
    beta = as_server(lab, tree)
    beta.boot()
    # it starts again with what was brought over; a container in the lab goes off instead
    wait_for("it to start again", lambda: not beta.running, Deadline(120), every=0.5)
    beta.boot_again()
    wait_for("it to enter service", lambda: entered(beta), Deadline(120), every=0.5)
    beta.wait_answering()
    assert (files(beta) / "etc/new/link").is_symlink()
    different = differing(alpha, beta)
    assert sorted(path for path in different if identity.compared(path)) == []


def test_power_lost_during_the_first_start(lab: Lab, tmp_path: Path) -> None:
    """Whenever it goes off, it comes back as it was: joining, until a comparison found nothing."""
    tree, _ = copied(lab, tmp_path)
    beta, alpha = as_server(lab, tree), container(lab, "alpha")
    for seconds in (0.5, 1.5, 2.5, 3.5, 5.0):
        beta.switch_on()
        time.sleep(seconds)
        done = entered(beta)
        beta.power_off()
        if done:
            break
    beta.boot()
    wait_for("it to enter service", lambda: not joining(beta), Deadline(120), every=0.5)
    beta.wait_answering()
    wait_for("alpha to hear", lambda: state(alpha, "beta") == "in service", Deadline(10))
    unit = files(beta) / "etc/systemd/system/ets-join.service"
    wait_for("the unit to be gone", lambda: not unit.exists(), Deadline(30))
