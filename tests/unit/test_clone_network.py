"""Network settings of one server given to another, in every language that Debian has for them, and
which card is on which network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ets.clone import cards, network
from ets.clone.cards import Card, assign
from ets.clone.network import Change
from ets.errors import CloneError
from ets.host.local import LocalHost
from ets.host.run import Completed
from ets.site.load import read
from ets.site.model import Role

SITE = read(Path(__file__).parents[2] / "examples/pair.toml")
NICS: dict[Role, str] = {"lan": "52:54:00:00:00:01", "stations": "52:54:00:00:00:02"}
CHANGE = Change(SITE, SITE.server("alpha"), SITE.server("beta"), NICS)
ROLES: tuple[Role, ...] = ("lan", "stations", "compute")

NETPLAN = """\
network:
  version: 2
  ethernets:
    eth0:
      match:
        macaddress: 52:54:00:AA:00:01
      set-name: eth0
      addresses: [192.168.77.11/24]
      routes:
        - to: default
          via: 192.168.77.1
    eth1:
      match:
        macaddress: "52:54:00:aa:00:02"
      set-name: eth1
      addresses:
        - 10.77.0.11/22
    spare:
      match:
        macaddress: 52:54:00:aa:00:09
"""
MANAGER = """\
[connection]
id=stations
type=ethernet
interface-name=eth1

[ethernet]
mac-address=52:54:00:AA:00:02

[ipv4]
address1=10.77.0.11/22
address2=10.9.9.9/24
method=manual

[ipv6]
address1=2001:db8::11/64
"""
RULES = """\
# PCI device
SUBSYSTEM=="net", ATTR{address}=="52:54:00:aa:00:01", NAME="eth0"
SUBSYSTEM=="net", ATTR{address}=="52:54:00:aa:00:02", NAME="eth1"
"""
NETWORKD = """\
[Match]
MACAddress=52-54-00-aa-00-01

