"""Every mistake in a site file is found, named by its key and line, with what is allowed.

One row is one mistake put into ``site_pair.toml``, which has none: what is replaced, by what, and
what must be said. Adding a mistake is adding a row.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from ets.cluster.bootscript import BootImage, Source, command_line, guest_name
from ets.site.load import SiteError, parse
from ets.site.model import CloneRules

PAIR = Path(__file__).with_name("site_pair.toml").read_text()

ALPHA = 'stations = "10.77.0.11"'
GUESTS = 'guests = "10.77.2.1-10.77.3.250"'
KNOWN = 'known = "10.77.1.1-10.77.1.250"'
WS01 = 'name = "ws01"'
SERVERS = PAIR[PAIR.index("[[servers]]") : PAIR.index("[stations]")]
STATIONS = PAIR[PAIR.index("[[stations.known]]") : PAIR.index("# A text console")]

ROWS = [
    # the site
    ('name = "pair"', 'name = "Pair"', "site.name", "is not a name"),
    ('name = "pair"\n', "", "site.name", "is missing"),
    ('name = "pair"', "name = 5", "site.name", "must be text"),
    ('"pair.example"', '"pair..example"', "site.domain", "is not a domain name"),
    ('"pair.example"', f'"{"a." * 130}b"', "site.domain", "is not a domain name"),
    ('"pair.example"', '"10.0.0.1"', "site.domain", "is not a domain name"),
    ("Europe/Berlin", "Europe/Berln", "site.timezone", "no such time zone"),
    ("Europe/Berlin", "../../etc/passwd", "site.timezone", "is not a time zone"),
    ("[dns]", "[dsn]", "dsn", "is no key"),
    # networks
    ('interface = "eth1"', 'interface = "eth0"', "networks.stations.interface", "is also the"),
    ('interface = "eth1"', 'interface = "eth 1"', "networks.stations.interface", "is not the name"),
    ('interface = "eth1"', f'interface = "{"e" * 16}"', "networks.stations.interface", "is not"),
    ('interface = "eth1"', 'interface = "lo"', "networks.stations.interface", "is the loopback"),
    ('"10.78.0.0/24"', '"10.77.3.0/24"', "networks.compute.subnet", "overlaps networks.stations"),
    ('"10.77.0.0/22"', '"10.77.0.1/22"', "networks.stations.subnet", "bits set behind"),
    ('"10.77.0.0/22"', '"10.77.0.0"', "networks.stations.subnet", "is not a network"),
    ('"10.77.0.0/22"', '"10.77.0.0/33"', "networks.stations.subnet", "is not a network"),
    ('"10.77.0.0/22"', '"0.0.0.0/0"', "networks.stations.subnet", "is too large or too small"),
    ('"10.78.0.0/24"', '"127.0.0.0/24"', "networks.compute.subnet", "hosts can use"),
    ('"10.78.0.0/24"', '"239.0.0.0/24"', "networks.compute.subnet", "hosts can use"),
    ('"10.78.0.0/24"', '"::/24"', "networks.compute.subnet", "is not a network"),
    ('gateway = "192.168.77.1"', 'gateway = "10.0.0.1"', "networks.lan.gateway", "is outside"),
    ('gateway = "192.168.77.1"', 'gateway = "192.168.77.11"', "servers[0].lan", "used twice"),
    ("[networks.stations]", "[networks.clients]", "networks.stations", "is missing"),
    ("[networks.stations]", "[networks.station]", "networks.station", "did you mean stations?"),
    # ranges
    (GUESTS, 'guests = "10.77.2.1-10.77.2.1"', "networks.stations.guests", "2 servers need"),
    (GUESTS, 'guests = "10.77.1.200-10.77.2.9"', "networks.stations.guests", "overlaps"),
    (GUESTS, 'guests = "10.77.3.9-10.77.3.1"', "networks.stations.guests", "ends before"),
    (GUESTS, 'guests = "10.77.3.9-10.77.4.1"', "networks.stations.guests", "is not inside"),
    (GUESTS, 'guests = "10.77.3.9-10.77.3.255"', "networks.stations.guests", "is not inside"),
    (GUESTS, 'guests = "10.77.3.0/24"', "networks.stations.guests", "is not a range"),
    (GUESTS, "", "stations.guests", "there is no range for guests"),
    ("guests = true", "guests = false", "networks.stations.guests", "stations.guests is false"),
    ("guests = true", 'guests = "yes"', "stations.guests", "must be true or false"),
    (KNOWN, 'known = "10.77.1.1-10.77.1.4"', "networks.stations.known", "is too small: 5"),
    (KNOWN, "", "networks.stations.known", "is missing: 5"),
    (ALPHA, 'stations = "10.77.2.9"', "servers[0].stations", "which is handed out"),
    (ALPHA, 'stations = "10.77.1.9"', "servers[0].stations", "which is handed out"),
    (WS01, WS01 + '\naddress = "10.77.3.9"', "stations.known[0].address", "which is handed out"),
    # servers
    (ALPHA, "", "servers[0].stations", "is missing"),
    (ALPHA, 'stations = "10.79.0.11"', "servers[0].stations", "is outside networks.stations"),
    (ALPHA, 'stations = "10.77.0.0"', "servers[0].stations", "is the network address"),
    (ALPHA, 'stations = "10.77.3.255"', "servers[0].stations", "is the broadcast address"),
    (ALPHA, 'stations = "10.77.0.12"', "servers[1].stations", "used twice: server alpha"),
    (ALPHA, 'stations = "10.77.0.300"', "servers[0].stations", "is not an IPv4 address"),
    (ALPHA, "stations = 172818443", "servers[0].stations", "must be text"),
    (ALPHA, 'stations = "fe80::1"', "servers[0].stations", "is not an IPv4 address"),
    (ALPHA, 'station = "10.77.0.11"', "servers[0].station", "did you mean stations?"),
    ('lan = "192.168.77.11"\n', "", "servers[0].lan", "is missing: the site has a LAN"),
    ('name = "beta"', 'name = "alpha"', "servers[1].name", "is also the name of a server"),
    ('name = "beta"', 'name = "ws01"', "stations.known[0].name", "is also the name of a server"),
    ('name = "beta"', 'name = "localhost"', "servers[1].name", "is also the name of every host"),
    ('name = "beta"', 'name = "12"', "servers[1].name", "is a number"),
    ('name = "beta"', 'name = "guest-525400770009"', "servers[1].name", "that guests are given"),
    ('name = "beta"', 'name = "-beta"', "servers[1].name", "is not a name"),
    ('name = "beta"', f'name = "{"b" * 64}"', "servers[1].name", "is not a name"),
    ('name = "beta"', 'name = "be_ta"', "servers[1].name", "is not a name"),
    ('name = "beta"', 'name = "beta\\n"', "servers[1].name", "is not a name"),
    ("weight = 1\nlan", "weight = 0\nlan", "servers[0].weight", "is not a usable weight"),
    ("weight = 1\nlan", "weight = -1\nlan", "servers[0].weight", "is not a usable weight"),
    ("weight = 1\nlan", "weight = nan\nlan", "servers[0].weight", "is not a usable weight"),
    ("weight = 1\nlan", "weight = inf\nlan", "servers[0].weight", "is not a usable weight"),
    ("weight = 1\nlan", "weight = 1e9\nlan", "servers[0].weight", "is not a usable weight"),
    ("weight = 1\nlan", "weight = true\nlan", "servers[0].weight", "must be a number"),
    ("weight = 1\nlan", 'weight = "1"\nlan', "servers[0].weight", "must be a number"),
    ("weight = 1\nlan", "weihgt = 1\nlan", "servers[0].weihgt", "did you mean weight?"),
    (SERVERS, "", "servers", "is missing"),
    (SERVERS, "[servers]\n", "servers", "must be a list"),
    # stations
    (WS01, 'name = "ws02"', "stations.known[1].name", "is also the name of a station"),
    ("77:00:02", "77:00:01", "stations.known[1].mac", "is also the MAC of station ws01"),
    ("52:54:00:77:00:02", "52-54-00-77-00-01", "stations.known[1].mac", "is also the MAC"),
    ("52:54:00:77:00:02", "53:54:00:77:00:02", "stations.known[1].mac", "is a multicast"),
    ("52:54:00:77:00:02", "ff:ff:ff:ff:ff:ff", "stations.known[1].mac", "is a multicast"),
    ("52:54:00:77:00:02", "00:00:00:00:00:00", "stations.known[1].mac", "is no network card's"),
    ("52:54:00:77:00:02", "52:54:00:77:00", "stations.known[1].mac", "is not a MAC address"),
    (WS01, WS01 + '\nimage = "consle"', "stations.known[0].image", "did you mean console?"),
    (WS01, WS01 + '\naddress = "10.77.0.12"', "stations.known[0].address", "used twice: server"),
    (WS01, WS01 + '\naddress = "10.9.0.1"', "stations.known[0].address", "is outside"),
    (STATIONS, "", "networks.stations.guests", None),
    ("lease = 3600", "lease = 10", "stations.lease", "is too small"),
    ("lease = 3600", "lease = 99999999", "stations.lease", "is too large"),
    ("lease = 3600", "lease = 3600.0", "stations.lease", "must be a whole number"),
    ('"console=ttyS0,115200"', '"quiet splash"', "stations.kernel_args[0]", "not one kernel"),
    ('"console=ttyS0,115200"', '"a\\nboot"', "stations.kernel_args[0]", "not one kernel"),
    ('"console=ttyS0,115200"', '"a=\\"b"', "stations.kernel_args[0]", "not one kernel"),
    ('"console=ttyS0,115200"', '"a=${net0/mac}"', "stations.kernel_args[0]", "not one kernel"),
    ('"console=ttyS0,115200"', '"a||shell"', "stations.kernel_args[0]", "not one kernel"),
    ('"console=ttyS0,115200"', '"ets.root=00"', "stations.kernel_args[0]", "is set by ETS"),
    ('"console=ttyS0,115200"', '"init=/bin/sh"', "stations.kernel_args[0]", "is set by ETS"),
    ('"console=ttyS0,115200"', f'"a={"b" * 400}", ' * 5, "stations.kernel_args", "are too long"),
    # images
    ('image = "console"', 'image = "consle"', "stations.image", "did you mean console?"),
    ("[images.console]", "[images.desktop]\n[images.console]", "images.desktop", "no station uses"),
    ("[images.console]", '[images."../x"]\n[images.console]', 'images."../x"', "is not a name"),
    ('suite = "bookworm"', 'suite = "buster"', "images.console.suite", "is none of the choices"),
    ("linux-image-cloud-amd64", "linux", "images.console.kernel", "is not a Debian kernel"),
    ("packages = []", 'packages = ["vim;reboot"]', "images.console.packages[0]", "is not a Debian"),
    ("packages = []", 'packages = ["-o", "vim"]', "images.console.packages[0]", "is not a Debian"),
    ("packages = []", 'packages = ["vim", "vim"]', "images.console.packages", "more than once"),
    ("packages = []", 'packages = "vim"', "images.console.packages", "must be a list"),
    ("compression = 3", "compression = 23", "images.console.compression", "is too large"),
    ("seal = false", "seal = 0", "images.console.seal", "must be true or false"),
    (
        'suite = "bookworm"',
        'source = "server"\nsuite = "bookworm"',
        "images.console.suite",
        "no mea",
    ),
    # servers that join
    (ALPHA, ALPHA + '\nmac = "52:54:00:77:00:02"', "stations.known[1].mac", "MAC of server alpha"),
    (ALPHA, ALPHA + '\nmac = "ff:ff:ff:ff:ff:ff"', "servers[0].mac", "is a multicast"),
    (ALPHA, ALPHA + '\nmac = "52-54-00-77-01-01"', "servers[0].mac", None),
    ("[images.console]", '[images.i]\nrole = "installer"\n[images.console]', "images.i", None),
    ("[images.console]", '[images.console]\nrole = "installer"', "stations.image", "installs serv"),
    ("[images.console]", '[images.console]\nrole = "server"', "images.console.role", "none of the"),
    (
        "[images.console]",
        '[images.i]\nrole = "installer"\n[images.j]\nrole = "installer"\n[images.console]',
        "images.j.role",
        "is a second installer: i",
    ),
    (
        "[images.console]",
        '[images.i]\nrole = "installer"\nsource = "server"\n[images.console]',
        "images.i.source",
        "cannot be a server's tree",
    ),
    ("[images.console]", '[clone]\nexclude = ["/srv/a b"]\n[images.console]', "clone", None),
    (
        "[images.console]",
        '[clone]\nexclude = ["srv"]\n[images.console]',
        "clone.exclude[0]",
        "abso",
    ),
    ("[images.console]", '[clone]\nexclude = ["/"]\n[images.console]', "clone.exclude[0]", "plain"),
    (
        "[images.console]",
        '[clone]\nexclude = ["/a/.."]\n[images.console]',
        "clone.exclude[0]",
        "pla",
    ),
    (
        "[images.console]",
        '[clone]\nexclude = ["/etc"]\n[images.console]',
        "clone.exclude[0]",
        "do wi",
    ),
    (
        "[images.console]",
        '[clone]\nexclude = ["/var"]\n[images.console]',
        "clone.exclude[0]",
        "do wi",
    ),
    ("[images.console]", '[clone]\nlayout = "zfs"\n[images.console]', "clone.layout", "is none of"),
    (
        "[images.console]",
        '[clone]\nmirror = "yes"\n[images.console]',
        "clone.mirror",
        "must be true",
    ),
    # name and time servers
    ("[dns]\nservers = [", '[dns]\nservers = ["10.77.2.9", ', "dns.servers[0]", "handed out"),
    ("[dns]\nservers = [", '[dns]\nservers = ["127.0.0.1", ', "dns.servers[0]", "can ask"),
    ("[dns]\nservers = [", '[dns]\nservers = ["ns.example", ', "dns.servers[0]", "is not an IPv4"),
    ("[dns]\nservers = [", '[dns]\nservers = ["192.168.77.1", ', "dns.servers[1]", "given twice"),
    ("[dns]\nservers = [", '[dns]\nservers = ["10.78.0.255", ', "dns.servers[0]", "broadcast"),
    ("[time]\nservers = [", '[time]\nservers = ["a b", ', "time.servers[0]", "is not a host name"),
    ("[time]\nservers = [", '[time]\nservers = ["10.77.1.9", ', "time.servers[0]", "handed out"),
]

FILES = [
    ('{source = "a", target = "etc/a"}', "files[0].target", "is not an absolute path"),
    ('{source = "a", target = "/etc/../a"}', "files[0].target", "is not a plain path"),
    ('{source = "a", target = "/etc/a/"}', "files[0].target", "is not a plain path"),
    ('{source = "a", target = "/run/a"}', "files[0].target", "filled when a station runs"),
    ('{source = "/etc/shadow", target = "/a"}', "files[0].source", "leads out of"),
    ('{source = "a/../../b", target = "/a"}', "files[0].source", "leads out of"),
    ('{source = "a", target = "/a", mode = 644}', "files[0].mode", "must be text"),
    ('{source = "a", target = "/a", mode = "888"}', "files[0].mode", "is not a file mode"),
    ('{source = "a", target = "/a", owner = "x"}', "files[0].owner", "is no key"),
    ('{source = "a"}', "files[0].target", "is missing"),
    ('{source = "a", target = "/a"}, {source = "b", target = "/a"}', "files[1].target", "is also"),
    ('{source = "a", target = "/a"}, {source = "b", target = "/a/b"}', "files[1].target", "below"),
]


def problems(text: str) -> list[str]:
    """What is said about ``text``, one line per problem."""
    with pytest.raises(SiteError) as caught:
        parse(text.encode())
    error = caught.value
    assert error.exit_code == 2
    return [f"{p.where}: {p.value} {p.message}; {p.allowed}" for p in error.problems]


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize(("old", "new", "where", "says"), [row for row in ROWS if row[3]])
def test_a_mistake_is_found(old: str, new: str, where: str, says: str) -> None:
    assert old in PAIR
    said = problems(PAIR.replace(old, new, 1))
    there = [line for line in said if line.startswith((f"{where} (line ", f"{where}: "))]
    assert there, said
    assert any(says in line for line in there), there


@pytest.mark.parametrize(("old", "new", "where", "says"), [row for row in ROWS if row[3] is None])
def test_no_mistake(old: str, new: str, where: str, says: None) -> None:
    assert parse(PAIR.replace(old, new, 1).encode()).name == "pair"


@pytest.mark.parametrize(("files", "where", "says"), FILES)
def test_a_mistake_in_an_images_files_is_found(files: str, where: str, says: str) -> None:
    said = problems(PAIR.replace("packages = []", f"packages = []\nfiles = [{files}]"))
    assert [line for line in said if line.startswith(f"images.console.{where}") and says in line]
    assert len(said) == 1


def test_the_line_is_that_of_the_key() -> None:
    text = PAIR.replace(ALPHA, 'stations = "10.79.0.11"')
    said = problems(text)
    assert said[0].startswith(f"servers[0].stations (line {line_of(text, '10.79.0.11')}):")


def test_the_line_of_what_is_missing_is_that_of_its_table() -> None:
    said = problems(PAIR.replace(ALPHA, ""))
    assert said[0].startswith(f"servers[0].stations (line {line_of(PAIR, '[[servers]]')}):")


def test_all_problems_are_found_at_once_and_in_the_order_of_the_file() -> None:
    text = (
        PAIR.replace("Europe/Berlin", "Europe/Berln")
        .replace(ALPHA, 'station = "10.77.0.11"')
        .replace('name = "beta"', 'name = "alpha"')
        .replace("weight = 1\n", "weight = nan\n")
        .replace("77:00:02", "77:00:01")
        .replace("lease = 3600", "lease = 1")
        .replace('suite = "bookworm"', 'suite = "sid"')
    )
    said = problems(text)
    assert [line.split(" ")[0] for line in said] == [
        "site.timezone",
        "servers[0].stations",
        "servers[0].weight",
        "servers[0].station",
        "servers[1].name",
        "servers[1].weight",
        "stations.lease",
        "stations.known[1].mac",
        "images.console.suite",
    ]


def test_a_wrong_value_is_not_reported_as_missing_too() -> None:
    assert len(problems(PAIR.replace(ALPHA, 'stations = "x"'))) == 1


def test_nobody_to_serve_is_a_problem() -> None:
    text = PAIR.replace(STATIONS, "").replace(GUESTS, "").replace("guests = true", "guests = false")
    assert any("no station to serve" in line for line in problems(text))


def test_a_misspelt_image_is_one_problem_not_two() -> None:
    assert len(problems(PAIR.replace('image = "console"', 'image = "consle"'))) == 1


def test_a_stations_own_address_may_lie_in_the_known_range() -> None:
    text = PAIR.replace(WS01, WS01 + '\naddress = "10.77.1.170"')
    site = parse(text.encode())
    assert str(site.stations[0].address) == "10.77.1.170"
    # where ws02's hash points; ws02 has moved to another one
    assert len({station.address for station in site.stations}) == 5


def test_the_longest_command_line_that_is_allowed_fits_the_kernel() -> None:
    """As the boot script has it, with everything that iPXE fills in at its longest."""
    more = "".join(
        f'[[servers]]\nname = "s{n}"\nlan = "192.168.77.{n}"\nstations = "10.177.0.{n}"\n'
        for n in range(100, 130)
    )
    text = (PAIR + more).replace("10.77.", "10.177.").replace(WS01, f'name = "{"w" * 63}"')
    room = 2047 - 460 - 16 * 32
    arguments = ", ".join(f'"{"a" * length}"' for length in (400, 400, room - 803))
    site = parse(text.replace('"console=ttyS0,115200"', arguments).encode())
    image = BootImage("console", "d" * 64, "e" * 64, 2**40, seal=True)
    line = command_line(
        [Source(server.name, server.stations) for server in site.servers],
        image,
        mac=site.stations[0].mac,
        name=site.stations[0].name,
        dns=[IPv4Address("255.255.255.255")] * 3,
        extra=site.defaults.kernel_args,
    )
    for setting in ("ip", "gateway", "netmask"):
        line = line.replace(f"${{netX/{setting}}}", "255.255.255.255")
    assert "$" not in line
    assert 1900 < len(line) <= 2047
    longer = text.replace('"console=ttyS0,115200"', arguments + ', "b"')
    assert any("are too long together" in said for said in problems(longer))


def test_no_host_has_a_guests_name() -> None:
    guest = guest_name("52:54:00:77:00:09")
    said = problems(PAIR.replace(WS01, f'name = "{guest}"'))
    assert any("guests are given" in line for line in said)


def test_what_is_said_of_joins_and_copies_is_in_the_site() -> None:
    clone = '[clone]\nexclude = ["/srv/scratch"]\nlayout = "btrfs"\nmirror = true\n'
    text = PAIR.replace(ALPHA, ALPHA + '\nmac = "52-54-00-77-01-0A"')
    text = text.replace(
        "[images.console]", clone + '[images.i]\nrole = "installer"\n[images.console]'
    )
    site = parse(text.encode())
    assert site.server("alpha").mac == "52:54:00:77:01:0a"
    assert site.server("beta").mac is None
    assert site.clone == CloneRules(("/srv/scratch",), "btrfs", mirror=True)
    assert site.installer is not None
    assert site.installer.name == "i"
    plain = parse(PAIR.encode())
    assert plain.clone == CloneRules()
    assert plain.installer is None


def test_no_two_servers_is_no_mistake() -> None:
    second = PAIR.index("[[servers]]", PAIR.index("[[servers]]") + 1)
    site = parse((PAIR[:second] + PAIR[PAIR.index("[stations]") :]).encode())
    assert [server.name for server in site.servers] == ["alpha"]
