"""Images are built for real: from Debian's packages, twice the same, without secrets, and without
leaving anything behind when it goes wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from ets.cli.image import command
from ets.errors import ImageError
from ets.host.deadline import Deadline, wait_for
from ets.image import build as builder
from ets.image import publish
from ets.image.manifest import PACKAGES, ROOT
from ets.image.recipe import Input, Recipe, load
from ets.image.store import Store
from ets.image.tree import base_tree, tree_key
from ets.image.workbench import Workbench, workbench
from ets.site import lock
from ets.site.load import read

pytestmark = [pytest.mark.root, pytest.mark.daemons, pytest.mark.timeout(600)]

EXAMPLES = Path(__file__).parents[2] / "examples"
CACHE = builder.cache_directory()
# Debian's /usr/bin/ping has cap_net_raw+ep; the image keeps such attributes.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
SCRIPT = f"""#!/bin/sh
set -e
test "$(ls /sys/class/net 2>/dev/null | grep -v lo)" = ""
test -c /dev/null
test "$(cat /etc/motd)" = hello
python3 -c 'import os; open("/usr/bin/capable", "w").close()
os.setxattr("/usr/bin/capable", "security.capability", bytes.fromhex("{CAPABILITY.hex()}"))'
ln /usr/bin/capable /usr/bin/capable-too
date +%N >/var/log/now
echo 12345 >/etc/ssh/ssh_host_ed25519_key
"""


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    plain = load(read(EXAMPLES / "pair.toml"), "console", EXAMPLES)
    return replace(
        plain,
        files=(Input("/etc/motd", b"hello\n", 0o640),),
        scripts=(("setup", SCRIPT.encode()),),
        ltsp_conf=b"[clients]\n",
    )


@pytest.fixture(scope="module")
def built(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    store = Store(tmp_path_factory.mktemp("built") / "images")
    return store, builder.build(recipe, store, CACHE)


@pytest.fixture(scope="module")
def unpacked(built: tuple[Store, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    store, digest = built
    tree = tmp_path_factory.mktemp("unpacked") / "tree"
    image = str(store.path(digest, ROOT))
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-d", tree, image], check=True)
    return tree


def left_over() -> list[str]:
    """Folders and mounts of builds that have ended; somebody else may build at the same time."""
    work = CACHE / "image-work"
    ended = []
    for path in work.iterdir() if work.is_dir() else ():
        pid = path.name.rsplit("-", 1)[1].split(".")[0]
        if pid == str(os.getpid()) or not Path(f"/proc/{pid}").exists():
            ended.append(str(path))
    mounts = Path("/proc/mounts").read_text().splitlines()
    return ended + [line for line in mounts if "image-work" in line]


def test_two_builds_are_the_same_bit_for_bit(
    recipe: Recipe, built: tuple[Store, str], tmp_path: Path
) -> None:
    store, digest = built
    again = Store(tmp_path / "images")
    assert builder.build(recipe, again, CACHE) == digest
    for file in store.manifest(digest).files:
        assert again.path(digest, file).read_bytes() == store.path(digest, file).read_bytes()
    assert left_over() == []


def test_the_kernels_tools_accept_the_hash_tree(built: tuple[Store, str]) -> None:
    store, digest = built
    manifest, image = store.manifest(digest), str(store.path(digest, ROOT))
    options = [
        "--no-superblock", "--format=1", "--hash=sha256", "--salt=-", "--data-block-size=4096",
        "--hash-block-size=4096", f"--data-blocks={manifest.blocks}",
        f"--hash-offset={manifest.blocks * 4096}",
    ]  # fmt: skip
    subprocess.run(
        ["/usr/sbin/veritysetup", "verify", *options, image, image, manifest.roothash], check=True
    )
    assert store.verify(digest) == []


def test_what_the_recipe_says_is_in_it(unpacked: Path) -> None:
    assert (unpacked / "etc/motd").read_text() == "hello\n"
    assert (unpacked / "etc/motd").stat().st_mode & 0o777 == 0o640
    assert (unpacked / "etc/ltsp/ltsp.conf").read_text() == "[clients]\n"
    assert os.getxattr(unpacked / "usr/bin/capable", "security.capability") == CAPABILITY
    assert (unpacked / "usr/bin/capable").samefile(unpacked / "usr/bin/capable-too")
    assert (unpacked / "usr/lib/ets/rootd").stat().st_mode & 0o111
    wants = unpacked / "etc/systemd/system/multi-user.target.wants"
    assert {"ets-report.service", "ets-login.service"} <= {p.name for p in wants.iterdir()}
    assert list((unpacked / "boot").iterdir()) == []


def test_no_secret_and_no_identity_is_in_it(unpacked: Path) -> None:
    assert not list(unpacked.glob("etc/ssh/ssh_host_*"))
    assert (unpacked / "etc/machine-id").read_bytes() == b""
    assert not (unpacked / "etc/hostname").exists()
    assert not list((unpacked / "var/log").glob("*.log"))
    passwords = {line.split(":")[1] for line in (unpacked / "etc/shadow").read_text().splitlines()}
    assert passwords <= {"*", "!", "!*"}


def test_the_initrd_holds_what_a_station_needs(built: tuple[Store, str]) -> None:
    store, digest = built
    initrd = store.path(digest, "initrd.img")
    archive = subprocess.run(["zstd", "-dc", initrd], check=True, capture_output=True).stdout
    listed = subprocess.run(
        ["cpio", "-t", "--quiet"], input=archive, check=True, capture_output=True
    ).stdout
    names = listed.decode().splitlines()
    for wanted in (
        "usr/lib/ets/rootd", "usr/sbin/@rootd", "scripts/local-top/ets", "usr/share/ltsp/ltsp",
        "conf/conf.d/00-ltsp.conf", "etc/ltsp/ltsp.conf", "usr/sbin/dmsetup", "usr/sbin/nbd-client",
    ):  # fmt: skip
        assert wanted in names
    modules = {Path(name).name.split(".")[0] for name in names if ".ko" in name}
    assert {"nbd", "overlay", "squashfs", "dm-verity", "virtio_net"} <= modules


def test_the_package_list_says_the_versions(built: tuple[Store, str]) -> None:
    store, digest = built
    lines = store.path(digest, PACKAGES).read_text().splitlines()
    packages = dict(line.split("\t") for line in lines)
    assert packages["ltsp"].startswith("23.")
    assert PACKAGES in store.manifest(digest).files


def test_ensure_builds_only_what_is_missing(tmp_path: Path) -> None:
    site = read(EXAMPLES / "pair.toml")
    first = builder.ensure(site, "console", CACHE, base=EXAMPLES)
    began = time.monotonic()
    assert builder.ensure(site, "console", CACHE, base=EXAMPLES) == first
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (b"#!/bin/sh\necho the reason; exit 7\n", "status 7.*the reason"),
        (b"no interpreter", "setup"),
        (b"#!/bin/sh\nrm -rf /boot /usr/lib/modules\n", "no kernel"),
        (
            b"#!/bin/sh\necho '-----BEGIN PRIVATE KEY-----' >/etc/app.key\n",
            r"private keys: etc/app\.key",
        ),
    ],
)
def test_a_script_that_fails_is_named_and_nothing_is_left(
    recipe: Recipe, tmp_path: Path, script: bytes, said: str
) -> None:
    store = Store(tmp_path / "images")
    broken = replace(recipe, scripts=(("setup", script),))
    with pytest.raises(ImageError, match=f"(?s){said}"):
        builder.build(broken, store, CACHE)
    assert store.digests() == []
    assert list(store.arriving.iterdir()) == []
    assert left_over() == []


def test_the_lock_beside_the_site_file_names_what_was_built(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    shutil.copyfile(EXAMPLES / "pair.toml", site)
    lock.write(lock.beside(site), {"other": "0" * 64})
    store = tmp_path / "images"
    words = ["build", "console", "--site", str(site), "--store", str(store), "--cache", str(CACHE)]
    result = CliRunner().invoke(command, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (digest,) = Store(store).digests()
    assert lock.read(lock.beside(site)) == {"console": digest, "other": "0" * 64}


def test_an_unknown_package_is_named(recipe: Recipe, tmp_path: Path) -> None:
    wrong = replace(recipe, image=replace(recipe.image, packages=("no-such-package-ets",)))
    with pytest.raises(ImageError, match="no-such-package-ets"):
        builder.build(wrong, Store(tmp_path / "images"), tmp_path / "cache")
    assert not (tmp_path / "cache/image-trees" / tree_key(wrong)).exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Workbench, Store]]:
    with workbench(tmp_path, "disk") as bench:
        disk = bench.directory / "disk"
        disk.mkdir()
        bench.run(["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", str(disk)])
        yield bench, Store(bench.inside(disk))


def test_a_full_disk_costs_no_station_its_image(
    built: tuple[Store, str], small_disk: tuple[Workbench, Store]
) -> None:
    bench, small = small_disk
    source, digest = built
    with small.incoming("test") as folder:
        for path in (source.store / digest).iterdir():
            shutil.copyfile(path, folder / path.name)
        small.admit(folder, digest)
    before = publish.publish(small, "console", digest)

    with pytest.raises(ImageError, match="disk is full"):
        _build_in(bench, Store(bench.directory / "disk"))
    assert small.digests() == [digest]
    assert list(small.arriving.iterdir()) == []
    assert publish.publication(small, "console") == before
    assert small.verify(digest) == []
    assert small.exported(digest)


def _build_in(bench: Workbench, store: Store) -> None:
    """Build with the store on the workbench's disk, as a process in the workbench would."""
    code = (
        "import sys; from pathlib import Path; from dataclasses import replace\n"
        "from ets.errors import EtsError; from ets.image import build; "
        "from ets.image.recipe import load\n"
        "from ets.image.store import Store; from ets.site.load import read\n"
        f"site = read({str(EXAMPLES / 'pair.toml')!r})\n"
        f"recipe = load(site, 'console', Path({str(EXAMPLES)!r}))\n"
        f"try: build.build(recipe, Store(Path({str(store.root)!r})), Path({str(CACHE)!r}))\n"
        "except EtsError as error: sys.stderr.write(str(error)); sys.exit(9)\n"
    )
    done = subprocess.run(
        ["nsenter", f"--target={bench.holder}", "--mount", "--", sys.executable, "-c", code],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": "src"},
        cwd=EXAMPLES.parent,
    )  # fmt: skip
    if done.returncode:
        raise ImageError(done.stderr)


