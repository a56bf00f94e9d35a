"""Memory that fails, and memory that was too little."""

from __future__ import annotations

from collections.abc import Iterator

from ets.host.transport import Host
from ets.ready._ask import answers, rows, script
from ets.ready.finding import Facts, Finding
from ets.site.model import Server, Site

NAME = "memory"

_COUNTERS = r"""
for f in /sys/devices/system/edac/mc/mc*/[cu]e_count; do
  [ -r "$f" ] && { read -r n <"$f"; f=${f#/sys/devices/system/edac/mc/}; echo "$f $n"; }
done; true
"""
_KERNEL = r"""
{ journalctl -k -b -o cat --no-pager || dmesg; } |
  grep -E 'mce: \[Hardware Error\]|Memory failure|EDAC .* [CU]E |Out of memory: Killed process' |
  tail -n 50; true
"""
DEATH = "wrong bits end up in users' files, and from there on the other server"


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """The memory controllers' counters, where they have any, and the kernel's log."""
    return answers(host, {"counters": script(_COUNTERS), "kernel": script(_KERNEL)})


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """Corrected errors are a warning, others are critical."""
    for name, count in rows(facts.get("counters", ""), 2):
        if count != "0":
            bad = "ue_count" in name
            yield Finding(
                "critical" if bad else "warning",
                name.split("/")[0],
                f"counted {count} memory errors that were {'not ' if bad else ''}corrected",
                DEATH,
                "replace the module (edac-util -v names it), and run memtest86+ after that",
            )
    lines = facts.get("kernel", "").splitlines()
    hard = [line for line in lines if "Out of memory" not in line]
    if hard:
        yield Finding(
            "critical",
            "hardware",
            f"the kernel saw {len(hard)} hardware errors since the start, the last: {hard[-1]}",
            DEATH,
            "apt install rasdaemon; ras-mc-ctl --errors; run memtest86+",
        )
    killed = [line for line in lines if "Out of memory" in line]
    if killed:
        yield Finding(
            "warning",
            "memory",
            f"was too little {len(killed)} times since the start: {killed[-1].strip()}",
            "when its peer dies this server carries twice as many users",
            "ps aux --sort -rss | head; add memory, or let stations run their own desktop",
        )
