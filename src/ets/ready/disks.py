"""Disks that fail: what SMART says, what the kernel saw, and arrays that have lost one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ets.host.transport import Host
from ets.ready._ask import answers, document, files, script
from ets.ready.finding import Facts, Finding
from ets.site.model import Server, Site

NAME = "disks"

# -n standby: a disk that sleeps is not woken.
_SMART = r"""
command -v smartctl >/dev/null || exit 127
smartctl --scan | while read -r dev d type x; do
  echo "== $dev"; smartctl --json -n standby -i -H -A -l error -d "$type" "$dev"; echo
done
"""
_KERNEL = r"""
{ journalctl -k -b -o cat --no-pager || dmesg; } |
  grep -E -e 'I/O error|critical (medium|target) error|failed command: |media error' \
    -e 'EXT4-fs error|XFS .*corrupt|BTRFS.*(error|corrupt)|Remounting filesystem read-only' |
  tail -n 50; true
"""
#: ATA attributes whose raw value counts damage (smartctl(8))
DAMAGE = {
    5: "reallocated sectors",
    187: "errors that could not be corrected",
    197: "sectors waiting to be reallocated",
    198: "sectors that cannot be read",
}
WORN = 90
DEATH = "a server whose disk dies has to be made anew while the other one carries everything alone"


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """Every disk's own words, the kernel's log since the start, and the arrays."""
    return answers(
        host,
        {
            "lsblk": ["lsblk", "--json", "--nodeps", "--output", "NAME,TYPE,TRAN,MODEL,RO"],
            "smart": script(_SMART),
            "kernel": script(_KERNEL),
            "arrays": ["cat", "/proc/mdstat"],
        },
        deadline=120,
    )


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """Disks, the log, the arrays."""
    for path, text in files(facts.get("smart", "")):
        said = document(text)
        if said:
            yield from _smart(path, said)
    real = [
        disk["name"]
        for disk in (document(facts.get("lsblk", "")) or {}).get("blockdevices", [])
        if disk.get("type") == "disk" and disk.get("tran") in ("sata", "sas", "nvme", "ata")
    ]
    if real and "smart" not in facts:
        yield Finding(
            "note",
            ", ".join(f"/dev/{name}" for name in real),
            "nobody asks the disks how they are",
            DEATH,
            "apt install smartmontools",
        )
    yield from _errors(facts.get("kernel", ""))
    yield from _arrays(facts.get("arrays", ""))


def _smart(path: str, said: dict[str, Any]) -> Iterator[Finding]:
    name = f"{path} ({said['model_name']})" if "model_name" in said else path
    if said.get("smart_status", {}).get("passed") is False:
        yield _replace("critical", name, "says of itself that it is failing")
    for row in said.get("ata_smart_attributes", {}).get("table", []):
        count = row.get("raw", {}).get("value", 0)
        if row.get("when_failed") == "now":
            yield _replace("critical", name, f"{row['name']} is below its threshold")
        elif row.get("id") in DAMAGE and 0 < count < 1 << 32:
            yield _replace("warning", name, f"has {count} {DAMAGE[row['id']]}")
    nvme = said.get("nvme_smart_health_information_log", {})
    if nvme.get("critical_warning"):
        yield _replace("critical", name, f"warns (0x{nvme['critical_warning']:02x}, nvme(1))")
    if nvme.get("media_errors"):
        yield _replace("warning", name, f"has {nvme['media_errors']} media errors")
    if nvme.get("percentage_used", 0) >= WORN:
        yield _replace("warning", name, f"has used {nvme['percentage_used']} % of its life")
    spare = nvme.get("available_spare", 100)
    if spare < nvme.get("available_spare_threshold", 0):
        yield _replace("critical", name, f"has {spare} % of its spare blocks left")
    grown = said.get("scsi_grown_defect_list", 0)
    if grown:
        yield _replace("warning", name, f"has {grown} defects that came in use")


def _replace(severity: Any, name: str, words: str) -> Finding:
    path = name.split(maxsplit=1)[0]
    return Finding(
        severity,
        name,
        words,
        DEATH,
        f"smartctl -a {path}; back up, replace the disk, and clone after that",
    )


def _errors(text: str) -> Iterator[Finding]:
    lines = text.splitlines()
    found: dict[str, list[str]] = {}
    for line in lines:
        named = re.search(r"\b(sd[a-z]+|nvme\d+n\d+|vd[a-z]+|ata\d+|md\d+|dm-\d+)", line)
        found.setdefault(named.group(1) if named else "kernel", []).append(line.strip())
    for name, said in found.items():
        if not name.startswith(("loop", "nbd", "sr")):
            yield Finding(
                "critical",
                name,
                f"the kernel saw {len(said)} disk errors since the start, the last: {said[-1]}",
                DEATH,
                "journalctl -k -b; check the cable, then replace the disk",
            )


def _arrays(text: str) -> Iterator[Finding]:
    for name, body in re.findall(r"^(md\S+) : (.*\n(?:[ \t].*\n?)*)", text, re.MULTILINE):
        state = re.search(r"\[(\d+)/(\d+)\] \[([U_]+)\]", body)
        if state and "_" in state.group(3):
            busy = "recovery" in body or "resync" in body
            yield Finding(
                "warning" if busy else "critical",
                f"/dev/{name}",
                f"runs on {state.group(2)} of {state.group(1)} disks"
                + (", and is being made whole" if busy else ""),
                "the next disk that fails takes the whole server with it",
                f"mdadm --detail /dev/{name}; mdadm --add /dev/{name} NEW-DISK",
            )
