"""Backups: is there anything that makes them, and does it work?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ets.host.transport import Host
from ets.ready._ask import answers, fields, listed, script
from ets.ready.finding import Facts, Finding
from ets.site.model import Server, Site

NAME = "backups"

DAY = 86400
OLD = 8 * DAY
PROGRAM = re.compile(
    r"\b(borg|borgmatic|restic|rsnapshot|duplicity|bacula|bareos|amanda|backuppc|burp|bup|"
    r"dirvish|timeshift|zrepl|sanoid|syncoid|btrbk|urbackup|veeam|rclone|tarsnap|backup)",
    re.IGNORECASE,
)
#: dpkg's own copies of its database, and the like, back nothing up
NO_BACKUP = re.compile(r"dpkg-db-backup|/etc/cron\.daily/dpkg|xfs_scrub|e2scrub", re.IGNORECASE)

_SCHEDULED = r"""
cat /etc/crontab /etc/cron.d/* /etc/anacrontab | grep -v '^[[:space:]]*#'
for f in /etc/cron.hourly/* /etc/cron.daily/* /etc/cron.weekly/*; do [ -f "$f" ] && echo "$f"; done
cat /var/spool/cron/crontabs/* | grep -v '^[[:space:]]*#'; true
"""
_UNITS = r"""
date +now=%s
units=$(systemctl list-unit-files --no-legend --type=service,timer |
  while read -r u state x; do case "$u" in *@.*) ;; *) echo "$u";; esac; done)
systemctl show --property=Id,ActiveState,UnitFileState,Result,LastTriggerUSec \
  --timestamp=unix -- $units
"""
DEATH = (
    "two equal servers are no backup: what a user, a virus or a bug deletes on one is gone on both"
)
STEP = "set one up (apt install borgmatic, or restic) that writes to another building"


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """What cron and systemd run, by name."""
    return answers(host, {"scheduled": script(_SCHEDULED), "units": script(_UNITS)})


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """Something that looks like a backup, enabled, recent, and not failed."""
    if "scheduled" not in facts and "units" not in facts:
        return
    lines = [line for line in facts.get("scheduled", "").splitlines() if _is_one(line)]
    blocks = [fields(block) for block in facts.get("units", "").split("\n\n")]
    units = [block for block in blocks if _is_one(block.get("Id", ""))]
    on = [
        u for u in units if u.get("ActiveState") == "active" or u.get("UnitFileState") == "enabled"
    ]
    if not lines and not on:
        off = [u["Id"] for u in units]
        there = f" ({listed(off)} is there, but not enabled)" if off else ""
        yield Finding("warning", "backups", f"nothing here makes any{there}", DEATH, STEP)
    now = float(blocks[0].get("now", 0)) if blocks else 0
    for unit in units:
        yield from _unit(unit, now)


def _is_one(text: str) -> bool:
    return bool(PROGRAM.search(text)) and not NO_BACKUP.search(text)


def _unit(unit: dict[str, str], now: float) -> Iterator[Finding]:
    name = unit["Id"]
    if unit.get("Result") not in ("success", "", None):
        yield Finding(
            "critical",
            name,
            f"failed when it ran last ({unit['Result']})",
            DEATH,
            f"journalctl -u {name}",
        )
    last = unit.get("LastTriggerUSec", "")
    if name.endswith(".timer") and unit.get("ActiveState") == "active" and last.startswith("@"):
        age = now - float(last[1:])
        if age > OLD:
            yield Finding(
                "warning",
                name,
                f"ran {int(age / DAY)} days ago for the last time",
                DEATH,
                f"systemctl status {name}; systemctl start {name.removesuffix('.timer')}",
            )
