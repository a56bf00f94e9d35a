"""Whatever the bytes: a Site or a list of problems, never a traceback."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Any

import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from ets.site.load import SiteError, parse
from ets.site.model import Site
from ets.site.pools import guest_slice
from ets.site.positions import lines, spell

DATA = Path(__file__).with_name("site_pair.toml").read_bytes()
VALUES = tomllib.loads(DATA.decode())


def outcome(data: bytes) -> Site | SiteError:
    """What becomes of ``data``. Everything but a Site or a SiteError with problems is raised."""
    found: Site | SiteError
    try:
        found = parse(data)
    except SiteError as error:
        found = error
    if isinstance(found, Site):
        sound(found)
        return found
    assert found.problems
    assert str(found)
    assert all(problem.where and problem.message for problem in found.problems)
    return found


def sound(site: Site) -> None:
    """What every Site promises to those who are given one."""
    net = site.stations_net
    owned = [server.stations for server in site.servers]
    owned += [station.address for station in site.stations]
    owned += [net.gateway] if net.gateway else []
    assert len(set(owned)) == len(owned)
    assert all(address in net.subnet for address in owned)
    for server in site.servers:
        part = guest_slice(site, server)
        assert (part is not None) == site.defaults.guests
        assert part is None or not any(address in part for address in owned)
    for_stations = {name for name, image in site.images.items() if image.role == "station"}
    assert {station.image for station in site.stations} | {site.defaults.image} == for_stations
    hosts = [server.name for server in site.servers] + [station.name for station in site.stations]
    assert len(set(hosts)) == len(hosts)
    assert all(server.weight > 0 for server in site.servers)


@given(st.binary(max_size=2000))
def test_any_bytes(data: bytes) -> None:
    outcome(data)


@given(st.text(max_size=500))
def test_any_text(text: str) -> None:
    outcome(text.encode("utf-8", "surrogatepass"))


@given(st.randoms(use_true_random=False), st.integers(1, 20))
def test_a_valid_file_with_spoilt_bytes(chance: random.Random, count: int) -> None:
    data = bytearray(DATA)
    for _ in range(count):
        at = chance.randrange(len(data))
        spoil = chance.randrange(3)
        if spoil == 0:
            data[at] = chance.randrange(256)
        elif spoil == 1:
            del data[at]
        else:
            data.insert(at, chance.choice(b"\"'[]{}=.,#\n\\09-"))
    outcome(bytes(data))


@given(st.randoms(use_true_random=False), st.integers(1, 10))
def test_a_valid_file_with_lines_moved_doubled_and_lost(chance: random.Random, count: int) -> None:
    rows = DATA.split(b"\n")
    for _ in range(count):
        row = rows.pop(chance.randrange(len(rows)))
        for _ in range(chance.randrange(3)):
            rows.insert(chance.randrange(len(rows)), row)
    outcome(b"\n".join(rows))


plain = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(st.characters(codec="utf-8"), max_size=30)
    | st.sampled_from(
        ["10.77.0.11", "10.77.1.1-10.77.1.9", "52:54:00:77:00:01", "alpha", "console"]
    )
    | st.datetimes()
    | st.dates()
    | st.times()
)
names = st.sampled_from(["name", "servers", "known", "mac", "source", "x", "a b", "", "ü"])
junk = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of everything inside ``value``."""
    inside: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    return [p for key, v in inside for p in [(*path, key), *places(v, (*path, key))]]


def put(values: Any, path: tuple[str | int, ...], new: Any) -> Any:
    """A copy of ``values`` with ``new`` at ``path``."""
    if not path:
        return new
    copied: Any = dict(values) if isinstance(values, dict) else list(values)
    copied[path[0]] = put(values[path[0]], path[1:], new)
    return copied


@settings(max_examples=300)
@given(st.sampled_from(places(VALUES)), junk)
def test_any_value_in_any_place(path: tuple[str | int, ...], value: Any) -> None:
    text = tomlkit.dumps(put(VALUES, path, value))
    found = outcome(text.encode())
    if isinstance(found, SiteError):
        assert "is not TOML" not in str(found)


@given(st.dictionaries(names, junk, max_size=4))
def test_any_values_at_all(values: dict[str, Any]) -> None:
    outcome(tomlkit.dumps(values).encode())


keys = st.text(st.characters(codec="utf-8"), max_size=8)


@given(st.dictionaries(keys, st.recursive(plain, lambda x: st.dictionaries(keys, x) | st.lists(x))))
def test_every_key_has_its_line(values: dict[str, Any]) -> None:
    text = tomlkit.dumps(values)
    found = lines(text)
    for path in places(tomllib.loads(text)):
        assert 1 <= found[path] <= text.count("\n") + 1


def test_lines_of_every_way_to_write_toml() -> None:
    text = '''a = 1
"b c" . d = [ # comment with ] and "
  1, "]", [2,
  3], """
x ] " ""\\"""",
  {e = 1, f.g = 'x # y'},
]
[t]
h.i = \'\'\'
'] ''\'\'\'
j = 1979-05-27 07:32:00
[[u]]
k = 1
[[u]]
k = 2
[u.v]
l = 3
[[u.w]]
m = 4
["x.y".'z']
n = 5
'''
    tomllib.loads(text)
    found = {spell(path): line for path, line in lines(text).items()}
    assert found == {
        "a": 1, '"b c"': 2, '"b c".d': 2, '"b c".d[0]': 3, '"b c".d[1]': 3, '"b c".d[2]': 3,
        '"b c".d[2][0]': 3, '"b c".d[2][1]': 4, '"b c".d[3]': 4, '"b c".d[4]': 6,
        '"b c".d[4].e': 6, '"b c".d[4].f': 6, '"b c".d[4].f.g': 6, "t": 8, "t.h": 9, "t.h.i": 9,
        "t.j": 11, "u": 12, "u[0]": 12, "u[0].k": 13, "u[1]": 14, "u[1].k": 15, "u[1].v": 16,
        "u[1].v.l": 17, "u[1].w": 18, "u[1].w[0]": 18, "u[1].w[0].m": 19, '"x.y"': 20,
        '"x.y".z': 20, '"x.y".z.n': 21,
    }  # fmt: skip
