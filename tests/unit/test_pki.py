"""The site's certificate authority: what it issues works, and only for its own site."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest

from ets.errors import HostError
from ets.host import pki


def context(side: ssl._SSLMethod, directory: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(side)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(directory / "ca.crt")
    made.load_cert_chain(directory / "server.crt", directory / "server.key")
    return made


def handshake(server: Path, client: Path) -> dict[str, object]:
    """What the server learns of the client. Raises ssl.SSLError when either refuses."""
    here, there = socket.socketpair()
    here.settimeout(5)
    there.settimeout(5)
    outcome: list[object] = []

    def connect() -> None:
        try:
            with context(ssl.PROTOCOL_TLS_CLIENT, client).wrap_socket(there) as wrapped:
                wrapped.sendall(b"x")
                wrapped.recv(1)
                outcome.append(wrapped.getpeercert())
        except (ssl.SSLError, OSError) as error:
            outcome.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        with context(ssl.PROTOCOL_TLS_SERVER, server).wrap_socket(here, server_side=True) as done:
            done.recv(1)
            done.sendall(b"x")
            peer = done.getpeercert()
    finally:
        here.close()
        thread.join()
        there.close()
    assert peer is not None
    return dict(peer)


def test_two_servers_of_one_site_know_each_other(tmp_path: Path) -> None:
    pki.make_ca(tmp_path / "ca", "pair")
    pki.issue(tmp_path / "ca", "alpha", ["192.168.77.11", "10.77.0.11"], tmp_path / "alpha")
    pki.issue(tmp_path / "ca", "beta", ["192.168.77.12"], tmp_path / "beta")
    peer = handshake(tmp_path / "alpha", tmp_path / "beta")
    assert peer["subjectAltName"] == (("DNS", "beta"), ("IP Address", "192.168.77.12"))


def test_a_certificate_of_another_site_is_refused(tmp_path: Path) -> None:
    for site in ("one", "two"):
        pki.make_ca(tmp_path / site, site)
        pki.issue(tmp_path / site, "alpha", ["10.0.0.1"], tmp_path / f"alpha-{site}")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(tmp_path / "alpha-one", tmp_path / "alpha-two")


def test_everything_is_readable_by_root_only(tmp_path: Path) -> None:
    pki.make_ca(tmp_path / "ca")
    pki.issue(tmp_path / "ca", "alpha", [], tmp_path / "alpha")
    pki.write_secret(tmp_path / "alpha" / "site.secret", pki.new_secret())
    files = [*(tmp_path / "ca").iterdir(), *(tmp_path / "alpha").iterdir()]
    assert len(files) == 6
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_second_authority_is_refused(tmp_path: Path) -> None:
    pki.make_ca(tmp_path)
    before = (tmp_path / "ca.key").read_bytes()
    with pytest.raises(HostError, match="already"):
        pki.make_ca(tmp_path)
    assert (tmp_path / "ca.key").read_bytes() == before


@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_a_damaged_authority_is_an_error_with_a_hint(tmp_path: Path, damage: str) -> None:
    pki.make_ca(tmp_path)
    if damage == "missing":
        (tmp_path / "ca.key").unlink()
    else:
        (tmp_path / "ca.key").write_bytes(b"\x00\xff garbage")
    with pytest.raises(HostError) as caught:
        pki.issue(tmp_path, "alpha", [], tmp_path / "out")
    assert caught.value.hint


def test_secrets_are_read_back_and_differ(tmp_path: Path) -> None:
    secret = pki.new_secret()
    assert secret != pki.new_secret()
    pki.write_secret(tmp_path / "site.secret", secret)
    assert pki.read_secret(tmp_path / "site.secret") == bytes.fromhex(secret)


@pytest.mark.parametrize("content", [None, b"", b"abcd\n", b"zz" * 32, b"\xff\xfe"])
def test_a_bad_secret_is_an_error_with_a_hint(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "site.secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(HostError) as caught:
        pki.read_secret(path)
    assert caught.value.hint
