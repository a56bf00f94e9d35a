"""Is the running kernel the installed one, and does anything wait for a restart?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ets.host.transport import Host
from ets.ready._ask import answers, listed, script
from ets.ready.finding import Facts, Finding
from ets.site.model import Server, Site

NAME = "kernel"

_INSTALLED = r"""
for k in /boot/vmlinuz-*; do [ -f "$k" ] && echo "${k#/boot/vmlinuz-}"; done | sort -V
"""
_PACKAGE = r"""dpkg-query -W -f='${db:Status-Status} ${Version}\n' "linux-image-$(uname -r)" """
_MODULES = r"""[ -d "/lib/modules/$(uname -r)" ] && echo yes || echo no"""
_PENDING = r"""
[ -e /run/reboot-required ] || [ -e /var/run/reboot-required ] || exit 0
echo required; sort -u /run/reboot-required.pkgs; true
"""
# Libraries that were replaced under running programs: those go on with the old ones.
_OLD = r"""
for p in /proc/[0-9]*; do
  [ "$(readlink "$p/ns/mnt")" = "$(readlink /proc/self/ns/mnt)" ] || continue
  grep -q -E ' (/usr)?/lib/.*\.so[.0-9]* \(deleted\)$' "$p/maps" || continue
  read -r comm <"$p/comm" && echo "$comm"
done | sort -u
"""
DEATH = "this server comes back from its next start as something that nobody has tried"


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """The kernel's release and build, the installed ones, and what waits."""
    return answers(
        host,
        {
            "container": ["systemd-detect-virt", "--container"],
            "release": ["uname", "-r"],
            "build": ["uname", "-v"],
            "installed": script(_INSTALLED),
            "package": script(_PACKAGE),
            "modules": script(_MODULES),
            "pending": script(_PENDING),
            "old": script(_OLD),
        },
    )


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """A container has its host's kernel, of which nothing is said."""
    if facts.get("container", "none").strip() in ("none", ""):
        yield from _kernel(facts)
    pending = facts.get("pending", "").split()
    if pending:
        yield Finding(
            "warning",
            "restart",
            f"is asked for by {listed(pending[1:]) or 'a package'}",
            DEATH,
            "systemctl reboot (ets drain first, when stations are connected)",
        )
    old = facts.get("old", "").split()
    if old:
        yield Finding(
            "warning",
            "replaced libraries",
            f"are still used by {listed(old)}",
            "the holes that an update closed are open until these are started again",
            "apt install needrestart; needrestart -r l; or systemctl reboot",
        )


def _kernel(facts: Facts) -> Iterator[Finding]:
    release, installed = facts.get("release", "").strip(), facts.get("installed", "").split()
    if not release:
        return
    if not installed:
        yield Finding(
            "critical",
            "kernel",
            f"{release} runs, and no kernel is installed below /boot",
            "neither this server nor its clone starts from its disk",
            "apt install linux-image-amd64",
        )
    elif installed[-1] != release:
        yield Finding(
            "warning", "kernel", f"{release} runs, {installed[-1]} is installed", DEATH,
            "systemctl reboot",
        )  # fmt: skip
    elif (version := _version(facts.get("package", ""))) and version not in facts.get("build", ""):
        built = re.search(r"Debian (\S+)", facts.get("build", ""))
        if built:
            yield Finding(
                "warning",
                "kernel",
                f"{release} of {built.group(1)} runs, {version} is installed",
                DEATH,
                "systemctl reboot",
            )
    if facts.get("modules", "").strip() == "no":
        yield Finding(
            "critical",
            "kernel modules",
            f"/lib/modules/{release} is gone under the running kernel",
            "no module can be loaded any more: no USB disk, no new firewall rule, no file system",
            "systemctl reboot",
        )


def _version(text: str) -> str:
    words = text.split()
    return words[1] if len(words) == 2 and words[0] == "installed" else ""
