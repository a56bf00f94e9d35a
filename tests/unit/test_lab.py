"""The lab's pure parts, and those that need nothing but a process: names, state, command lines,
packets, progress, the KVM probe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ets.errors import InputError, LabError
from ets.lab import faults, flip, kvm, machine, state, tree
from ets.lab.faults import slow
from ets.lab.lab import check_machine
from ets.lab.progress import Event
from ets.lab.qemu import json_lines
from ets.lab.station import StationOptions, _guest_mac, command
from ets.site.model import Role


class TestNames:
    @pytest.mark.parametrize("name", ["lab", "a", "t1", "x" * 12])
    def test_good(self, name: str) -> None:
        assert state.check_name(name) == name

    @pytest.mark.parametrize("name", ["", "a-b", "Lab", "1a", "x" * 13, "a/b", "a\n", "..", "ä"])
    def test_bad(self, name: str) -> None:
        with pytest.raises(InputError):
            state.check_name(name)


class TestState:
    @pytest.fixture(autouse=True)
    def _elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(state, "RUN", tmp_path)

    def new(self, name: str = "one", owner: state.Owner | None = None) -> state.LabState:
        return state.LabState(name, "/s/site.toml", "/d", state.boot_id(), owner=owner)

    def test_what_is_saved_is_loaded(self) -> None:
        before = self.new(owner=state.Owner.this())
        before.faults = {"alpha": {"kill": {}}}
        before.stations = {"ws01": {"firmware": "uefi"}}
        before.save()
        assert state.LabState.load("one") == before
        assert [found.name for found in state.all_labs()] == ["one"]

    def test_a_lab_that_is_not_there(self) -> None:
        with pytest.raises(LabError, match="no lab 'two'"):
            state.LabState.load("two")

    def test_a_damaged_file_is_an_error_with_its_name(self, tmp_path: Path) -> None:
        self.new().save()
        (tmp_path / "one/state.json").write_bytes(b"{")
        with pytest.raises(LabError, match=r"one/state\.json"):
            state.LabState.load("one")

    def test_owned_by_a_living_process_it_is_not_stale(self) -> None:
        assert not self.new(owner=state.Owner.this()).stale

    def test_without_an_owner_it_stays(self) -> None:
        assert not self.new().stale

    def test_owned_by_a_dead_process_it_is_stale(self) -> None:
        process = subprocess.Popen(["sleep", "60"])
        owner = state.Owner(process.pid, state._start_time(process.pid))
        assert not self.new(owner=owner).stale
        process.kill()
        time.sleep(0.05)
        assert self.new(owner=owner).stale, "a zombie runs no more"
        process.wait()
        assert self.new(owner=owner).stale

    def test_another_process_with_the_same_number_is_not_the_owner(self) -> None:
        this = state.Owner.this()
        assert self.new(owner=state.Owner(this.pid, this.started - 1)).stale

    def test_after_a_restart_of_the_machine_it_is_stale(self) -> None:
        lab = self.new()
        lab.boot = "another"
        assert lab.stale


class TestTree:
    def test_the_key_follows_the_packages_not_their_order(self) -> None:
        assert tree.tree_key(["a", "b"]) == tree.tree_key(["b", "a", "a"])
        assert tree.tree_key(["a"]) != tree.tree_key(["b"])

    def test_a_base_package_asked_for_again_changes_nothing(self) -> None:
        assert tree.tree_key(["nbdkit"]) == tree.tree_key()

    def test_what_is_made_is_whole_or_not_there(self, tmp_path: Path) -> None:
        place = tmp_path / "trees/key"

        def half(part: Path) -> None:
            part.mkdir(parents=True)
            (part / "half").touch()
            raise LabError("mirror gone")

        with pytest.raises(LabError):
            tree._made(place, half, lambda: None)
        assert [path.name for path in place.parent.iterdir()] == [".key.lock"]

    def test_what_a_killed_build_left_is_thrown_away(self, tmp_path: Path) -> None:
        place = tmp_path / "key"
        (tmp_path / "key.part").mkdir()
        (tmp_path / "key.part/old").touch()
        made = tree._made(place, lambda part: (part / "new").mkdir(parents=True), lambda: None)
        assert [path.name for path in made.iterdir()] == ["new"]

    def test_a_tree_that_nobody_used_for_a_week_goes(self, tmp_path: Path) -> None:
        for name, age in (("old", 8), ("used", 8), ("new", 1)):
            (tmp_path / name).mkdir()
            os.utime(tmp_path / name, (0, time.time() - age * 86400))
        tree._made(tmp_path / "used", Path.mkdir, lambda: None)
        tree._made(tmp_path / "other", Path.mkdir, lambda: None)
        assert {path.name for path in tmp_path.iterdir()} - {".other.lock"} == {
            "used",
            "new",
            "other",
        }

    @pytest.mark.root
    def test_what_is_mounted_is_never_removed(self, tmp_path: Path) -> None:
        (tmp_path / "tree/dev").mkdir(parents=True)
        (tmp_path / "tree/dev/null").touch()
        script = (
            "import sys; from pathlib import Path; from ets.lab import tree\n"
            "tree._discard(Path(sys.argv[1]))"
        )
        mount = f'mount --bind {tmp_path}/tree/dev {tmp_path}/tree/dev && exec "$@"'
        argv = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", script]
        done = subprocess.run([*argv, f"{tmp_path}/tree"], capture_output=True, check=False)
        assert b"something is mounted" in done.stderr
        assert (tmp_path / "tree/dev/null").exists()

    def test_two_builders_make_one(self, tmp_path: Path) -> None:
        calls: list[float] = []
        waits: list[float] = []

        def make(part: Path) -> None:
            calls.append(time.monotonic())
            time.sleep(0.3)
            part.mkdir()

        def build() -> None:
            tree._made(tmp_path / "key", make, lambda: waits.append(time.monotonic()))

        threads = [threading.Thread(target=build) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(calls) == 1
        assert waits, "the others say that they wait"

    def test_progress_never_goes_back_and_ends_below_one(self) -> None:
        seen: list[Event] = []
        progress = tree._DpkgProgress(seen.append)
        for count in (69, 122):
            progress.feed(f"0 upgraded, {count} newly installed, 0 to remove")
            for kind in ("Get:1 http://mirror", "Unpacking", "Setting up"):
                for number in range(count):
                    progress.feed(f"{kind} package{number} (1.0) ...")
        shares = [event.done for event in seen if event.done is not None]
        assert shares == sorted(shares)
        assert 0.9 < shares[-1] < 1
        assert seen[-1].doing == "setting up package121"


class TestMachine:
    def test_a_missing_program_is_named_by_its_package(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(LabError, match=r"(?s)systemd-container.*apt install"):
            check_machine()

    def test_without_root_it_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(LabError, match="root"):
            check_machine()


class TestStation:
    def line(self, tmp_path: Path, options: StationOptions) -> str:
        return " ".join(command("ws01", options, "tap0", tmp_path, kvm.TCG))

    def test_bios_boots_from_the_card_and_tries_again(self, tmp_path: Path) -> None:
        line = self.line(tmp_path, StationOptions(mac="52:54:00:77:00:01"))
        assert "virtio-net-pci,netdev=n0,mac=52:54:00:77:00:01,bootindex=1 " in line
        assert "order=n,reboot-timeout=3000" in line
        assert "pflash" not in line
        assert "name=ets.probe" in line
        assert "-accel tcg" in line

    def test_no_disk_whatever_the_options(self, tmp_path: Path) -> None:
        for firmware in ("bios", "uefi"):
            line = self.line(tmp_path, StationOptions(firmware=firmware))
            assert all("if=pflash" in word for word in line.split() if word.startswith("if="))
            assert "-hda" not in line

    def test_uefi_has_variables_of_its_own(self, tmp_path: Path) -> None:
        line = self.line(tmp_path, StationOptions(firmware="uefi", nic="e1000"))
        assert f"file={tmp_path}/vars.fd" in line
        assert (tmp_path / "vars.fd").stat().st_size > 100_000
        assert "e1000,netdev" in line

    def test_a_kernel_given_directly_skips_the_firmware(self, tmp_path: Path) -> None:
        line = self.line(tmp_path, StationOptions(kernel="/k", initrd="/i", append="quiet"))
        assert "-kernel /k -append quiet -initrd /i" in line

    def test_unknown_parts_are_refused(self) -> None:
        with pytest.raises(InputError, match="firmware"):
            StationOptions(firmware="coreboot")  # type: ignore[arg-type]
        with pytest.raises(InputError, match="network card"):
            StationOptions(nic="ne2000")  # type: ignore[arg-type]

    @given(st.text(min_size=1))
    def test_a_guest_has_one_mac_and_it_is_unicast(self, name: str) -> None:
        mac = _guest_mac(name)
        assert mac == _guest_mac(name)
        assert len(bytes.fromhex(mac.replace(":", ""))) == 6
        assert int(mac[:2], 16) & 1 == 0

    def test_lines_that_are_being_written_or_are_no_json_are_left_out(self, tmp_path: Path) -> None:
        path = tmp_path / "probe.jsonl"
        path.write_bytes(b'{"t": 1}\ngarbage\xff\n[1]\n{"t": 2}\n{"t": 3')
        assert list(json_lines(path)) == [{"t": 1}, {"t": 2}]
        assert list(json_lines(tmp_path / "none")) == []


class TestMachineServer:
    CARDS: ClassVar[list[tuple[Role, str, str]]] = [
        ("lan", "s1-lan", "52:54:00:e7:01:00"),
        ("stations", "s1-stations", "52:54:00:e7:01:01"),
    ]

    def line(self, tmp_path: Path, boot: machine.Boot, **options: Any) -> str:
        chosen = machine.MachineOptions(**options)
        disks = [tmp_path / f"disk{index}.img" for index in range(len(chosen.disks))]
        variables = tmp_path / "vars.fd"
        given = (self.CARDS, disks, tmp_path, variables, kvm.TCG)
        return " ".join(machine.command("beta", chosen, boot, *given))

    def test_only_the_stations_card_boots_from_the_network(self, tmp_path: Path) -> None:
        line = self.line(tmp_path, "disk")
        assert "netdev=net-lan,mac=52:54:00:e7:01:00,romfile= " in line
        assert "netdev=net-stations,mac=52:54:00:e7:01:01,bootindex=100 " in line
        assert f"file={tmp_path}/disk0.img,format=raw" in line
        assert "id=disk0,serial=lab-beta-0,bootindex=1 " in line

    def test_the_network_comes_first_when_it_is_to(self, tmp_path: Path) -> None:
        for boot in ("net", "once"):
            line = self.line(tmp_path, boot, disks=(1, 1))
            assert "mac=52:54:00:e7:01:01,bootindex=1 " in line
            assert "id=disk0,serial=lab-beta-0,bootindex=100 " in line
            assert "id=disk1,serial=lab-beta-1,bootindex=101 " in line

    def test_uefi_keeps_its_variables(self, tmp_path: Path) -> None:
        (tmp_path / "vars.fd").write_bytes(b"kept")
        line = self.line(tmp_path, "disk", firmware="uefi")
        assert "bootindex=100,romfile=" in line
        assert (tmp_path / "vars.fd").read_bytes() == b"kept"


class TestKvm:
    def test_emulation_boots_the_probe(self) -> None:
        took = kvm.boot_time(kvm.TCG, deadline=60)
        assert took is not None

    def test_a_machine_that_hangs_is_killed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake(tmp_path, f"trap '' TERM; echo $$ >{tmp_path}/pid; while :; do :; done")
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        start = time.monotonic()
        assert kvm.boot_time("kvm", deadline=0.5) is None
        assert time.monotonic() - start < 3
        assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()

    def test_a_machine_that_fails_is_no_success(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake(tmp_path, "exit 1")
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert kvm.boot_time("kvm") is None

    def test_verdicts(self) -> None:
        assert kvm.trustworthy(0.3, 0.2)
        assert kvm.trustworthy(None, 0.2)
        assert not kvm.trustworthy(0.3, None), "hangs"
        assert not kvm.trustworthy(0.3, 3.8), "crawls"

    def test_the_verdict_is_remembered(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ETS_CACHE", str(tmp_path))
        monkeypatch.setattr(os, "access", lambda *_: True)
        verdict = {"boot": state.boot_id(), "works": True}
        (tmp_path / "kvm.json").write_text(json.dumps(verdict))
        assert kvm.accelerator() == "kvm"
        (tmp_path / "kvm.json").write_text(json.dumps({**verdict, "works": False}))
        assert kvm.accelerator() == kvm.TCG
        monkeypatch.setenv("ETS_LAB_ACCEL", "tcg")
        (tmp_path / "kvm.json").write_text(json.dumps(verdict))
        assert kvm.accelerator() == kvm.TCG


def fake(directory: Path, script: str) -> None:
    """A QEMU on PATH that does what ``script`` says."""
    program = directory / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


class TestFaults:
    def test_every_fault_has_the_shape(self) -> None:
        assert set(faults.names()) >= {
            "kill", "power-off", "hang", "cable", "partition", "slow", "corrupt-block",
            "disk-full",
        }  # fmt: skip
        for name in faults.names():
            fault = faults.get(name)
            assert fault.ABOUT
            assert callable(fault.inject)
            assert callable(fault.heal)

    def test_an_unknown_fault_names_the_known(self) -> None:
        with pytest.raises(InputError, match="power-off"):
            faults.get("fire")
        with pytest.raises(InputError):
            faults.get("power_off")

    def test_slow_puts_the_filter_before_the_plugin(self) -> None:
        unit = (
            "# /etc/x\n[Service]\nExecStart=/usr/bin/nbdkit --foreground \\\n"
            "   -r file dir=/x\nUser=a\n"
        )
        assert slow.drop_in(unit, 1500) == (
            "[Service]\nExecStart=\nExecStart=/usr/bin/nbdkit --filter=delay --foreground -r file "
            "dir=/x rdelay=1500ms\n"
        )

    def test_slow_refuses_what_is_no_nbdkit(self) -> None:
        for unit in ("", "[Service]\nExecStart=/usr/sbin/nginx\n"):
            with pytest.raises(LabError, match="nbdkit"):
                slow.drop_in(unit, 1500)

    @given(st.binary(max_size=100_000), st.integers(1, 9))
    def test_what_was_flipped_is_restored(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes, every: int
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "flipped"
        path.write_bytes(content)
        before = flip.flip(path, every)
        changed = path.read_bytes()
        assert sum(a != b for a, b in zip(content, changed, strict=True)) == len(before)
        assert len(before) == len(range(2048, len(content), 4096 * every))
        flip.restore(path, every, before)
        assert path.read_bytes() == content

    def test_a_block_that_mended_itself_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "image"
        path.write_bytes(bytes(3 * 4096))
        before = flip.flip(path, 1)
        path.write_bytes(bytes(3 * 4096))
        flip.restore(path, 1, before)
        assert path.read_bytes() == bytes(3 * 4096)
