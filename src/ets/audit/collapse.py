"""One thing that somebody did is one finding: what follows from it is told below it. Pure.

Each rule says what a cause explains. The first cause that explains a finding takes it, in the
order of ``_CAUSES``; what follows from a consequence is told below the cause of all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ets.audit.finding import Finding

#: consequences that are told one by one
SHOWN = 20

_CAUSES = (
    "package", "user", "group", "unit", "timer", "printer", "share", "cron", "alternative",
    "certificate", "nft", "sysctl", "file",
)  # fmt: skip
#: files that only hold what other facts tell: what differs in their content alone is told there
_TOLD = re.compile(
    r"/etc/(?:passwd|shadow|group|gshadow|subuid|subgid|crontab|cron\.d/[^/]+)|"
    r"/var/spool/cron/crontabs/[^/]+|/var/lib/dpkg/(?:status|available)"
)
#: what packages' installation makes again from all packages together
_MADE = re.compile(
    r"/etc/(?:ld\.so\.cache|mailcap|shells|inetd\.conf)|/usr/(?:lib/.*\.cache|share/(?:mime|icons|"
    r"applications|glib-2\.0/schemas|info)/.*)|/var/lib/dpkg/.*"
)
_USERS = re.compile(r"/(?:var/spool/cron/crontabs|var/mail|var/lib/systemd/linger)/")
_INFO = "/var/lib/dpkg/info/"


def collapsed(found: Sequence[Finding], owners: Mapping[str, str]) -> list[Finding]:
    """``found`` with consequences put below their causes."""
    left = [f for f in found if not (f.attribute == "content" and _TOLD.fullmatch(f.subject))]
    parent: dict[int, Finding] = {}
    for kind in _CAUSES:
        explains = _RULES[kind]
        for cause in (f for f in left if f.kind == kind):
            above = _root(cause, parent)
            for other in left:
                free = other is not above and other is not cause and id(other) not in parent
                if free and explains(cause, other, owners):
                    parent[id(other)] = cause
    below: dict[int, list[Finding]] = {}
    for finding in left:
        below.setdefault(id(_root(finding, parent)), []).append(finding)
    return [_with(f, below[id(f)]) for f in left if id(f) not in parent]


def _root(finding: Finding, parent: Mapping[int, Finding]) -> Finding:
    while id(finding) in parent:
        finding = parent[id(finding)]
    return finding


def _with(cause: Finding, family: Sequence[Finding]) -> Finding:
    others = [other for other in family if other is not cause]
    if not others:
        return cause
    told = tuple(other.words for other in others[:SHOWN])
    more = len(others) - len(told)
    return replace(
        cause,
        harm=max(cause.harm, *(other.harm for other in others if other.kind != "file"), 0),
        consequences=(*told, *([f"and {more} more"] if more > 0 else [])),
    )


def _package(cause: Finding, other: Finding, owners: Mapping[str, str]) -> bool:
    bare = cause.subject.partition(":")[0]
    if other.kind == "package":
        return other.subject == cause.subject
    if other.kind == "file":
        path = other.subject
        mine = owners.get(path, "").partition(":")[0] == bare
        info = path.removeprefix(_INFO).partition(":")[0].rpartition(".")[0]
        return mine or info.partition(":")[0] == bare or bool(_MADE.fullmatch(path))
    if other.kind == "unit" and other.missing:
        places = ("/lib/systemd/system/", "/usr/lib/systemd/system/")
        return any(owners.get(p + other.subject, "").partition(":")[0] == bare for p in places)
    if other.kind == "alternative":
        programs = other.servers.values()
        named = any(p.rpartition("/")[2] == bare or owners.get(p) == bare for p in programs)
        return bool(cause.missing) and (named or bool(other.missing))
    if other.kind in ("user", "group") and other.missing:
        return other.subject in (bare, f"_{bare}", f"debian-{bare}")
    return False


def _user(cause: Finding, other: Finding, owners: Mapping[str, str]) -> bool:
    name = cause.subject
    if other.kind == "group":
        if other.subject == name:
            return bool(cause.missing) == bool(other.missing)
        # that a user who is missing is in no group
        parts = [set(value.split(", ")) - {"none"} for value in other.servers.values()]
        return (
            bool(cause.missing)
            and other.attribute in ("members", "administrators")
            and all(part ^ parts[0] <= {name} for part in parts)
        )
    if other.kind == "user":
        return other.subject == name and bool(cause.missing)
    if other.kind == "cron" and cause.missing:
        return other.about.get("from", "").endswith(f"/crontabs/{name}")
    return other.kind == "file" and bool(
        cause.missing and _USERS.match(other.subject) and other.subject.endswith(f"/{name}")
    )


def _group(cause: Finding, other: Finding, owners: Mapping[str, str]) -> bool:
    gids = set(cause.servers.values())
    primary = other.kind == "user" and other.attribute == "group"
    return cause.attribute == "gid" and primary and set(other.servers.values()) == gids


def _unit(cause: Finding, other: Finding, owners: Mapping[str, str]) -> bool:
    stem = cause.subject.rpartition(".")[0]
    if other.kind in ("unit", "timer"):
        return other.subject == cause.subject
    if other.kind == "socket":
        program = other.about.get("program", "")
        return any(p and (p.startswith(stem) or stem.startswith(p)) for p in program.split(", "))
    if other.kind != "file":
        return False
    folder, _, name = other.subject.rpartition("/")
    started = re.fullmatch(r"/etc/rc.\.d", folder) and name[3:] == stem
    link = (
        "link" in other.about.get("kind", "") or " a link on " in other.words
    ) and folder.startswith("/etc/systemd/")
    missing = bool(cause.missing) and folder.endswith("/systemd/system")
    return bool(started) or ((link or missing) and name == cause.subject)


def _timer(cause: Finding, other: Finding, owners: Mapping[str, str]) -> bool:
    if other.kind == "file":
        return other.subject == f"/etc/systemd/system/{cause.subject}"
    return other.kind == "timer" and other.subject == cause.subject and bool(cause.missing)


def _printer(cause: Finding, other: Finding, owners: Mapping[str, str]) -> bool:
    if other.kind == "printer":
        return other.subject == cause.subject and bool(cause.missing)
    files = ("/etc/cups/printers.conf", "/etc/cups/classes.conf", "/etc/printcap")
    driver = re.fullmatch(rf"/etc/cups/ppd/{re.escape(cause.subject)}\.ppd", other.subject)
    return other.kind == "file" and (other.subject in files or driver is not None)


def _share(cause: Finding, other: Finding, owners: Mapping[str, str]) -> bool:
    return other.kind == "share" and other.subject == cause.subject and bool(cause.missing)


def _cron(cause: Finding, other: Finding, owners: Mapping[str, str]) -> bool:
    if other.kind == "cron":
        # the same command at another time
        here, there = (f.subject.split(" ", 5)[5:] for f in (cause, other))
        same = here == there and cause.about.get("from") == other.about.get("from")
        return same and set(cause.missing) != set(other.missing)
    return other.kind == "file" and other.subject == cause.about.get("from")


def _sysctl(cause: Finding, other: Finding, owners: Mapping[str, str]) -> bool:
    """Forwarding sets every card's settings to a router's (Linux, ip-sysctl)."""
    forwarded = re.fullmatch(r"net\.ipv4\.conf\.(?:all|default)\..*", other.subject)
    return cause.subject == "net.ipv4.ip_forward" and other.kind == "sysctl" and bool(forwarded)


def _alternative(cause: Finding, other: Finding, owners: Mapping[str, str]) -> bool:
    if cause.attribute == "chosen":
        return False
    if other.kind == "alternative":
        return other.subject == cause.subject
    folder, _, name = other.subject.rpartition("/")
    places = ("/etc/alternatives", "/var/lib/dpkg/alternatives")
    return (
        other.kind == "file"
        and folder in places
        and (name == cause.subject or name.startswith(f"{cause.subject}."))
    )


def _certificate(cause: Finding, other: Finding, owners: Mapping[str, str]) -> bool:
    if other.kind == "certificate":
        return other.subject == cause.subject
    return other.kind == "file" and other.subject == cause.subject


def _nft(cause: Finding, other: Finding, owners: Mapping[str, str]) -> bool:
    """A table explains what is in it, a chain its rules, and a rule that other rules moved."""
    if other.kind != "nft":
        return False
    what, _, place = cause.subject.partition(" ")
    _, _, inside = other.subject.partition(" ")
    chain = place.partition(":")[0]
    if what in ("table", "chain") and cause.missing:
        return inside.startswith((f"{place} ", f"{place}:"))
    return other.attribute == "place" and inside.partition(":")[0] == chain


def _file(cause: Finding, other: Finding, owners: Mapping[str, str]) -> bool:
    if other.subject == f"{cause.subject}.distrib":
        return bool(cause.missing and other.missing)
    whole = bool(cause.missing) and cause.about.get("kind") == "directory"
    return other.kind == "file" and whole and other.subject.startswith(f"{cause.subject}/")


_RULES: Mapping[str, Callable[[Finding, Finding, Mapping[str, str]], bool]] = {
    "package": _package, "user": _user, "group": _group, "unit": _unit, "timer": _timer,
    "printer": _printer, "share": _share, "cron": _cron, "alternative": _alternative,
    "certificate": _certificate, "nft": _nft, "sysctl": _sysctl, "file": _file,
}  # fmt: skip
