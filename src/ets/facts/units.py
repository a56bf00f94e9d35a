"""The state of systemd units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ets.host.transport import Host
from ets.plan.observed import UnitFact

RUNNING = "/run/systemd/system"
PROPERTIES = "LoadState,UnitFileState,ActiveState,SubState"


def systemd(host: Host) -> bool:
    """Does systemd run there? (sd_booted(3))"""
    return RUNNING in host.look([RUNNING])


def read(host: Host, names: Iterable[str]) -> dict[str, UnitFact]:
    """The state of each of the named units, in one call; none where systemd does not run.

    Raises HostError when systemctl cannot be asked.
    """
    wanted = sorted(set(names))
    if not wanted or not systemd(host):
        return {}
    answer = host.run(["systemctl", "show", f"--property={PROPERTIES}", "--", *wanted])
    return parse(wanted, answer.text)


def parse(names: Sequence[str], text: str) -> dict[str, UnitFact]:
    """The states from systemctl's blocks, which come in the order of ``names``."""
    facts = {}
    for name, block in zip(names, text.strip("\n").split("\n\n"), strict=True):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        facts[name] = UnitFact(
            load=values.get("LoadState", "not-found"),
            file_state=values.get("UnitFileState", ""),
            active_state=values.get("ActiveState", "inactive"),
            sub_state=values.get("SubState", "dead"),
        )
    return facts
