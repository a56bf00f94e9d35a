"""Who is stopped for the last pass, and who never is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ets.clone.quiesce import stops, writers


@pytest.mark.parametrize(
    ("unit", "stopped"),
    [
        ("mariadb.service", True),
        ("cups.service", True),
        ("smbd.service", True),
        ("session-3.scope", True),
        ("user@1000.service", True),
        ("systemd-nspawn@box.service", True),
        ("kea-dhcp4-server.service", False),
        ("nginx.service", False),
        ("ets-agent.service", False),
        ("ets-blocks@x.service", False),
        ("chrony.service", False),
        ("tftpd-hpa.service", False),
        ("ssh.service", False),
        ("sshd@3-10.0.0.1:22.service", False),
        ("systemd-journald.service", False),
        ("dbus.service", False),
        ("corosync.service", False),
        ("pacemaker.service", False),
    ],
)
def test_units(unit: str, stopped: bool) -> None:
    assert stops(unit) is stopped


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    for path in (
        "init.scope",
        "system.slice/cups.service",
        "system.slice/nginx.service",
        "system.slice/system-postgresql.slice/postgresql@15-main.service",
        "user.slice/user-1000.slice/session-1.scope",
        "user.slice/user-1000.slice/user@1000.service/app.slice/editor.service",
        "user.slice/user-0.slice/session-2.scope",
        "user.slice/user-0.slice/user@0.service/app.slice/ours.service",
        "user.slice/user-0.slice/user@0.service/app.slice/other.service",
    ):
        (tmp_path / path).mkdir(parents=True)
    return tmp_path


def test_writers_as_high_as_possible(groups: Path) -> None:
    found = [str(path.relative_to(groups)) for path in writers(groups, [])]
    assert found == [
        "system.slice/cups.service",
        "system.slice/system-postgresql.slice/postgresql@15-main.service",
        "user.slice/user-0.slice/session-2.scope",
        "user.slice/user-0.slice/user@0.service",
        "user.slice/user-1000.slice/session-1.scope",
        "user.slice/user-1000.slice/user@1000.service",
    ]


def test_never_what_holds_us(groups: Path) -> None:
    user = "user.slice/user-0.slice"
    own = [
        groups / user / "user@0.service/app.slice/ours.service",
        groups / user / "session-2.scope",
    ]
    found = [str(path.relative_to(groups)) for path in writers(groups, own)]
    assert f"{user}/user@0.service/app.slice/other.service" in found
    assert not any("ours" in path or "session-2" in path for path in found)
    assert f"{user}/user@0.service" not in found
