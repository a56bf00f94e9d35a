"""``ets ready`` on booted servers: it changes nothing, and finds what was put there to be found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.drills.lab_tools import lab_name, leftovers

from ets.host.transport import Host
from ets.lab.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.daemons]

PAIR = Path(__file__).parents[2] / "examples/pair.toml"
# Everything that is on the disk, with its contents' and its inode's times. Daemons go on living
# meanwhile, and nginx logs that it was asked.
TREE = (
    "find / -xdev -path /proc -prune -o -path /var/log/journal -prune -o "
    "-path /var/log/nginx -prune -o -path /tmp -prune -o "
    "-path /var/lib/chrony -prune -o -path /var/lib/ets -prune -o "
    "-printf '%p %y %m %U %G %s %T@ %C@\\n' | sort"
)
WRONG = r"""
set -e
chmod o+w /usr/bin/rsync
install -m 4755 /bin/true /usr/local/bin/helper
echo >>/usr/bin/deb-systemd-helper
sed -i '/^backdoor:/d' /etc/passwd /etc/shadow
echo 'backdoor:x:0:0::/root:/bin/sh' >>/etc/passwd
echo 'backdoor::19000:0:99999:7:::' >>/etc/shadow
umask 022; mkdir -p /etc/ssl/private
printf -- '-----BEGIN PRIVATE KEY-----\nnone\n-----END PRIVATE KEY-----\n' >/etc/ssl/private/web.key
systemctl disable --now tftpd-hpa.service
systemd-run --unit=squatter python3 -c \
  "import socket, time; s = socket.create_server(('0.0.0.0', 23)); time.sleep(600)"
systemd-run --unit=broken false || true
nft delete table inet ets
apt-mark hold nginx
sleep 1
"""
FOUND = {
    ("programs", "/usr/bin/rsync", "can be changed by everybody"),
    ("programs", "/usr/local/bin/helper", "no package brought it"),
    ("packaged", "/usr/bin/deb-systemd-helper", "is not what its package brought"),
    ("logins", "backdoor", "has no password"),
    ("logins", "backdoor", "is root under another name"),
    ("keys", "/etc/ssl/private/web.key", "everybody on this machine can read"),
    ("services", "tftpd-hpa.service", "does not start with the server"),
    ("services", "tftpd-hpa.service", "is inactive"),
    ("services", "broken.service", "has failed"),
    ("ports", "tcp *:23", "no service declared"),
    ("firewall", "firewall", "is off"),
    ("packages", "nginx", "is held back"),
}


@pytest.fixture
def host() -> Iterator[Host]:
    name = lab_name("r")
    with Lab.up(PAIR, name=name) as lab:
        yield lab.servers["alpha"].host
    assert leftovers(name) == []


def report(host: Host, *options: str) -> dict[str, list[dict[str, str]]]:
    """What ``ets ready`` finds there, by check."""
    done = host.run(["ets", "ready", "--json", *options], check=False, deadline=240)
    assert done.status in (0, 3), done.text + done.stderr.decode()
    document: dict[str, Any] = json.loads(done.text)
    assert document["fit"] is (done.status == 0)
    checks: dict[str, list[dict[str, str]]] = document["checks"]
    unknown = [f for findings in checks.values() for f in findings if "could not" in f["words"]]
    assert unknown == []
    return checks


def test_nothing_is_changed_and_everything_wrong_is_found(host: Host) -> None:
    report(host)  # Python compiles ETS when it runs first
    before = set(host.run(["sh", "-c", TREE]).text.splitlines())
    well = report(host)
    changed = before ^ set(host.run(["sh", "-c", TREE]).text.splitlines())
    assert changed == set()
    for check in ("firewall", "packages", "ports", "programs", "keys", "memory"):
        assert well[check] == [], check
    assert [f["subject"] for f in well["services"]] == ["ssh.service"]  # the lab takes its keys

    host.run(["sh", "-c", WRONG])
    found = report(host)
    for check, subject, words in FOUND:
        assert any(
            f["subject"] == subject and words in f["words"] for f in found[check]
        ), (check, subject, words, found[check])  # fmt: skip


def test_a_machine_without_a_site_file(host: Host) -> None:
    """As ETS finds an LTSP server that it never touched."""
    host.run(["mv", "/etc/ets", "/etc/elsewhere"])
    found = report(host)
    assert any("no configuration on this machine" in f["words"] for f in found["addresses"])
    assert found["firewall"] == []


def test_services_are_restarted_only_when_asked(host: Host) -> None:
    pids = "systemctl show --property=MainPID --value nginx kea-dhcp4-server tftpd-hpa"
    before = host.run(["sh", "-c", pids]).text
    report(host, "--only", "services")
    assert host.run(["sh", "-c", pids]).text == before
    assert report(host, "--only", "services", "--restart")["restart"] == []
    after = host.run(["sh", "-c", pids]).text
    assert not set(before.split()) & set(after.split())

    # a configuration that was broken since the daemon read it: it runs, and would not come back
    host.append("/etc/nginx/nginx.conf", b"nonsense\n")
    (found, *_) = report(host, "--only", "services", "--restart")["restart"]
    assert (found["severity"], found["subject"]) == ("critical", "nginx.service")
    assert "did not survive a restart" in found["words"]
