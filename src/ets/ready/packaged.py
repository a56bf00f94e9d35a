"""Files of packages that are not any more what the package brought."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ets.host.transport import Host
from ets.ready._ask import answers, listed
from ets.ready.finding import Facts, Finding
from ets.site.model import Server, Site

NAME = "packaged"

#: what people leave out of small installations on purpose (dpkg's path-exclude)
LEFT_OUT = re.compile(r"/usr/share/(doc|man|locale|info|lintian|help|gnome/help|groff|linda)(/|$)")
_LINE = re.compile(r"^(missing|[.?5A-Z]{9})\s+([a-z] )?\s*(/.*?)(?: \((.*)\))?$")
_EACH = 5


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """dpkg's own comparison with the digests that came with the packages."""
    return answers(host, {"verify": ["dpkg", "--verify"]}, deadline=600)


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """Changed programs are critical; changed configuration is what servers are for."""
    rows = [m.groups() for m in map(_LINE.match, facts.get("verify", "").splitlines()) if m]
    changed = [path for how, kind, path, _ in rows if how != "missing" and kind != "c "]
    gone = [
        path
        for how, kind, path, _ in rows
        if how == "missing" and kind != "c " and not LEFT_OUT.search(path)
    ]
    lost = [path for how, kind, path, _ in rows if how == "missing" and kind == "c "]
    for path in changed if len(changed) <= _EACH else ():
        yield _changed(path, path)
    if len(changed) > _EACH:
        yield _changed(f"{len(changed)} files of packages", listed(changed))
    if gone:
        yield Finding(
            "warning",
            f"{len(gone)} file{'s' if len(gone) > 1 else ''} of packages",
            f"missing: {listed(gone)}",
            "what needs them fails when it is needed, on every server",
            f"dpkg -S {gone[0]}; apt install --reinstall PACKAGE",
        )
    if lost:
        yield Finding(
            "note",
            f"{len(lost)} configuration file{'s' if len(lost) > 1 else ''}",
            f"of packages were removed: {listed(lost)}",
            "updates leave them away, on every server",
            "nothing, if it was on purpose; else: "
            "apt install --reinstall -o Dpkg::Options::=--force-confmiss PACKAGE",
        )
    own = [path for how, kind, path, _ in rows if how != "missing" and kind == "c "]
    if own:
        yield Finding(
            "note",
            f"{len(own)} configuration file{'s' if len(own) > 1 else ''}",
            f"differ from the package's: {listed(own)}",
            "the clone copies them; an update will ask about them on every server",
            "nothing, if they are yours",
        )


def _changed(subject: str, path: str) -> Finding:
    return Finding(
        "critical",
        subject,
        "is not what its package brought: the disk, a person or an intruder changed it"
        if subject == path
        else f"are not what their packages brought: {path}",
        "the clone copies the damage; there is no good server left to compare with",
        f"dpkg -S {path.split(',', maxsplit=1)[0]}; find out who did it; "
        "apt install --reinstall PACKAGE",
    )
