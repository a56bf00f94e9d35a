"""Plan, apply and verify on booted servers, with the real daemons: every server of every example,
killed at any moment, with a port taken, and taken back whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.drills.lab_tools import lab_name, leftovers

from ets.facts.observe import observe
from ets.host.deadline import Deadline, wait_for
from ets.host.transport import Host
from ets.lab.lab import Lab, each
from ets.lab.server import LabServer
from ets.plan import plan as plans
from ets.plan.apply import apply
from ets.plan.desired import Desired
from ets.plan.journal import read_owned
from ets.plan.owned import Owned

pytestmark = [pytest.mark.root, pytest.mark.daemons]

EXAMPLES = Path(__file__).parents[2] / "examples"
APPLY = 240.0


@pytest.fixture
def booted(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The servers of an example, booted and not yet applied."""
    name = lab_name("a")
    site = EXAMPLES / getattr(request, "param", "one-server.toml")
    with Lab.up(site, name=name, apply=False) as lab:
        yield lab
    assert leftovers(name) == []


def plan_of(host: Host) -> list[str]:
    """What ``ets plan`` would do there."""
    plan: dict[str, Any] = json.loads(host.run(["ets", "plan", "--json"]).text)
    return [f"{step['verb']} {step['target']}" for step in plan["steps"]]


def applied_and_well(host: Host) -> None:
    """Its own ``ets apply`` ends well, ``ets verify`` finds nothing, nothing is left to do."""
    host.run(["ets", "apply", "--yes"], deadline=APPLY)
    found = host.run(["ets", "verify", "--json"], check=False)
    verified = json.loads(found.text)
    failed = [probe for probe in verified["probes"] if not probe["well"]]
    assert (found.status, verified["drift"], failed) == (0, [], []), host.name
    assert len(verified["probes"]) > 5
    assert plan_of(host) == []
    assert host.run(["ets", "apply", "--yes"]).text.strip() == f"{host.name}: nothing to do"


@pytest.mark.parametrize(
    "booted", sorted(path.name for path in EXAMPLES.glob("*.toml")), indirect=True
)
def test_plan_apply_verify_plan(booted: Lab) -> None:
    def well(server: LabServer) -> None:
        before = server.host.run(["ets", "verify", "--seconds", "0"], check=False)
        assert before.status == 1, before.text
        applied_and_well(server.host)

    each(well, booted.servers.values())


def test_killed_at_any_moment(booted: Lab) -> None:
    """ETS is killed again and again, a little later each time; what it had started goes on."""
    host = only(booted).host
    killed = 0
    for tenths in range(3, 60, 3):
        done = host.run(
            ["timeout", "--signal=KILL", str(tenths / 10), "ets", "apply", "--yes"],
            check=False,
            deadline=APPLY,
        )
        if done.status == 0:
            break
        killed += 1
        # 1: the one before left a systemctl or dpkg behind that this one had to wait for
        assert done.status in (137, -9), done.text + done.stderr.decode()
    assert killed > 2
    applied_and_well(host)
    owned = read_owned(host)
    assert (owned.plan, owned.due, owned.prepared) == ("", {}, ())


def test_a_taken_port_is_said_and_spoils_nothing_else(booted: Lab) -> None:
    host = only(booted).host
    squatter = "import socket, time; s = socket.create_server(('0.0.0.0', 80)); time.sleep(600)"
    host.run(["systemd-run", "--unit=squatter", "python3", "-c", squatter])
    wait_for("port 80 to be taken", lambda: "squatter" in units(host), Deadline(10))
    done = host.run(["ets", "apply", "--yes"], check=False, deadline=APPLY)
    said = done.stderr.decode()
    assert done.status == 1
    assert "nginx.service does not start" in said
    assert "Address already in use" in said
    verified = json.loads(host.run(["ets", "verify", "--json", "--seconds", "5"], check=False).text)
    well = [probe["name"] for probe in verified["probes"] if probe["well"]]
    assert any("nbdkit" in name for name in well)
    assert any("kea" in name for name in well)
    host.run(["systemctl", "stop", "squatter"])
    # systemd may have started nginx itself by now: then nothing is left to do
    assert set(plan_of(host)) <= {"start nginx.service", "restart nginx.service"}
    applied_and_well(host)


def test_drift_is_found_shown_and_mended(booted: Lab) -> None:
    host = only(booted).host
    applied_and_well(host)
    host.append("/etc/nginx/nginx.conf", b"# by hand\n")
    host.run(["systemctl", "stop", "chrony.service"])
    host.run(["systemctl", "disable", "ets-blocks.socket"])
    host.remove("/srv/tftp/undionly.kpxe")
    found = host.run(["ets", "verify", "--seconds", "0"], check=False)
    assert found.status == 1
    assert "-# by hand" in found.text
    assert plan_of(host) == [
        "change /etc/nginx/nginx.conf",
        "create /srv/tftp/undionly.kpxe",
        "enable ets-blocks.socket",
        "restart nginx.service",
        "start chrony.service",
    ]
    applied_and_well(host)


def test_all_of_it_is_taken_back(booted: Lab) -> None:
    host = only(booted).host
    names = ["/etc/nginx/nginx.conf", "/etc/chrony/chrony.conf", "/etc/kea/kea-dhcp4.conf"]
    before = host.look(names)
    enabled = units(host, "list-unit-files", "--state=enabled")
    applied_and_well(host)
    assert not set(host.look(names).items()) & set(before.items())
    owned = read_owned(host)
    nothing = Desired()
    plan = plans.make(
        site="",
        server=host.name,
        desired=nothing,
        observed=observe(host, nothing, owned),
        owned=owned,
        validators=lambda _root: [],
        created="",
    )
    apply(plan, host)
    assert host.look(names) == before
    assert units(host, "list-unit-files", "--state=enabled") == enabled
    assert read_owned(host) == Owned()
    running = units(host)
    for daemon in ("nginx", "kea", "tftpd", "ets-agent", "ets-blocks"):
        assert daemon not in running


def units(host: Host, *words: str) -> str:
    """What systemctl lists there; its status is 1 for an empty list."""
    listing = words or ("list-units", "--type=service,socket", "--state=active")
    done = host.run(["systemctl", "--no-legend", "--plain", *listing], check=False)
    assert done.status == 0 or not done.text + done.stderr.decode(), done
    return done.text


def only(lab: Lab) -> LabServer:
    (server,) = lab.servers.values()
    return server
