"""``ets image`` says plainly what it does, and refuses what it cannot know to be safe."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.unit.image_store import damage, make_image

from ets.cli.image import command, digests_in_use
from ets.errors import AgentError, ImageError, InputError
from ets.image.store import Store
from ets.site import lock


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "images")


def call(store: Store, *words: str) -> Result:
    result = CliRunner().invoke(command, [*words, "--store", str(store.root)], prog_name="image")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_an_empty_store_says_what_to_do(store: Store) -> None:
    assert "ets image build" in call(store, "list").output


def test_publishing_and_going_back_are_said_and_done(store: Store) -> None:
    one, two = make_image(store, b"one"), make_image(store, b"two")
    assert f"published console = {one[:12]}" in call(store, "publish", "console", one[:10]).output
    said = call(store, "publish", "console", two).output
    assert f"before: {one[:12]}" in said
    assert "when they boot next" in said
    assert f"published console = {one[:12]}" in call(store, "rollback", "console").output
    listed = json.loads(call(store, "list", "--json").output)
    states = {row["digest"]: row["state"] for row in listed}
    assert states == {one: "published as console", two: "was published as console before"}
    assert all(row["served"] for row in listed)


def test_without_a_digest_the_lock_says_what_is_published(store: Store, tmp_path: Path) -> None:
    digest = make_image(store)
    site = tmp_path / "site.toml"
    with pytest.raises(InputError, match="names no image console") as refused:
        call(store, "publish", "console", "--site", str(site))
    assert "ets image build console" in refused.value.hint
    lock.write(lock.beside(site), {"console": digest})
    said = call(store, "publish", "console", "--site", str(site)).output
    assert f"published console = {digest[:12]}" in said


def test_an_image_that_is_published_but_not_here_is_named(store: Store) -> None:
    digest = make_image(store)
    call(store, "publish", "console", digest)
    store.set_aside(digest)
    assert "NOT here" in call(store, "list").output


def test_nothing_is_removed_when_nobody_knows_what_stations_run(store: Store) -> None:
    digest = make_image(store)
    with pytest.raises(AgentError, match="cannot be asked"):
        call(store, "prune")
    assert store.digests() == [digest]
    assert f"removed {digest[:12]}" in call(store, "prune", "--offline").output
    assert store.digests() == []


def test_damage_is_said_and_the_exit_code_shows_it(store: Store) -> None:
    good, bad = make_image(store, b"good"), make_image(store, b"bad")
    assert f"{good[:12]} sound" in call(store, "verify").output
    damage(store.path(bad, "root.img"))
    with pytest.raises(ImageError, match="1 damaged"):
        call(store, "verify")
    with pytest.raises(ImageError, match="1 damaged"):
        call(store, "scrub", "--rate", "0", "--quarantine")
    assert store.digests() == [good]
    assert "all sound" in call(store, "scrub", "--rate", "0").output


def test_fetching_from_a_folder_and_from_nowhere(store: Store, tmp_path: Path) -> None:
    peer = Store(tmp_path / "peer")
    digest = make_image(peer)
    assert "complete and sound" in call(store, "fetch", digest, str(peer.root)).output
    with pytest.raises(InputError, match="no place"):
        call(store, "fetch", digest, "nowhere")


class _Agent(BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/v1/status" else 404)
        self.end_headers()
        self.wfile.write(self.body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *words: object) -> None:
        """Nothing."""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "agent.sock"
    server = socketserver.ThreadingUnixStreamServer(str(path), _Agent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield path
    server.shutdown()
    server.server_close()


def test_the_agent_knows_what_stations_run(agent: Path) -> None:
    reports = [{"report": {"digest": "ab" * 32}}, {"report": None}, {"report": {"digest": ""}}]
    _Agent.body = json.dumps({"stations": reports}).encode()
    assert digests_in_use(agent) == {"ab" * 32}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"stations": 5}', b"\xff\xfe"])
def test_an_agent_that_talks_nonsense_is_not_believed(agent: Path, body: bytes) -> None:
    _Agent.body = body
    with pytest.raises(AgentError):
        digests_in_use(agent)
