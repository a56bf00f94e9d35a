"""What ``ets status`` shows: one document, made from what the agent holds at that moment.

::

    {"format": 1, "server", "site": {"name", "digest"}, "now", "uptime", "version",
     "servers":  [{"name", "self", "weight", "state", "verdict", "reason", "links": {link: age},
                   "age", "skew", "load", "same_site", "services": [{"name", "well", "detail"}],
                   "trouble"}],
     "stations": [{"mac", "name", "address", "known", "image", "order": [server],
                   "report": null | {"age", "uptime", "digest", "reads", "hedges", "wrong",
                                     "longest_stall_us", "servers": [{"server", "address", "state",
                                     "reads", "hedges", "wrong", "latency_us"}]}}],
     "images":   [{"name", "digest", "generation", "here", "equal", "servers": {server: digest},
                   "trouble"}],
     "shares":   [{"server", "weight", "wanted", "computed", "connected", "reading"}],
     "alarms":   [{"server", "text", "since", "times"}],
     "dhcp":     {"ready", "trouble", "guests", "sends"}, "tasks": {name: trouble},
     "counters": {...}}

Ages are in seconds, shares between 0 and 1. ``wanted`` is the server's weight, ``computed`` the
share of stations whose first server it is, ``connected`` how many stations report a connection to
it, ``reading`` how many have it as the first that is up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ets.agent.stations import Kept
from ets.cluster import bootscript
from ets.site.model import Server

if TYPE_CHECKING:
    from ets.agent.core import Agent

FORMAT = 1
Json = dict[str, Any]


def document(agent: Agent) -> Json:
    """The whole status."""
    stations = _stations(agent)
    servers = _servers(agent)
    alarms = [{"server": agent.place.me.name, **item} for item in agent.alarms()]
    for peer, known in agent.peers.known.items():
        told = known.observed.get("alarms", [])
        for item in told[:50] if isinstance(told, list) else []:
            if isinstance(item, dict):
                alarms.append({**item, "server": peer})
    return {
        "format": FORMAT,
        "server": agent.place.me.name,
        "site": {"name": agent.place.site.name, "digest": agent.place.site.digest},
        "now": agent.wall(),
        "uptime": agent.monotonic() - agent.began,
        "version": agent.version,
        "servers": servers,
        "stations": stations,
        "images": _images(agent),
        "shares": shares(agent.place.site.servers, stations),
        "alarms": alarms,
        "dhcp": {
            "ready": agent.dhcp.ready,
            "trouble": agent.dhcp.trouble,
            "guests": len(agent.dhcp.learned()),
            "sends": agent.dhcp.sends,
        },
        "tasks": dict(agent.troubles),
        "counters": counters(agent),
    }


def observed(agent: Agent) -> Json:
    """What this server says of itself to its peers."""
    return {
        "services": [
            {"name": h.name, "well": h.well, "detail": h.detail} for h in agent.supervisor.health
        ],
        "published": agent.images.published_here(),
        "images": agent.images.condition(),
        "alarms": agent.alarms(),
        "load": agent.load(),
    }


def counters(agent: Agent) -> dict[str, dict[str, int]]:
    """Everything that is counted."""
    return {
        "heartbeats": dict(agent.heartbeats.counts),
        "reports": dict(agent.stations.counts),
        "boot": dict(agent.boot_counts),
    }


def _servers(agent: Agent) -> list[Json]:
    rows = []
    decisions = agent.heartbeats.decisions()
    for server in agent.place.site.servers:
        row: Json = {
            "name": server.name,
            "weight": server.weight,
            "state": agent.state_of(server.name),
            "address": str(server.stations),
        }
        if server == agent.place.me:
            mine = observed(agent)
            row |= {
                "self": True,
                "verdict": "alive",
                "reason": "this server",
                "links": {},
                "age": 0.0,
                "skew": 0.0,
                "load": agent.load(),
                "same_site": True,
                "services": mine["services"],
                "trouble": "",
            }
        else:
            row |= _peer(
                agent, server, decisions[server.name].verdict, decisions[server.name].reason
            )
            row["age"] = decisions[server.name].age
        rows.append(row)
    return rows


def _peer(agent: Agent, server: Server, verdict: str, reason: str) -> Json:
    heard = agent.heartbeats.last.get(server.name)
    known = agent.peers.known[server.name]
    return {
        "self": False,
        "verdict": verdict,
        "reason": reason,
        "links": agent.heartbeats.ages(server.name),
        "skew": None if heard is None else round(heard.skew, 3),
        "load": None if heard is None else heard.beat.load,
        "same_site": None if heard is None else heard.beat.site == agent.place.site.digest,
        "services": known.observed.get("services", []) if verdict == "alive" else [],
        "trouble": known.trouble,
    }


def _stations(agent: Agent) -> list[Json]:
    site = agent.place.site
    kept = agent.stations.kept()
    now = agent.now()
    rows = [
        (station.mac, station.name, str(station.address), True, station.image)
        for station in site.stations
    ]
    rows += [
        (
            guest.mac,
            bootscript.guest_name(guest.mac),
            str(guest.address),
            False,
            site.defaults.image,
        )
        for guest in agent.dhcp.learned()
    ]
    names = {str(server.stations): server.name for server in site.servers}
    return [
        {
            "mac": mac,
            "name": name,
            "address": address,
            "known": known,
            "image": image,
            "order": [server.name for server in agent.boot.order(mac, now)],
            "report": _report(kept.get(mac), agent.monotonic(), names),
        }
        for mac, name, address, known, image in rows
    ]


def _report(kept: Kept | None, now: float, names: Mapping[str, str]) -> Json | None:
    if kept is None:
        return None
    content = kept.report.model_dump(mode="json", exclude={"mac", "name"})
    for row in content["servers"]:
        row["server"] = names.get(row["address"].partition(":")[0], "")
    return {"age": round(now - kept.at, 1), **content}


def _images(agent: Agent) -> list[Json]:
    mine = agent.images.published_here()
    condition = agent.images.condition()
    rows = []
    for name in sorted({*agent.place.site.images, *mine}):
        held = {agent.place.me.name: mine.get(name)}
        for peer, known in agent.peers.known.items():
            told = known.observed.get("published")
            held[peer] = told.get(name) if isinstance(told, dict) else None
        digests = {server: _field(entry, "digest") for server, entry in held.items()}
        asked = {d for s, d in digests.items() if s == agent.place.me.name or agent.is_alive(s)}
        rows.append(
            {
                "name": name,
                "digest": digests[agent.place.me.name],
                "generation": _field(mine.get(name), "generation"),
                "here": name in agent.images.boot_images(),
                "equal": len(asked) == 1 and None not in asked,
                "servers": digests,
                "trouble": condition.get(name, ""),
            }
        )
    return rows


def _field(entry: object, name: str) -> object:
    return entry.get(name) if isinstance(entry, dict) else None


def shares(servers: Sequence[Server], stations: Sequence[Json]) -> list[Json]:
    """How the stations are spread: as the weights want it, as computed, as reported."""
    total = sum(server.weight for server in servers)
    first = Counter(row["order"][0] for row in stations if row["order"])
    connected: Counter[str] = Counter()
    reading: Counter[str] = Counter()
    for row in stations:
        report = row["report"]
        up = [s["server"] for s in report["servers"] if s["state"] == "up"] if report else []
        connected.update(set(up))
        reading.update(up[:1])
    return [
        {
            "server": server.name,
            "weight": server.weight,
            "wanted": server.weight / total,
            "computed": first[server.name] / len(stations) if stations else 0.0,
            "connected": connected[server.name],
            "reading": reading[server.name],
        }
        for server in servers
    ]
