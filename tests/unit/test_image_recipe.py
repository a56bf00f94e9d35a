"""A recipe's digest changes with everything that goes into the image, and with nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ets.errors import InputError
from ets.image.recipe import Recipe, load, station_files, station_parts
from ets.image.strip import secrets_in, strip
from ets.site.load import read
from ets.site.model import Image, ImageFile

EXAMPLE = Path(__file__).parents[2] / "examples/pair.toml"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "motd").write_text("welcome\n")
    (tmp_path / "setup").write_text("#!/bin/sh\n")
    (tmp_path / "ltsp.conf").write_text("[clients]\n")
    image = Image(
        "test",
        packages=("htop", "nano"),
        files=(ImageFile("motd", "/etc/motd"),),
        scripts=("setup",),
        ltsp_conf="ltsp.conf",
    )
    site = read(EXAMPLE)
    return load(replace(site, images={"test": image}), "test", tmp_path)


def test_what_stands_in_it_is_read(recipe: Recipe) -> None:
    assert recipe.files[0].content == b"welcome\n"
    assert recipe.scripts == (("setup", b"#!/bin/sh\n"),)
    assert recipe.ltsp_conf == b"[clients]\n"
    assert {"ltsp", "systemd-sysv", "htop", "linux-image-amd64"} <= set(recipe.packages)


@pytest.mark.parametrize(
    "change",
    [
        {"packages": ("htop",)},
        {"suite": "trixie"},
        {"kernel": "linux-image-cloud-amd64"},
        {"seal": True},
        {"compression": 19},
        {"source": "server"},
        {"name": "other"},
    ],
)
def test_everything_counts(recipe: Recipe, change: dict[str, object]) -> None:
    other = replace(recipe, image=replace(recipe.image, **change))  # type: ignore[arg-type]
    assert other.digest != recipe.digest


def test_the_content_of_files_counts(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("hello\n")
    (tmp_path / "setup").write_text("#!/bin/bash\n")
    site = replace(read(EXAMPLE), images={"test": recipe.image})
    changed = load(site, "test", tmp_path)
    digests = {
        recipe.digest,
        replace(recipe, files=changed.files).digest,
        replace(recipe, scripts=changed.scripts).digest,
        replace(recipe, ltsp_conf=b"").digest,
        replace(recipe, ltsp_conf=None).digest,
    }
    assert len(digests) == 5


def test_the_order_of_packages_does_not_count(recipe: Recipe) -> None:
    other = replace(recipe, image=replace(recipe.image, packages=("nano", "htop", "nano")))
    assert other.digest == recipe.digest


def test_the_stations_parts_count(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "station"
    (folder / "initramfs").mkdir(parents=True)
    (folder / "initramfs/a").write_text("1")

    def digest() -> str:
        return replace(recipe, parts=station_files(folder)).digest

    one = digest()
    (folder / "build").mkdir()
    (folder / "build/rootd").write_text("made")
    assert digest() == one
    (folder / "initramfs/a").write_text("2")
    two = digest()
    (folder / "initramfs/a").chmod(0o755)
    assert len({one, two, digest()}) == 3


def test_an_unknown_image_and_a_missing_file_are_named(recipe: Recipe, tmp_path: Path) -> None:
    site = replace(read(EXAMPLE), images={"test": recipe.image})
    with pytest.raises(InputError, match="nothing"):
        load(site, "nothing", tmp_path)
    (tmp_path / "motd").unlink()
    with pytest.raises(InputError, match="motd"):
        load(site, "test", tmp_path)


def test_the_sources_have_the_stations_parts() -> None:
    names = [part.target for part in station_files(station_parts())]
    assert "initramfs/scripts/local-top/ets" in names
    assert not any(name.startswith("build") for name in names)


def test_secrets_and_traces_do_not_survive(tmp_path: Path) -> None:
    secret = {
        "etc/ssh/ssh_host_rsa_key": "key",
        "etc/ets/pki/site.secret": "secret",
        "root/.ssh/id_ed25519": "key",
        "etc/shadow-": "root:$y$old:1::::::",
        "var/lib/systemd/random-seed": "seed",
        "etc/munge/munge.key": "key",
        "var/log/apt/term.log": "log",
        "etc/hostname": "builder",
    }
    kept = {"etc/ssh/sshd_config": "conf", "var/log/apt/.keep/x": "", "usr/bin/true": "x"}
    for name, content in (secret | kept).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "etc/shadow").write_text(
        "root:$y$j9T$salt$hash:20123:0:99999:7:::\ndaemon:*:20123:0:99999:7:::\n"
        "user::20123:0:99999:7:::\n"
    )
    strip(tmp_path)
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert not left & set(secret)
    assert {"etc/ssh/sshd_config", "usr/bin/true"} <= left
    assert (tmp_path / "var/log/apt").is_dir(), "a folder of a package's below /var/log stays"
    assert (tmp_path / "etc/machine-id").read_bytes() == b""
    assert (tmp_path / "etc/shadow").read_text() == (
        "root:!:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\nuser:!:19000:0:99999:7:::\n"
    )


def test_private_keys_in_odd_places_are_found(tmp_path: Path) -> None:
    for name in ("etc/app/tls.pem", "root/notes", "usr/share/doc/example.pem"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "etc/app/tls.pem").write_text("cert\n-----BEGIN EC PRIVATE KEY-----\nMH\n")
    (tmp_path / "root/notes").write_text("a -----BEGIN PRIVATE KEY----- in the middle\n")
    assert secrets_in(tmp_path) == ["etc/app/tls.pem"]
