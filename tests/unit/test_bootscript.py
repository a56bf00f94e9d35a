"""Boot scripts: every server, in the station's order, for everything, for ever."""

from __future__ import annotations

import re
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ets.cluster import bootscript
from ets.cluster.bootscript import BootImage, Source
from ets.cluster.mac import hyphens, parse

IMAGE = BootImage("console", "ab" * 32, "cd" * 32, 1234)
MAC = "52:54:00:77:00:01"
SOURCES = [
    Source("beta", IPv4Address("10.77.0.12")),
    Source("alpha", IPv4Address("10.77.0.11")),
]

sources = st.lists(
    st.integers(1, 254).map(lambda n: Source(f"s{n}", IPv4Address(f"10.0.0.{n}"))),
    min_size=1,
    max_size=8,
    unique=True,
)
macs = (
    st.integers(1, 2**48 - 1)
    .map(lambda n: f"{n & ~(1 << 40):012x}")
    .map(lambda text: ":".join(re.findall("..", text)))
)


def addresses(line: str) -> list[str]:
    return re.findall(r"http://([0-9.]+)/", line)


@given(sources=sources)
def test_everything_is_asked_of_every_server_in_order(sources: list[Source]) -> None:
    script = bootscript.boot(sources, IMAGE, mac=MAC, name="ws01")
    wanted = [str(source.address) for source in sources]
    lines = script.splitlines()
    for command in ("kernel", "initrd"):
        fetching = [line for line in lines if line.startswith(command)]
        assert [addresses(line) for line in fetching] == [[address] for address in wanted]
        assert all("--timeout" in line for line in fetching)
    (chain,) = [line for line in lines if line.startswith("chain")]
    assert addresses(chain) == wanted
    assert chain.count("--timeout") == len(sources)
    servers = re.search(r"ets\.servers=(\S+)", script)
    assert servers is not None
    assert servers[1].split(",") == wanted


@given(sources=sources)
def test_no_way_leads_out_of_a_script(sources: list[Source]) -> None:
    """Every command that may fail is caught, and the last line goes back: iPXE ends a script, and
    the firmware takes the next boot device, at the first command that fails uncaught."""
    boot = bootscript.boot(sources, IMAGE, mac=None, name="guest")
    refused = bootscript.refuse(sources, mac=None, reason="no")
    never_failing = re.compile(r"#|:|echo|set |imgargs|goto (again|loaded)$")
    for script in (boot, refused):
        lines = script.splitlines()
        assert lines[0] == "#!ipxe"
        assert lines[-1] == "goto again"
        assert ":again" in lines
        for line in lines:
            assert never_failing.match(line) or "||" in line, line
            for label in re.findall(r"goto (\w+)", line):
                assert f":{label}" in lines


def test_the_command_line() -> None:
    dns = [IPv4Address(f"192.168.77.{number}") for number in (1, 2, 3)]
    script = bootscript.boot(
        SOURCES, IMAGE, mac=MAC, name="ws01", dns=dns, kernel_args=["quiet", "a=b"]
    )
    line = next(line for line in script.splitlines() if line.startswith("imgargs"))
    assert line.split() == [
        "imgargs",
        "vmlinuz",
        "initrd=initrd.img",
        "ip=${netX/ip}::${netX/gateway}:${netX/netmask}:ws01:eth0:off:192.168.77.1:192.168.77.2",
        "BOOTIF=01-52-54-00-77-00-01",
        "ets.servers=10.77.0.12,10.77.0.11",
        f"ets.root={'cd' * 32}",
        "ets.blocks=1234",
        f"ets.digest={'ab' * 32}",
        "root=/dev/nbd0",
        "ro",
        "quiet",
        "a=b",
    ]


def test_a_seal_and_other_ports_are_told() -> None:
    sealed = BootImage("console", "ab" * 32, "cd" * 32, 1, seal=True)
    source = Source("alpha", IPv4Address("10.77.0.11"), http=8080, nbd=10810)
    script = bootscript.boot([source], sealed, mac=MAC, name="ws01")
    assert "ets.seal=1\n" in script
    assert "ets.servers=10.77.0.11:10810 " in script
    assert "http://10.77.0.11:8080/images/" in script


def test_a_script_for_anybody_lets_ipxe_fill_in_the_mac() -> None:
    script = bootscript.boot(SOURCES, IMAGE, mac=None, name="guest")
    assert "BOOTIF=01-${netX/mac:hexhyp}" in script
    assert "/boot/${netX/mac:hexhyp}.ipxe" in script


@given(text=st.text())
def test_no_reason_can_become_a_command(text: str) -> None:
    script = bootscript.refuse(SOURCES, mac=MAC, reason=text)
    calm = bootscript.refuse(SOURCES, mac=MAC, reason="")
    assert len(script.splitlines()) == len(calm.splitlines())
    echo = script.splitlines()[3]
    assert echo.startswith("echo ETS: ")
    assert not set("$|&\\\"'`{}") & set(echo)


@given(mac=macs)
def test_a_mac_survives_its_spellings(mac: str) -> None:
    if mac == "00:00:00:00:00:00":
        assert parse(mac) is None
        return
    assert parse(mac) == mac
    assert parse(hyphens(mac)) == mac
    assert parse(mac.upper()) == mac


@pytest.mark.parametrize(
    "text",
    [
        "",
        "52:54:00:77:00",
        "52:54:00:77:00:01:02",
        "52-54:00:77:00:01",
        "525400770001",
        "52:54:00:77:00:0g",
        "52:54:00:77:00:01\n",
        " 52:54:00:77:00:01",
        "53:54:00:77:00:01",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
        "５2:54:00:77:00:01",
        "../../etc/passwd",
    ],
)
def test_what_is_no_station_s_mac(text: str) -> None:
    assert parse(text) is None


@given(text=st.text(max_size=40))
def test_any_text_is_a_canonical_mac_or_none(text: str) -> None:
    parsed = parse(text)
    assert parsed is None or re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", parsed)
