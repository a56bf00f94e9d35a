"""Is there a firewall, is it on, and does it come back after a restart?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ets.host.transport import Host
from ets.ready._ask import answers, document, fields, script
from ets.ready.finding import Facts, Finding
from ets.site.model import Server, Site

NAME = "firewall"

#: units that bring rules at the start
UNITS = ("nftables.service", "netfilter-persistent.service", "ufw.service", "firewalld.service",
         "shorewall.service")  # fmt: skip
_STATES = 'for u in "$@"; do echo "$u=$(systemctl is-enabled "$u")"; done'
_FORWARD = "cat /proc/sys/net/ipv4/ip_forward"
DEATH = "the stations' network is hostile ground: what no service declared is open to all of it"


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """The kernel's rules, what loads them, and whether packets are forwarded."""
    return answers(
        host,
        {
            "ruleset": ["nft", "-j", "list", "ruleset"],
            "iptables": ["iptables-legacy-save"],
            "units": script(_STATES, *UNITS),
            "forwarding": script(_FORWARD),
        },
    )


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """Something must end in 'drop' on the way in, and on the way through where there is one."""
    if "ruleset" not in facts and "iptables" not in facts:
        yield Finding(
            "critical",
            "firewall",
            "nftables is not installed, so nothing is closed",
            DEATH,
            "ets apply" if site else "apt install nftables",
        )
        return
    rules = (document(facts.get("ruleset", "")) or {}).get("nftables", [])
    legacy = facts.get("iptables", "")
    closed_in = closes(rules, "input") or _legacy(legacy, "INPUT")
    if not closed_in:
        yield Finding(
            "critical",
            "firewall",
            "is off: no rule closes anything on the way in",
            DEATH,
            "ets apply"
            if site
            else "write /etc/nftables.conf (chain input, policy drop); "
            "systemctl enable --now nftables",
        )
    states = fields(facts.get("units", ""))
    if closed_in and states and not any(v == "enabled" for v in states.values()):
        yield Finding(
            "critical",
            "firewall",
            "is on, but nothing loads its rules when the server starts",
            "after a power cut, or on the clone's first start, everything is open",
            "systemctl enable nftables",
        )
    guarded = closes(rules, "forward") or _legacy(legacy, "FORWARD")
    if facts.get("forwarding", "").strip() == "1" and not guarded:
        yield _forwards()


def _forwards() -> Finding:
    return Finding(
        "warning",
        "forwarding",
        "is on, and nothing says who may go where",
        "stations reach everything that this server reaches",
        "sysctl -w net.ipv4.ip_forward=0, or a chain forward with policy drop",
    )


def closes(rules: list[dict[str, Any]], hook: str) -> bool:
    """Does a chain at that hook drop by policy, or as its last rule?"""
    for item in rules:
        chain = item.get("chain", {})
        if chain.get("hook") != hook or chain.get("family") not in ("ip", "inet"):
            continue
        if chain.get("policy") == "drop":
            return True
        key = (chain["family"], chain["table"], chain["name"])
        mine = [
            r["rule"]["expr"]
            for r in rules
            if "rule" in r and (r["rule"]["family"], r["rule"]["table"], r["rule"]["chain"]) == key
        ]
        last = mine[-1] if mine else []
        if last and not any("match" in e for e in last) and ({"drop", "reject"} & set(last[-1])):
            return True
    return False


def _legacy(text: str, chain: str) -> bool:
    """The same in ``iptables-save``."""
    return (
        f":{chain} DROP" in text or f"-A {chain} -j DROP" in text or f"-A {chain} -j REJECT" in text
    )
