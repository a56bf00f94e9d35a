"""Whether a server is in service: its marker first, then its own record."""

from __future__ import annotations

from pathlib import Path

import pytest

from ets import paths
from ets.agent.place import Place, Ports, Tree
from ets.agent.standing import Standing
from ets.agent.state import State
from ets.site.load import read

SITE = Path(__file__).parents[2] / "examples/pair.toml"


class Server:
    def __init__(self, root: Path, *, complete: bool = True) -> None:
        site = read(SITE)
        tree = Tree.below(root)
        tree.runtime.mkdir(parents=True, exist_ok=True)
        self.complete = complete
        self.marker = tree.runtime / paths.JOINING.name
        self.place = Place(site, site.server("beta"), b"", tree, Ports())
        self.state = State(tree.runtime, "beta", ["alpha", "beta"], clock=lambda: 1e9)
        self.standing = Standing(self.place, self.state, lambda: self.complete)


def test_a_server_without_a_marker_is_in_service(tmp_path: Path) -> None:
    server = Server(tmp_path)
    assert server.standing.step()
    assert server.state.value("server/beta") == {"state": "in service"}
    assert not server.standing.step()


def test_the_marker_counts_more_than_the_record(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.state.write("server/beta", {"state": "in service"})
    server.marker.touch()
    assert server.standing.step()
    assert server.standing.of("beta") == "joining"
    assert not server.standing.serving("beta")
    assert server.standing.serving("alpha")
    server.marker.unlink()
    assert server.standing.step()
    assert server.standing.serving("beta")


def test_with_no_record_the_peers_are_heard_first(tmp_path: Path) -> None:
    Server(tmp_path).marker.touch()
    server = Server(tmp_path, complete=False)
    assert not server.standing.step()
    assert server.state.value("server/beta") is None
    assert server.standing.of("beta") == "joining"
    server.complete = True
    assert server.standing.step()
    assert server.state.value("server/beta") == {"state": "joining"}


@pytest.mark.parametrize("state", ["drained", "in service"])
def test_without_a_marker_the_record_stays(tmp_path: Path, state: str) -> None:
    server = Server(tmp_path)
    server.state.write("server/beta", {"state": state})
    assert not server.standing.step()
    assert server.standing.of("beta") == state
