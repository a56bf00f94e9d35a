"""What ETS writes for every example, compared byte by byte with ``trees/``, and what of it differs
between two servers of a site: nothing but the lines listed here.

After a change that is meant: ``ETS_GOLDEN=update pytest tests/golden``, then read the diff.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from ets import services
from ets.plan.tree import render
from ets.site.load import read

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
UPDATE = os.environ.get("ETS_GOLDEN") == "update"
#: example → its servers with a tree here; the rest of a big site tells nothing new
SERVERS = {
    "one-server": ("server",),
    "pair": ("alpha", "beta"),
    "campus": ("ada", "bohr"),
}

#: path → what a line looks like that may differ between the servers of a site
MAY_DIFFER = {
    "etc/chrony/chrony.conf": r"(peer|allow) \S+",
    "etc/default/tftpd-hpa": r'TFTP_ADDRESS="\S+:69"',
    "etc/kea/kea-dhcp4.conf": r"|".join(
        (
            r' +"interfaces": \["eth\d+/[0-9.]+"\],',
            r' +"boot-file-name": "http://\S+",?',
            r' +\{"name": "boot-file-name", "data": "http://\S+", "always-send": true\}',
            r' +"(next-server|server-hostname)": "[0-9.]+",',
            r' +\{"name": "ntp-servers", "data": "[0-9., ]+"\}',
            r' +\{"pool": "[0-9.]+ - [0-9.]+"\}',
        )
    ),
    "etc/nftables.conf": r' +iifname "\w+" ip saddr \{ [0-9., ]+ \} (udp|tcp) dport \d+ accept',
    "etc/nginx/nginx.conf": r' +listen \S+ default_server backlog=1024;| +return 200 "\w+\\n";',
    "etc/systemd/system/ets-blocks.socket": r"ListenStream=\S+:10809",
}


def tree(example: str, server: str) -> dict[str, bytes]:
    """The whole tree of one server. The site file's digest is left out: comments change it."""
    site = replace(read(EXAMPLES / f"{example}.toml"), digest="the site file's digest")
    return render(services.desired(site, site.server(server)))


def lines_that_differ(one: bytes, other: bytes) -> list[str]:
    """Lines of either that the other has not at that place."""
    one_lines, other_lines = one.decode().splitlines(), other.decode().splitlines()
    compared = list(difflib.unified_diff(one_lines, other_lines, n=0, lineterm=""))[2:]
    return [line[1:] for line in compared if not line.startswith("@@ ")]


def test_every_example_is_here() -> None:
    assert set(SERVERS) == {path.stem for path in EXAMPLES.glob("*.toml")}
    for example, names in SERVERS.items():
        served = [server.name for server in read(EXAMPLES / f"{example}.toml").servers]
        assert set(names) <= set(served)
        assert len(names) == min(2, len(served))


@pytest.mark.parametrize(
    ("example", "server"),
    [(example, server) for example, names in SERVERS.items() for server in names],
)
def test_the_tree_is_as_written_down(example: str, server: str) -> None:
    made = tree(example, server)
    place = HERE / "trees" / example / server
    if UPDATE:
        shutil.rmtree(place, ignore_errors=True)
        for path, content in made.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(content)
    kept = {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    assert sorted(made) == sorted(kept)
    for path, content in made.items():
        assert content.decode().splitlines() == kept[path].decode().splitlines(), path
        assert content == kept[path], path


@pytest.mark.parametrize("example", SERVERS)
def test_servers_differ_in_the_listed_lines_alone(example: str) -> None:
    names = [server.name for server in read(EXAMPLES / f"{example}.toml").servers]
    trees = {name: tree(example, name) for name in names}
    for one, other in combinations(names, 2):
        assert list(trees[one]) == list(trees[other])
        differ = {path for path in trees[one] if trees[one][path] != trees[other][path]}
        assert differ == set(MAY_DIFFER), f"{one} and {other}"
        for path in differ:
            found = lines_that_differ(trees[one][path], trees[other][path])
            assert found
            strange = [line for line in found if not re.fullmatch(MAY_DIFFER[path], line)]
            assert not strange, f"{path} of {one} and {other}: {strange}"


def test_another_station_changes_kea_s_file_alone(tmp_path: Path) -> None:
    text = (EXAMPLES / "pair.toml").read_text()
    added = '\n[[stations.known]]\nmac = "52:54:00:77:00:06"\nname = "ws06"\n'
    more = text.replace("\n[images.", f"{added}\n[images.", 1)
    (tmp_path / "site.toml").write_text(more)
    site = replace(read(tmp_path / "site.toml"), digest="the site file's digest")
    assert len(site.stations) == len(read(EXAMPLES / "pair.toml").stations) + 1
    for server in site.servers:
        before, after = tree("pair", server.name), render(services.desired(site, server))
        assert list(before) == list(after)
        changed = {path for path in before if before[path] != after[path]}
        assert changed == {"etc/kea/kea-dhcp4.conf"}
        (path,) = changed
        gone = [line for line in before[path].splitlines() if line not in after[path].splitlines()]
        # only the comma behind the last reservation
        assert len(gone) <= 1
