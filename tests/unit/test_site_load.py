"""Reading a site file: what comes out of a good one, and what is said about what is none."""

from __future__ import annotations

import hashlib
import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from ets.site.load import LIMIT, SiteError, parse, read
from ets.site.model import AddressRange, ImageFile, Problem, Site

DATA = Path(__file__).with_name("site_pair.toml").read_bytes()
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))


def refusal(path: Path) -> Problem:
    """The one problem of the file at ``path``."""
    with pytest.raises(SiteError) as caught:
        read(path)
    assert caught.value.exit_code == 2
    assert str(path) in caught.value.message
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_well(path: Path) -> None:
    site = read(path, sources=True)
    assert site.servers
    assert len({station.address for station in site.stations}) == len(site.stations)


def test_the_examples_are_all_there() -> None:
    assert {"campus", "one-server", "pair"} <= {path.stem for path in EXAMPLES}
    campus = read(next(path for path in EXAMPLES if path.stem == "campus"))
    assert (len(campus.servers), len(campus.stations)) == (5, 300)
    assert len({server.weight for server in campus.servers}) > 1


def test_what_a_site_file_becomes() -> None:
    site = parse(DATA)
    assert (site.name, site.domain, site.timezone) == ("pair", "pair.example", "Europe/Berlin")
    assert site.digest == hashlib.sha256(DATA).hexdigest()
    assert [server.name for server in site.servers] == ["alpha", "beta"]
    assert site.server("beta").stations == IPv4Address("10.77.0.12")
    assert site.server("beta").peering == IPv4Address("192.168.77.12")
    assert site.stations_net.subnet == IPv4Network("10.77.0.0/22")
    assert site.stations_net.known == AddressRange(
        IPv4Address("10.77.1.1"), IPv4Address("10.77.1.250")
    )
    assert site.networks["lan"].gateway == IPv4Address("192.168.77.1")
    assert site.defaults.kernel_args == ("console=ttyS0,115200",)
    assert [station.image for station in site.stations] == ["console"] * 5
    station = site.station("52:54:00:77:00:01")
    assert station is not None
    assert (station.name, station.address) == ("ws01", IPv4Address("10.77.1.199"))
    assert site.images["console"].kernel == "linux-image-cloud-amd64"
    assert site.dns == (IPv4Address("192.168.77.1"),)
    assert site.time == ("192.168.77.1",)


def test_values_are_normalised() -> None:
    text = DATA.decode()
    text = text.replace("52:54:00:77:00:01", "52-54-00-77-00-0A")
    text = text.replace("packages = []", 'files = [{source = "a", target = "/b", mode = "4755"}]')
    site = parse(text.encode())
    assert site.stations[0].mac == "52:54:00:77:00:0a"
    assert site.images["console"].files == (ImageFile("a", "/b", 0o4755),)


def test_moving_stations_in_the_file_changes_no_address() -> None:
    before = parse(DATA)
    text = DATA.decode()
    first = text[text.index("[[stations.known]]") : text.index('"ws01"') + len('"ws01"')]
    moved = parse((text.replace(first, "") + "\n" + first).encode())
    assert [station.name for station in moved.stations][-1] == "ws01"
    assert {s.mac: s.address for s in moved.stations} == {s.mac: s.address for s in before.stations}


def test_files_of_images_must_be_beside_the_site_file_where_images_are_built(
    tmp_path: Path,
) -> None:
    path = tmp_path / "site.toml"
    text = DATA.decode().replace(
        "packages = []",
        'files = [{source = "motd", target = "/etc/motd"}]\n'
        'scripts = ["one.sh", "two.sh"]\nltsp_conf = "ltsp.conf"',
    )
    path.write_text(text)
    (tmp_path / "one.sh").write_text("true")
    (tmp_path / "two.sh").mkdir()
    assert read(path).name == "pair"
    with pytest.raises(SiteError) as caught:
        read(path, sources=True)
    assert [problem.where.split(" ")[0] for problem in caught.value.problems] == [
        "images.console.files[0].source",
        "images.console.scripts[1]",
        "images.console.ltsp_conf",
    ]