@pytest.mark.parametrize("moment", ["making the initrd", "packing", "downloading"])
def test_a_killed_build_leaves_no_mount_and_no_process_and_the_next_one_cleans_up(
    recipe: Recipe, tmp_path: Path, moment: str
) -> None:
    base_tree(recipe, CACHE, lambda event: None)
    store, cache = tmp_path / "images", tmp_path / "cache" if moment == "downloading" else CACHE
    argv = [
        sys.executable, "-m", "ets", "image", "build", "console", "--store", str(store),
        "--site", str(EXAMPLES / "pair.toml"), "--cache", str(cache),
    ]  # fmt: skip
    process = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    assert any(moment in line for line in process.stderr), "the build never came that far"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for("its mounts to go", lambda: not mounts_with(f"-{process.pid}."), Deadline(20))
    wait_for("its processes to go", lambda: not processes_with(tmp_path), Deadline(20))
    assert Store(store).digests() == []
    with workbench(cache / "image-trees", f"part-{tree_key(recipe)}"):
        pass
    assert not list((cache / "image-trees").glob(f"part-*-{process.pid}.*"))
    builder.build(recipe, Store(store), CACHE)
    assert list(Store(store).arriving.iterdir()) == []
    assert left_over() == []


def processes_with(path: Path) -> list[str]:
    """Command lines of other processes that name ``path``."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = line.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(path) in words and line.parent.name != str(os.getpid()):
                found.append(words)
    return found


def mounts_with(text: str) -> list[str]:
    """Mounts with ``text`` in their path, in any mount namespace of this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/mounts"):
        with contextlib.suppress(OSError):
            found += [line for line in path.read_text().splitlines() if text in line]
    return found


