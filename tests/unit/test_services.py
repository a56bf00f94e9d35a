"""The services as a whole: one shape, no quarrels, and what each of them promises."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from inspect import signature
from ipaddress import IPv4Address
from pathlib import Path, PurePosixPath

import pytest
from click.testing import CliRunner

from ets import paths, services
from ets.cli.render import command as render_command
from ets.errors import InputError
from ets.plan.desired import Desired
from ets.plan.tree import MANIFEST, render
from ets.services import agent, blocks, firewall, http, tftp, time
from ets.site.load import read
from ets.site.model import Server, Site

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FUNCTIONS = ("enabled", "check", "desired", "validators", "probes")
SITES = {path.stem: read(path) for path in sorted(EXAMPLES.glob("*.toml"))}
EVERY = [(site, server) for site in SITES.values() for server in site.servers]
PAIR = SITES["pair"]
ALPHA = PAIR.server("alpha")


def content(wanted: Desired, path: str) -> str:
    """The one file of that path."""
    (file,) = (file for file in wanted.files if file.path == path)
    return file.content.decode()


def without(site: Site, role: str) -> Site:
    """The site as if it had no network of that role."""
    return replace(
        site,
        networks={name: net for name, net in site.networks.items() if name != role},
        servers=tuple(
            replace(s, addresses={name: a for name, a in s.addresses.items() if name != role})
            for s in site.servers
        ),
    )


@pytest.mark.parametrize("service", services.load(), ids=lambda service: service.NAME)
def test_every_service_has_the_one_shape(service: services.Service) -> None:
    file = Path(str(vars(service)["__file__"]))
    assert file.stem == service.NAME
    defined = [
        node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    assert [name for name in defined if name in FUNCTIONS] == list(FUNCTIONS)
    for name in FUNCTIONS:
        expected = list(signature(getattr(services.Service, name)).parameters)[1:]
        assert list(signature(vars(service)[name]).parameters) == expected


def test_parts_of_services_are_no_services() -> None:
    names = {service.NAME for service in services.load()}
    assert names == {"agent", "blocks", "dhcp", "firewall", "http", "join", "tftp", "time"}


@pytest.mark.parametrize(("site", "server"), EVERY, ids=lambda v: v.name)
def test_services_agree_and_name_what_they_use(site: Site, server: Server) -> None:
    wanted = services.desired(site, server)
    assert services.desired(site, server) == wanted
    written = {file.path for file in wanted.files}
    for unit in wanted.units:
        assert set(unit.restart_on) <= written
    for path in written | {place.path for place in wanted.directories}:
        assert str(PurePosixPath(path)) == path
        assert path.startswith("/")
    assert not any(list(service.check(site)) for service in services.load())


@pytest.mark.parametrize(("site", "server"), EVERY, ids=lambda v: v.name)
def test_validators_and_probes_name_files_below_the_root_and_own_addresses(
    site: Site, server: Server
) -> None:
    foreign = {str(a) for peer in site.peers(server.name) for a in peer.addresses.values()}
    root = PurePosixPath("/staged/here")
    for service in services.of(site, server):
        written = {file.path for file in service.desired(site, server).files}
        for check in service.validators(root):
            named = {
                word.removeprefix(str(root)) for word in check.argv if word.startswith(str(root))
            }
            assert named <= written
            assert not written & set(check.argv), "a validator looked at the live file"
        probes = service.probes(site, server)
        assert probes
        for probe in probes:
            assert not foreign & {probe.address, *probe.argv}


def test_no_secret_is_in_any_file() -> None:
    """Boot files and configurations are readable by anyone on the server."""
    for site, server in EVERY:
        for file in services.desired(site, server).files:
            assert b"PRIVATE KEY" not in file.content
            assert str(paths.SITE_SECRET).encode() not in file.content


def test_daemons_of_the_stations_listen_on_their_network_alone() -> None:
    for site, server in EVERY:
        own = str(server.stations)
        assert re.findall(r"listen (\S+)", content(http.desired(site, server), http.CONFIG)) == [
            f"{own}:80"
        ]
        sockets = content(blocks.desired(site, server), blocks.SOCKET_FILE)
        assert f"ListenStream={own}:10809\n" in sockets
        assert f'TFTP_ADDRESS="{own}:69"\n' in content(tftp.desired(site, server), tftp.DEFAULTS)


def test_the_firewall_lets_peers_alone_to_the_agents() -> None:
    rules = content(firewall.desired(PAIR, ALPHA), firewall.CONFIG)
    for line in rules.splitlines():
        if "8471" in line or "8472" in line:
            assert re.search(r"ip saddr \{ (192\.168\.77\.12|10\.77\.0\.12) \}", line)
    assert rules.count("8472") == 2
    assert rules.count("policy drop") == 2


def test_ssh_is_closed_to_stations_and_the_compute_array_unless_there_is_no_lan() -> None:
    rules = content(firewall.desired(PAIR, ALPHA), firewall.CONFIG)
    assert 'iifname != { "eth1", "eth2" } tcp dport 22 accept' in rules
    lanless = without(PAIR, "lan")
    rules = content(firewall.desired(lanless, lanless.server("alpha")), firewall.CONFIG)
    assert 'iifname != { "eth2" } tcp dport 22 accept' in rules
    assert 'iifname "eth1" ip saddr { 10.77.0.12 } tcp dport 8471 accept' in rules
    bare = without(lanless, "compute")
    rules = content(firewall.desired(bare, bare.server("alpha")), firewall.CONFIG)
    assert "        tcp dport 22 accept" in rules


def test_a_single_server_opens_nothing_for_peers() -> None:
    site = SITES["one-server"]
    rules = content(firewall.desired(site, site.servers[0]), firewall.CONFIG)
    assert "8471" not in rules
    assert "8472" not in rules
    assert "{  }" not in rules


def test_chrony_takes_names_as_pools_and_addresses_as_servers() -> None:
    site = replace(PAIR, time=("192.168.77.1", "0.debian.pool.ntp.org"))
    config = content(time.desired(site, ALPHA), time.CONFIG).splitlines()
    assert "server 192.168.77.1 iburst" in config
    assert "pool 0.debian.pool.ntp.org iburst" in config
    assert "peer 192.168.77.12" in config
    alone = replace(PAIR, time=())
    config = content(time.desired(alone, ALPHA), time.CONFIG).splitlines()
    assert "local stratum 10 orphan" in config
    assert not any(line.startswith(("server ", "pool ")) for line in config)


def test_a_server_of_the_site_is_no_time_server_of_the_site() -> None:
    site = replace(PAIR, time=("192.168.77.1", "10.77.0.12", "ntp.example"))
    (problem,) = time.check(site)
    assert problem.where == "time.servers[1]"
    assert problem.value == "10.77.0.12"
    assert "beta" in problem.message


def test_the_agent_starts_again_when_another_site_file_is_applied() -> None:
    before = agent.desired(PAIR, ALPHA)
    after = agent.desired(replace(PAIR, digest="another"), ALPHA)
    changed = {
        one.path for one, other in zip(before.files, after.files, strict=True) if one != other
    }
    (unit,) = before.units
    assert changed
    assert changed <= set(unit.restart_on)


def test_render_lists_everything() -> None:
    wanted = services.desired(PAIR, ALPHA)
    manifest = render(wanted)[MANIFEST].decode()
    names = [
        *wanted.packages,
        *(account.name for account in wanted.accounts),
        *(unit.name for unit in wanted.units),
        *(place.path for place in wanted.directories),
        *(file.path for file in wanted.files),
        *(copy.path for copy in wanted.copies),
    ]
    assert len(manifest.splitlines()) == len(names)
    for name in names:
        assert re.search(rf" {re.escape(name)}( |$)", manifest, re.MULTILINE), name


def test_ets_render_writes_the_tree(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = [str(EXAMPLES / "pair.toml"), "--server", "beta", "--out", str(out)]
    done = CliRunner().invoke(render_command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    kea = json.loads((out / "etc/kea/kea-dhcp4.conf").read_text())
    assert kea["Dhcp4"]["subnet4"][0]["next-server"] == "10.77.0.12"
    with pytest.raises(InputError, match="not an empty directory"):
        CliRunner().invoke(render_command, arguments, catch_exceptions=False)


def test_ets_render_names_the_servers_when_there_is_no_such_one(tmp_path: Path) -> None:
    arguments = [str(EXAMPLES / "pair.toml"), "--server", "gamma", "--out", str(tmp_path / "out")]
    with pytest.raises(InputError, match="no server 'gamma'") as caught:
        CliRunner().invoke(render_command, arguments, catch_exceptions=False)
    assert "alpha, beta" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_peers_are_reached_where_they_say(tmp_path: Path) -> None:
    """One address each, also where only some servers have a LAN."""
    mixed = replace(
        PAIR,
        servers=(
            ALPHA,
            replace(PAIR.server("beta"), addresses={"stations": IPv4Address("10.77.0.12")}),
        ),
    )
    config = content(time.desired(mixed, ALPHA), time.CONFIG)
    assert "peer 10.77.0.12\n" in config
