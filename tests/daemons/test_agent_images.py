"""Real agents and images: published once, followed everywhere; damaged, and whole again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.daemons.agents import PAIR, AgentHost, Net, three
from tests.unit.image_store import damage, make_image

from ets.host.deadline import Deadline, wait_for
from ets.image.publish import publish, rollback
from ets.image.store import Store

pytestmark = [pytest.mark.daemons, pytest.mark.root]

WS01 = "/boot/52-54-00-77-00-01.ipxe"


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with Net(tmp_path, three(PAIR.read_text())) as made:
        made.up()
        yield made


def image(host: AgentHost) -> dict[str, Any]:
    row: dict[str, Any] = host.status()["images"][0]
    return row


def boots(host: AgentHost, digest: str) -> bool:
    """Does its boot script name the image, and is that image there?"""
    script = host.http("GET", WS01)[1].decode()
    return f"ets.digest={digest}" in script and digest in Store(host.tree.images).digests()


def everywhere(net: Net, digest: str) -> bool:
    return all(boots(host, digest) and image(host)["equal"] for host in net.hosts.values())


def test_what_is_published_on_one_is_served_by_all(net: Net) -> None:
    store = Store(net["beta"].tree.images)
    first = make_image(store, b"first")
    publish(store, "console", first)
    wait_for("all to follow", lambda: everywhere(net, first), Deadline(30))
    second = make_image(store, b"second")
    publish(store, "console", second)
    wait_for("all to follow again", lambda: everywhere(net, second), Deadline(30))
    assert image(net["alpha"])["generation"] == 2
    for host in net.hosts.values():
        fallback = host.tree.boot / Path(WS01).name
        wait_for(
            "the file that nginx falls back to",
            lambda file=fallback: second in file.read_text(),  # type: ignore[misc]
            Deadline(10),
        )
    # A rollback on another server is a publication like any other.
    rollback(Store(net["alpha"].tree.images), "console")
    wait_for("all to go back", lambda: everywhere(net, first), Deadline(30))
    assert not any(host.status()["alarms"] for host in net.hosts.values())


def test_a_damaged_image_is_set_aside_and_fetched_again(net: Net) -> None:
    alpha = net["alpha"]
    store = Store(alpha.tree.images)
    digest = make_image(store, b"payload")
    publish(store, "console", digest)
    wait_for("all to follow", lambda: everywhere(net, digest), Deadline(30))
    export = store.exports / store.manifest(digest).roothash
    bad = export.stat().st_ino
    damage(store.path(digest, "root.img"))
    wait_for("the alarm", lambda: _alarmed(alpha, "is damaged"), Deadline(40))
    wait_for(
        "the right image",
        lambda: export.exists() and export.stat().st_ino != bad and boots(alpha, digest),
        Deadline(30),
    )
    assert store.verify(digest) == []
    assert (store.quarantine / digest).is_dir()
    wait_for("its peers to show it too", lambda: _alarmed(net["beta"], "is damaged"), Deadline(30))


def test_damage_done_while_no_agent_ran_is_found_at_its_start(net: Net) -> None:
    alpha = net["alpha"]
    store = Store(alpha.tree.images)
    digest = make_image(store, b"payload")
    publish(store, "console", digest)
    wait_for("all to follow", lambda: everywhere(net, digest), Deadline(30))
    assert alpha.term() == 0
    damage(store.path(digest, "initrd.img"), at=5)
    alpha.up()
    wait_for("the alarm", lambda: _alarmed(alpha, "initrd.img does not have"), Deadline(40))
    wait_for("the right image", lambda: boots(alpha, digest), Deadline(30))
    assert store.verify(digest) == []


def test_a_peer_with_a_damaged_image_cannot_spread_it(net: Net) -> None:
    """beta gives alpha's image away damaged before its scrub has seen it; gamma takes alpha's."""
    alpha, beta, gamma = (net[name] for name in ("alpha", "beta", "gamma"))
    gamma.kill()
    store = Store(alpha.tree.images)
    digest = make_image(store, b"payload" * 100_000)
    publish(store, "console", digest)
    wait_for("beta to follow", lambda: boots(beta, digest), Deadline(30))
    alpha.kill()
    beta.kill()
    damage(Store(beta.tree.images).path(digest, "root.img"))
    (beta.tree.runtime / "images.json").unlink()
    for host in (gamma, beta, alpha):
        host.launch()
    wait_for(
        "gamma to have it whole", lambda: gamma.answers() and boots(gamma, digest), Deadline(90)
    )
    assert Store(gamma.tree.images).verify(digest) == []
    wait_for("beta too", lambda: boots(beta, digest), Deadline(60))
    assert Store(beta.tree.images).verify(digest) == []


def test_the_same_generation_published_apart_is_an_alarm(net: Net) -> None:
    net.cable("alpha", "lan", "down")
    net.cable("alpha", "stations", "down")
    for peer in ("beta", "gamma"):
        net.wait_verdict(net["alpha"], peer, "lost")
    digests = {}
    for name in ("alpha", "beta"):
        store = Store(net[name].tree.images)
        digests[name] = make_image(store, name.encode())
        publish(store, "console", digests[name])
    wait_for("gamma to follow beta", lambda: boots(net["gamma"], digests["beta"]), Deadline(30))
    net.cable("alpha", "lan", "up")
    net.cable("alpha", "stations", "up")
    wait_for("an alarm", lambda: _alarmed(net["alpha"], "two different records"), Deadline(40))
    wait_for("an alarm", lambda: _alarmed(net["beta"], "two different records"), Deadline(40))
    assert boots(net["alpha"], digests["alpha"])
    assert boots(net["beta"], digests["beta"])
    # A person decides, and it is over.
    store = Store(net["alpha"].tree.images)
    decided = make_image(store, b"decided")
    publish(store, "console", decided)
    wait_for("all to follow", lambda: everywhere(net, decided), Deadline(30))


def test_two_records_of_one_version_are_an_alarm_on_both(net: Net) -> None:
    """As after a server's disk was put back from a backup, and written to."""
    alpha, beta = net["alpha"], net["beta"]
    wait_for("beta's copy", lambda: _record(beta, "server/alpha") is not None, Deadline(10))
    alpha.kill()
    path = alpha.tree.runtime / "records.json"
    content = json.loads(path.read_bytes())
    for item in content:
        if item["key"] == "server/alpha":
            item["value"] = {"state": "drained"}
    path.write_text(json.dumps(content))
    alpha.up()
    for host in (alpha, beta):
        wait_for(
            "an alarm",
            lambda host=host: _alarmed(host, "two different records server/alpha"),  # type: ignore[misc]
            Deadline(40),
        )
    assert _record(beta, "server/alpha") == {"state": "in service"}
    assert _record(alpha, "server/alpha") == {"state": "drained"}


def _alarmed(host: AgentHost, text: str) -> bool:
    return any(text in alarm["text"] for alarm in host.status()["alarms"])


def _record(host: AgentHost, key: str) -> object:
    content = json.loads((host.tree.runtime / "records.json").read_bytes())
    return next((item["value"] for item in content if item["key"] == key), None)
