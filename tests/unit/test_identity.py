"""The table of identity: it is the handbook's page, decides about every path, and knows whatever a
service gives one server and not the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ets import identity, services
from ets.site.load import read
from ets.site.model import Site

TOP = Path(__file__).parents[2]
EXAMPLES = sorted((TOP / "examples").glob("*.toml"))


def uncovered(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """The files that are not the same on two servers and must be."""
    differing = {path for path in {*one, *other} if one.get(path) != other.get(path)}
    return sorted(path for path in differing if identity.compared(path))


def files(site: Site, name: str) -> dict[str, bytes]:
    wanted = services.desired(site, site.server(name))
    return {file.path: file.content for file in wanted.files}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_difference_that_services_make_has_a_row(example: Path) -> None:
    site = read(example)
    first, *others = [server.name for server in site.servers]
    for other in others:
        one, two = files(site, first), files(site, other)
        assert uncovered(one, two) == []
        for path in {path for path in {*one, *two} if one.get(path) != two.get(path)}:
            row = identity.find(path)
            assert row is not None
            # what the first start needs is there before it
            assert row.how == "site file", path


def test_a_new_service_with_an_identity_of_its_own_is_found() -> None:
    site = read(TOP / "examples/pair.toml")
    one, two = files(site, "alpha"), files(site, "beta")
    one["/etc/new/service.conf"], two["/etc/new/service.conf"] = b"node = 1\n", b"node = 2\n"
    assert uncovered(one, two) == ["/etc/new/service.conf"]


def test_the_page_is_the_table() -> None:
    assert (TOP / "docs/identity.md").read_text() == identity.page(), (
        "make it anew: python -c 'from ets.identity import page; print(page(), end=\"\")'"
        " >docs/identity.md"
    )


def test_every_row_is_whole() -> None:
    for row in identity.ROWS:
        assert row.paths
        assert row.why
        way = identity.WAYS[row.how]
        assert (row.rule == "same") == (row.how == "kept"), row
        assert row.rule != "left out" or not way.copied, row
        assert not row.folders or not way.copied, row
        for path in row.paths:
            assert re.fullmatch(r"/[^\s`|]+", path), path
    assert {row.how for row in identity.ROWS} == set(identity.WAYS)


def test_no_row_is_hidden_by_an_earlier_one() -> None:
    for row in identity.ROWS:
        for path in row.paths:
            name = path.replace("/**/", "/a/b/").replace("/**", "/a/b").replace("*", "x")
            name = name.replace("?", "x")
            assert identity.find(name) is row, path


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/etc/passwd", "same"),
        ("/usr/bin/ls", "same"),
        ("/etc/hostname", "different"),
        ("/etc/hostname.bak", "same"),
        ("/etc/ets/pki/ca.crt", "same"),
        ("/etc/ets/pki/server.key", "different"),
        ("/etc/ssh/ssh_host_ed25519_key.pub", "different"),
        ("/etc/ssh/sshd_config", "same"),
        ("/var/log/nginx/access.log", "left out"),
        ("/var/log", "same"),
        ("/tmp/a\nb", "left out"),
        ("/srv/data/lost+found/#12", "left out"),
        ("/lost+found/#12", "left out"),
        ("/opt/ets/lib/ets/__pycache__/x.pyc", "different"),
        ("/var/lib/ets/runtime/records.json", "different"),
        ("/var/lib/ets/runtime/start", "left out"),
        ("/var/lib/mysql/auto.cnf", "left out"),
        ("/var/lib/mysql/shop/orders.ibd", "different"),
    ],
)
def test_the_first_row_decides(path: str, rule: str) -> None:
    row = identity.find(path)
    assert (row.rule if row else "same") == rule
    assert identity.compared(path) == (rule == "same")


def test_folders_that_programs_need_are_copied() -> None:
    assert identity.left_out("/var/log/nginx/access.log")
    assert not identity.left_out("/var/log/nginx", directory=True)
    assert identity.left_out("/var/log/journal/0123", directory=True)
    assert identity.left_out("/run/systemd", directory=True)
    assert not identity.left_out("/run", directory=True)


@given(st.binary(min_size=1).map(lambda tail: b"/home/" + tail.replace(b"\0", b"")))
def test_any_name_of_a_user_is_copied(path: bytes) -> None:
    if b"__pycache__" not in path and b"lost+found" not in path:
        assert identity.find(path) is None
        assert not identity.left_out(path)
    assert identity.left_out(b"/tmp" + path)