def test_a_servers_own_tree_becomes_an_image_without_its_secrets(
    recipe: Recipe, tmp_path: Path
) -> None:
    """The server is a Debian tree with what a server has beside: homes, keys, passwords."""
    base = base_tree(recipe, CACHE, lambda event: None)
    store = Store(tmp_path / "images")
    planted = {
        "etc/ets/pki/server.key": "-----BEGIN PRIVATE KEY-----\n",
        "etc/ssh/ssh_host_rsa_key": "-----BEGIN OPENSSH PRIVATE KEY-----\n",
        "home/anna/letter": "private",
        "root/.ssh/id_rsa": "-----BEGIN OPENSSH PRIVATE KEY-----\n",
        "var/lib/ets/images/x": "image",
        "srv/data": "data",
    }
    with workbench(tmp_path, "server") as bench:
        server = bench.overlay(base.tree, "server")
        seen = bench.inside(server)
        for name, content in planted.items():
            (seen / name).parent.mkdir(parents=True, exist_ok=True)
            (seen / name).write_text(content)
        with (seen / "etc/shadow").open("a") as shadow:
            shadow.write("anna:$y$j9T$salt$hash:20000:0:99999:7:::\n")
        copy = tmp_path / "server-tree"
        bench.run(["cp", "-a", f"{server}/.", str(copy)])
    own = replace(recipe, image=replace(recipe.image, source="server"), files=(), scripts=())
    digest = builder.build(own, store, CACHE, server_root=copy)
    listing = subprocess.run(
        ["unsquashfs", "-l", "-d", "", str(store.path(digest, ROOT))],
        check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    assert "/usr/lib/ets/rootd" in listing
    assert not {f"/{name}" for name in planted} & set(listing)
    shadow_text = subprocess.run(
        ["unsquashfs", "-cat", str(store.path(digest, ROOT)), "etc/shadow"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert "anna:!:" in shadow_text


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_from_an_empty_cache_it_is_the_same_too(
    recipe: Recipe, built: tuple[Store, str], tmp_path: Path
) -> None:
    store, digest = built
    again = Store(tmp_path / "images")
    made = builder.build(recipe, again, tmp_path / "cache")
    packages = store.path(digest, PACKAGES).read_text()
    assert again.path(made, PACKAGES).read_text() == packages, (
        "Debian released a package between the two builds: empty the cache and try again"
    )
    assert made == digest
