"""The daemons' own checkers on what ETS writes: all examples' servers, staged as apply does it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path, PurePosixPath

import pytest
from tests.daemons.box import Box, Machine

from ets import services
from ets.host.run import Completed
from ets.plan.desired import Desired
from ets.site.load import read
from ets.site.model import Server, Site

pytestmark = [pytest.mark.root, pytest.mark.daemons]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STAGED = PurePosixPath("/var/lib/ets/staged")
SERVERS = [
    (path, server.name) for path in sorted(EXAMPLES.glob("*.toml")) for server in read(path).servers
]
#: a change that each checker has to refuse
DAMAGES = {
    "dhcp": ("/etc/kea/kea-dhcp4.conf", b'"valid-lifetime"', b'"valid-lifetimes"'),
    "tftp": ("/etc/systemd/system/tftpd-hpa.service", b"/usr/sbin/in.tftpd", b"/usr/sbin/tftpd"),
    "http": ("/etc/nginx/nginx.conf", b"server_tokens", b"server_tokenz"),
    "blocks": ("/etc/systemd/system/ets-blocks.service", b"/usr/bin/nbdkit", b"/usr/bin/nbdkat"),
    "time": ("/etc/chrony/chrony.conf", b"makestep", b"makestop"),
    "firewall": ("/etc/nftables.conf", b"accept", b"except"),
    "join": ("/etc/pam.d/ets-clone-sshd", b"pam_deny.so", b"pam_denied.so"),
    "agent": ("/etc/systemd/system/ets-agent.service", b"/usr/bin/ets", b"/usr/bin/etz"),
}


def plugged(box: Box, site: Site, server: Server) -> Machine:
    """A machine with the networks of ``server``, as its administrator set them up."""
    machines: list[Machine] = []
    for role, address in server.addresses.items():
        net = site.networks[role]
        where = f"{address}/{net.subnet.prefixlen}"
        if machines:
            box.wire(machines[0], f"{server.name}-{role}", net.interface, where)
        else:
            machines.append(box.machine(f"{server.name}-{role}", net.interface, where))
    machines[0].write("/usr/bin/ets", b"#!/bin/sh\n")
    machines[0].inside("chmod", "755", "/usr/bin/ets")
    return machines[0]


def stage(machine: Machine, desired: Desired) -> None:
    """What apply stages before it asks the checkers."""
    for file in desired.files:
        machine.write(f"{STAGED}{file.path}", file.content)


def checked(machine: Machine, name: str) -> Iterator[Completed]:
    """The outcome of every checker of the service."""
    service = next(service for service in services.load() if name == service.NAME)
    for command in service.validators(STAGED):
        yield machine.inside(*command.argv, check=False)


@pytest.mark.parametrize(("example", "name"), SERVERS, ids=lambda v: getattr(v, "stem", v))
def test_every_checker_accepts_what_ets_writes(tmp_path: Path, example: Path, name: str) -> None:
    site = read(example)
    server = site.server(name)
    with Box(tmp_path) as box:
        machine = plugged(box, site, server)
        stage(machine, services.desired(site, server))
        for service in services.of(site, server):
            for outcome in checked(machine, service.NAME):
                said = (outcome.stdout + outcome.stderr).decode()
                assert outcome.status == 0, f"{service.NAME}: {outcome.command}\n{said}"


def test_every_checker_refuses_a_damaged_file(tmp_path: Path) -> None:
    site = read(EXAMPLES / "pair.toml")
    server = site.server("alpha")
    desired = services.desired(site, server)
    contents = {file.path: file.content for file in desired.files}
    assert set(DAMAGES) == {service.NAME for service in services.load()}
    with Box(tmp_path) as box:
        machine = plugged(box, site, server)
        stage(machine, desired)
        for name, (path, right, wrong) in DAMAGES.items():
            assert right in contents[path]
            machine.write(f"{STAGED}{path}", contents[path].replace(right, wrong))
            outcomes = list(checked(machine, name))
            assert any(outcome.status != 0 for outcome in outcomes), f"{name} took {path}"
            machine.write(f"{STAGED}{path}", contents[path])


def test_a_staged_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    site = read(EXAMPLES / "one-server.toml")
    with Box(tmp_path) as box:
        machine = plugged(box, site, site.servers[0])
        for service in services.load():
            assert any(outcome.status != 0 for outcome in checked(machine, service.NAME)), (
                f"{service.NAME} found nothing wrong with no file at all"
            )


def test_the_networks_of_the_examples_are_apart() -> None:
    """The machines of one box share a switch; that tells nothing if subnets overlap."""
    for path, _ in SERVERS:
        nets: list[IPv4Network] = [net.subnet for net in read(path).networks.values()]
        assert not any(a.overlaps(b) for a in nets for b in nets if a is not b)
