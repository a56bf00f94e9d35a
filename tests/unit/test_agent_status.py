"""``ets status``: what it shows of a document, and what it says when there is none."""

from __future__ import annotations

import io
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ets.cli import ets
from ets.cli import status as verb
from ets.errors import AgentError, InputError

DOCUMENT: dict[str, Any] = {
    "format": 1,
    "server": "alpha",
    "site": {"name": "pair", "digest": "ab" * 32},
    "servers": [
        {
            "name": "alpha", "weight": 1, "state": "in service", "self": True,
            "verdict": "alive", "reason": "this server", "links": {}, "age": 0.0, "skew": 0.0,
            "load": 0.5, "same_site": True, "trouble": "",
            "services": [{"name": "dhcp", "well": False, "detail": "Kea is away"}],
        },
        {
            "name": "beta", "weight": 2, "state": "drained", "self": False, "verdict": "lost",
            "reason": "lost: nothing on lan for 3.0 s", "links": {"lan": 3.0}, "age": 3.0,
            "skew": None, "load": None, "same_site": False, "trouble": "", "services": [],
        },
    ],
    "stations": [
        {
            "mac": "52:54:00:77:00:01", "name": "ws01", "address": "10.77.1.1", "known": True,
            "image": "console", "order": ["alpha", "beta"],
            "report": {
                "age": 2.0, "wrong": 3, "longest_stall_us": 160_000,
                "servers": [
                    {"server": "alpha", "address": "10.77.0.11:10809", "state": "up"},
                    {"server": "beta", "address": "10.77.0.12:10809", "state": "avoided"},
                ],
            },
        },
        {
            "mac": "52:54:00:99:00:01", "name": "guest-1", "address": "10.77.2.1",
            "known": False, "image": "console", "order": ["beta", "alpha"], "report": None,
        },
    ],
    "images": [
        {
            "name": "console", "digest": "cd" * 32, "generation": 2, "here": True,
            "equal": False, "servers": {"alpha": "cd" * 32, "beta": None}, "trouble": "late",
        }
    ],
    "shares": [
        {
            "server": "alpha", "weight": 1, "wanted": 1 / 3, "computed": 0.5,
            "connected": 1, "reading": 1,
        }
    ],
    "alarms": [{"server": "beta", "text": "image cdcd is damaged", "since": 1.0, "times": 1}],
    "dhcp": {"ready": False, "trouble": "Kea did not answer", "guests": 1, "sends": 1},
    "tasks": {"images": "disk full"},
}  # fmt: skip


def shown(document: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(verb.render(document))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_everything_that_matters_is_shown() -> None:
    text = shown(DOCUMENT)
    for part in (
        "Site pair as seen by alpha",
        "not well: dhcp",
        "alpha, dhcp: Kea is away",
        "lost: nothing on lan for 3.0 s; ANOTHER site file",
        "alpha › beta",
        "alpha beta avoided",
        "0.16 s",
        "guest-1 (guest)",
        "alpha: cdcdcdcdcdcd, beta: unknown",
        "33%",
        "ALARM beta: image cdcd is damaged",
        "Kea did not answer",
        "images: disk full",
    ):
        assert part in text, part


def test_one_server_alone() -> None:
    one = verb.narrow(DOCUMENT, "beta")
    assert [row["name"] for row in one["servers"]] == ["beta"]
    assert [row["name"] for row in one["stations"]] == ["guest-1"]
    with pytest.raises(InputError, match="no server 'omega'") as caught:
        verb.narrow(DOCUMENT, "omega")
    assert "alpha, beta" in caught.value.hint


def test_an_agent_that_is_down_is_said(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="does not answer") as caught:
        ets.main(["status", "--socket", str(tmp_path / "none")], standalone_mode=False)
    assert "systemctl status ets-agent" in caught.value.hint


@pytest.mark.parametrize("body", [b"[]", b"\x00\xff", json.dumps({"format": 2}).encode()])
def test_whoever_else_answers_is_not_taken_for_an_agent(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
                connection.sendall(head + body)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(AgentError, match="something unknown"):
            verb.fetch(path)
        thread.join()