[Network]
Address=192.168.77.11/24
Gateway=192.168.77.1
DNS=192.168.77.111
"""


def changed(*texts: str) -> tuple[list[str], Change]:
    change = replace(CHANGE, macs=network.learn(texts, CHANGE))
    return [network.readdress(text, change) for text in texts], change


def test_netplan() -> None:
    (text,), change = changed(NETPLAN)
    assert "macaddress: 52:54:00:00:00:01" in text
    assert 'macaddress: "52:54:00:00:00:02"' in text
    assert "[192.168.77.12/24]" in text
    assert "- 10.77.0.12/22" in text
    assert "via: 192.168.77.1\n" in text
    assert list(network.strangers(text, change)) == ["the network card 52:54:00:aa:00:09"]


def test_network_manager() -> None:
    (text,), change = changed(MANAGER)
    assert "mac-address=52:54:00:00:00:02" in text
    assert "address1=10.77.0.12/22" in text
    assert list(network.strangers(text, change)) == [
        "the address 10.9.9.9",
        "the address 2001:db8::11",
    ]


def test_old_udev_rules_and_networkd() -> None:
    (rules, unit), change = changed(RULES, NETWORKD)
    assert 'ATTR{address}=="52:54:00:00:00:01", NAME="eth0"' in rules
    assert 'ATTR{address}=="52:54:00:00:00:02", NAME="eth1"' in rules
    assert "MACAddress=52-54-00-00-00-01" in unit
    assert "Address=192.168.77.12/24" in unit
    assert "DNS=192.168.77.111" in unit
    assert list(network.strangers(unit, change)) == []


def test_a_second_run_changes_nothing() -> None:
    for text in (NETPLAN, MANAGER, RULES, NETWORKD):
        (once,), _ = changed(text)
        (twice,), _ = changed(once)
        assert once == twice


def test_a_card_in_doubt_is_left_alone() -> None:
    both = "[Match]\nMACAddress=52:54:00:aa:00:05\n[Link]\nName=eth0\n# not eth1\n"
    (text,), change = changed(both)
    assert text == both
    assert list(network.strangers(text, change)) == ["the network card 52:54:00:aa:00:05"]


def test_cards_get_their_names_unless_they_have_them() -> None:
    named = "[Match]\nMACAddress=52:54:00:00:00:01\n[Link]\nName=eth0\n"
    wanted = network.links({"/etc/systemd/network/10-lan.link": named}, CHANGE)
    assert list(wanted) == ["/etc/systemd/network/10-ets-stations.link"]
    assert list(network.links({}, CHANGE)) == [
        "/etc/systemd/network/10-ets-lan.link",
        "/etc/systemd/network/10-ets-stations.link",
    ]


@pytest.mark.parametrize(
    ("path", "text", "behind"),
    [
        ("/etc/network/interfaces", "iface eth1 inet static\n address 1.2.3.4\n", "eth1"),
        ("/etc/network/interfaces", "iface eth1 inet static\n bridge_ports enp3s0\n", "enp3s0"),
        ("/etc/network/interfaces", "iface eth1 inet static\n bond-slaves a b\n", ""),
        ("/etc/network/interfaces", "iface eth0 inet manual\n bridge_ports enp3s0\n", "eth1"),
        ("/etc/systemd/network/a.netdev", "[NetDev]\nName=eth1\nKind=bridge\n", ""),
        (
            "/etc/systemd/network/b.network",
            "[Match]\nName=enp4s0\n[Network]\nBridge=eth1\n",
            "eth1",
        ),
    ],
)
def test_the_card_behind_a_bridge(path: str, text: str, behind: str) -> None:
    assert network.port("eth1", {path: text}) == behind


def test_the_port_of_a_networkd_bridge() -> None:
    texts = {
        "/etc/systemd/network/a.netdev": "[NetDev]\nName=eth1\nKind=bridge\n",
        "/etc/systemd/network/b.network": "[Match]\nName=enp4s0\n[Network]\nBridge=eth1\n",
    }
    assert network.port("eth1", texts) == "enp4s0"


def test_the_card_that_it_booted_from_is_the_stations() -> None:
    found = [Card("enp1s0", "a"), Card("enp2s0", "b"), Card("enp3s0", "c")]
    assert assign(found, SITE, ROLES, "b") == {"stations": "b", "lan": "a", "compute": "c"}


def test_who_answers_decides_and_order_only_in_doubt() -> None:
    hears_lan = Card("enp3s0", "c", frozenset({"lan"}))
    found = [Card("enp1s0", "a"), Card("enp2s0", "b"), hears_lan]
    assert assign(found, SITE, ROLES, "a") == {"stations": "a", "lan": "c", "compute": "b"}
    named = [Card("eth2", "x"), Card("eth0", "y"), Card("eth1", "z")]
    assert assign(named, SITE, ROLES, "") == {"stations": "z", "lan": "y", "compute": "x"}
    deaf = [Card("enp1s0", "a"), hears_lan]
    assert assign(deaf, SITE, ("compute", "stations"), "a") == {"stations": "a"}


def test_a_machine_with_too_few_cards() -> None:
    assert assign([Card("enp1s0", "a")], SITE, ROLES, "a") == {"stations": "a"}
    with pytest.raises(CloneError, match="no network card"):
        assign([], SITE, ROLES, "")


class Machine(LocalHost):
    """A machine with three cards and a bridge. As Linux does, the server that is copied answers for
    all its addresses on every card: with the card on that cable."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Sequence[str]] = []
        self.cards = (
            '[{"ifname":"lo","link_type":"loopback","address":"00:00:00:00:00:00"},'
            '{"ifname":"br0","link_type":"ether","address":"52:54:00:00:00:07"},'
            '{"ifname":"ens5","link_type":"ether","address":"52:54:00:00:00:03"},'
            '{"ifname":"ens4","link_type":"ether","address":"52:54:00:00:00:02"},'
            '{"ifname":"ens3","link_type":"ether","address":"52:54:00:00:00:01"}]'
        )

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        deadline: float = 60.0,
        check: bool = True,
        hint: str = "",
    ) -> Completed:
        self.asked.append(argv)
        status, out = 0, ""
        if argv[:3] == ["ip", "-json", "link"]:
            out = self.cards
        elif argv[0] == "readlink":
            name = argv[-1].split("/")[4]
            status, out = (1, "") if name in ("br0", "lo2") else (0, f"/sys/devices/pci/{name}\n")
        elif argv[0] == "arping":
            on, address = argv[argv.index("-I") + 1], argv[-1]
            answering = {"ens5": "52:54:00:AA:00:00", "ens3": "52:54:00:AA:00:02"}[on]
            status, out = 1, f"Unicast reply from {address} [{answering}]  0.8ms\n"
        return Completed("", status, out.encode(), b"")


def test_cards_are_found_by_who_answers(tmp_path: Path) -> None:
    place = tmp_path / "etc/ets/site.toml"
    place.parent.mkdir(parents=True)
    place.write_bytes((Path(__file__).parents[2] / "examples/pair.toml").read_bytes())
    machine = Machine()
    known = {"eth0": "52:54:00:aa:00:00", "eth1": "52:54:00:aa:00:01", "eth2": "52:54:00:aa:00:02"}
    booted = "52:54:00:00:00:02"
    found = cards.cards(machine, tmp_path, "beta", booted, source="alpha", known=known)
    assert found == {
        "stations": "52:54:00:00:00:02",
        "lan": "52:54:00:00:00:03",
        "compute": "52:54:00:00:00:01",
    }
    probed = {argv[argv.index("-I") + 1] for argv in machine.asked if argv[0] == "arping"}
    assert probed == {"ens3", "ens5"}


def test_a_network_without_a_card_ends_the_installation(tmp_path: Path) -> None:
    place = tmp_path / "etc/ets/site.toml"
    place.parent.mkdir(parents=True)
    example = (Path(__file__).parents[2] / "examples/pair.toml").read_text()
    place.write_text(example.replace('"52:54:00:e7:01:01"', '"52:54:00:00:00:02"'))
    machine = Machine()
    machine.cards = machine.cards.replace('{"ifname":"ens3"', '{"ifname":"lo2"')
    with pytest.raises(CloneError, match="compute"):
        cards.cards(machine, tmp_path, "beta", "", source="alpha", known={})