def test_further_checks_are_joined_with_the_line_of_their_key() -> None:
    def further(site: Site) -> list[Problem]:
        return [Problem("servers[1].weight", f"displeases the service of {site.name}", "1")]

    with pytest.raises(SiteError) as caught:
        parse(DATA, "x.toml", further=further)
    (problem,) = caught.value.problems
    assert problem.where == "servers[1].weight (line 42)"
    assert "displeases the service of pair" in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.toml").message


def test_a_directory_and_a_device_and_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, Path("/dev/zero"), pipe):
        assert "is not a regular file" in refusal(path).message


def test_a_link_to_itself(tmp_path: Path) -> None:
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    assert "cannot be read" in refusal(loop).message


def test_a_path_that_is_none() -> None:
    assert "cannot be read" in refusal(Path("a\0b")).message


def test_a_huge_file(tmp_path: Path) -> None:
    path = tmp_path / "huge.toml"
    with path.open("wb") as file:
        file.truncate(LIMIT + 1)
    assert "is too large" in refusal(path).message


@pytest.mark.parametrize("data", [b"", b"\n \n\t", b"\xef\xbb\xbf"])
def test_an_empty_file(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.write_bytes(data)
    with pytest.raises(SiteError):
        read(path)


def test_a_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"[site]\nname = \xff\x00\n")
    problem = refusal(path)
    assert (problem.where, problem.value) == ("line 2", "byte 0xff")


def test_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes('# Büro\n[site]\nname = "x"'.encode("latin-1"))
    assert refusal(path).where == "line 1"


def test_a_byte_order_mark_does_no_harm() -> None:
    assert parse(b"\xef\xbb\xbf" + DATA).name == "pair"


def test_lines_of_windows_do_no_harm() -> None:
    assert parse(DATA.replace(b"\n", b"\r\n")).name == "pair"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[site]\nname = \n", "line 2, column 8"),
        ("[site\n", "line 1, column 6"),
        ("a = 1\na = 2\n", "line 2, column 6"),
        ('# one\na = "no end', "line 2, at the end of the file"),
        ("a = 1979-99-99", "line 1, column 9"),
        ("a = [1, 2\n\n", "line 1, at the end of the file"),
    ],
)
def test_errors_of_syntax_have_a_position(text: str, where: str) -> None:
    with pytest.raises(SiteError) as caught:
        parse(text.encode())
    (problem,) = caught.value.problems
    assert problem.message.startswith("is not TOML: ")
    assert problem.where == where


def test_nesting_beyond_reason() -> None:
    for text in ("a = " + "[" * 200_000, "a = " + "[" * 50_000 + "]" * 50_000, "{" * 9999):
        with pytest.raises(SiteError):
            parse(text.encode())


def test_a_number_of_a_million_digits() -> None:
    for value in ("9" * 1_000_000, "0x" + "f" * 1_000_000, "1e999999999"):
        with pytest.raises(SiteError) as caught:
            parse(DATA.replace(b"weight = 1\n", f"weight = {value}\n".encode(), 1))
        assert len(str(caught.value)) < 1000


def test_what_a_file_says_cannot_command_a_terminal() -> None:
    """Control characters reach a terminal as escapes: a colour, a title, a cleared screen."""
    keys = b'"\\u001b[2J" = "\\u001b]0;owned\\u0007"\n"\\u009b" = 1\n'
    with pytest.raises(SiteError) as caught:
        parse(keys + DATA)
    assert all(line.isprintable() for line in str(caught.value).split("\n"))
    assert "\\u001b" in str(caught.value)


def test_a_thousand_problems_are_counted_but_not_all_shown() -> None:
    stations = "".join('[[stations.known]]\nmac = "x"\nname = "y"\n' for _ in range(1000))
    with pytest.raises(SiteError) as caught:
        parse(DATA + stations.encode())
    assert len(caught.value.problems) == 1999
    assert "… and 1899 more" in str(caught.value)
