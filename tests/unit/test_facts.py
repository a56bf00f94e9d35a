"""Captured output of Debian 12's programs, and what it says."""

from __future__ import annotations

from pathlib import Path

from tests.unit.plan_machine import Machine

from ets.facts import accounts, packages, units
from ets.facts.observe import observe
from ets.host.local import LocalHost
from ets.plan.desired import Account, Copy, Desired, Directory, File, Unit
from ets.plan.observed import UnitFact
from ets.plan.owned import Owned, OwnedPath

DPKG = """\
chrony\tinstalled\t4.3-2+deb12u1
kea-dhcp4-server\tinstalled\t2.2.0-6
nbdkit\tconfig-files\t1.32.5-1
nginx\thalf-configured\t1.22.1-9+deb12u4
ltsp\tunpacked\t23.02-1+deb12u1
tftpd-hpa\tnot-installed\t
"""

# systemctl 252 show --property=LoadState,UnitFileState,ActiveState,SubState
SYSTEMCTL = """\
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled

LoadState=loaded
ActiveState=activating
SubState=auto-restart
UnitFileState=generated

LoadState=not-found
ActiveState=inactive
SubState=dead
UnitFileState=

LoadState=loaded
ActiveState=active
SubState=exited
UnitFileState=static

LoadState=masked
ActiveState=inactive
SubState=dead
UnitFileState=masked
"""


def test_packages_count_only_when_complete() -> None:
    assert packages.parse(DPKG) == {"chrony": "4.3-2+deb12u1", "kea-dhcp4-server": "2.2.0-6"}
    assert packages.parse("") == {}


def test_units_come_in_the_order_asked() -> None:
    names = ["chrony.service", "tftpd-hpa.service", "none.service", "nft.service", "off.service"]
    facts = units.parse(names, SYSTEMCTL)
    assert [*facts] == names
    assert [fact.active for fact in facts.values()] == [True, False, False, True, False]
    assert [fact.enabled for fact in facts.values()] == [True, True, False, True, False]
    assert facts["none.service"] == UnitFact()
    assert facts["off.service"].load == "masked"


def test_accounts_and_their_groups() -> None:
    passwd = "root:x:0:0:root:/root:/bin/bash\n_kea:x:104:110::/var/lib/kea:/usr/sbin/nologin\n"
    group = "root:x:0:\n_kea:x:110:\nadm:x:4:_kea,ghost\nssl:x:111:\nbroken\n"
    assert accounts.parse(passwd, group) == {"root": ("root",), "_kea": ("_kea", "adm")}


def test_observing_looks_at_all_that_is_asked_and_owned(tmp_path: Path) -> None:
    machine = Machine.make(tmp_path)
    machine.run(["apt-get", "install", "webd"])
    machine.write("/etc/same", b"same")
    machine.write("/etc/other", b"old")
    machine.write("/etc/owned", b"")
    (machine.root / "usr/lib/link").symlink_to("webd/boot.bin")
    desired = Desired(
        packages=("webd", "none"),
        accounts=(Account("root"), Account("nobody-here")),
        directories=(Directory("/etc"), Directory("/srv/none")),
        files=(File("/etc/same", b"same"), File("/etc/other", b"new"), File("/etc/none", b"")),
        copies=(Copy("/srv/copy", "/usr/lib/link"), Copy("/srv/no", "/usr/lib/none")),
        units=(Unit("webd.service"), Unit("none.service")),
    )
    owned = Owned(paths={"/etc/owned": OwnedPath("file")}, packages=("timed",))
    seen = observe(machine, desired, owned)
    assert seen.packages == {"webd": "1.0"}
    assert seen.accounts == {"root": ("root",)}
    assert set(seen.paths) == {"/etc", "/etc/same", "/etc/other", "/etc/owned"}
    assert seen.contents == {"/etc/other": b"old"}
    assert [*seen.sources] == ["/usr/lib/link"]
    assert seen.units["webd.service"].active
    assert not seen.units["none.service"].active
    assert seen.systemd


def test_a_bare_tree_has_no_packages_and_no_systemd(tmp_path: Path) -> None:
    desired = Desired(packages=("webd",), units=(Unit("webd.service"),))
    seen = observe(LocalHost(tmp_path), desired, Owned())
    assert (seen.packages, seen.units, seen.systemd) == ({}, {}, False)
