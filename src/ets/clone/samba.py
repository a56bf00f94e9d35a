"""Samba's security id carried over to a new name.

``secrets.tdb`` keys the SID by the NetBIOS name, which follows the host name unless smb.conf says
another. Under a new name Samba would make a new SID in silence, and every user's SID with it
would be another: files and profiles of Windows machines would belong to strangers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ets.clone.trees import Tree
from ets.errors import CommandFailed, HostError

_CONFIG = "/etc/samba/smb.conf"
_SECRETS = "/var/lib/samba/private/secrets.tdb"
#: as many characters as NetBIOS has for a name
_WIDTH = 15
_NAME = re.compile(r"(?im)^(?P<key>\s*netbios\s*name\s*=\s*)(?P<name>\S+)")
_MEMBER = re.compile(
    r"(?im)^\s*(?:security\s*=\s*(?:ads|domain)|server\s*role\s*=.*(?:member|controller))"
)


def carry_over(tree: Tree, old: str, new: str) -> Iterator[str]:
    """Give the server ``new`` the SID that ``old`` has; its own NetBIOS name where it had one."""
    config = tree.text(_CONFIG)
    told = _NAME.search(config)
    before = told["name"] if told else old[:_WIDTH]
    if _MEMBER.search(config):
        yield f"samba is a member of a domain: join {new} to it (net ads join)"
    if told and before.lower() == new[:_WIDTH].lower():
        return  # an earlier run came to its end here
    if told and before.lower() != old[:_WIDTH].lower():
        yield f"samba keeps its NetBIOS name {before}, which smb.conf gives every server"
        return
    if tree.read(_SECRETS) is not None:
        try:
            yield _sid(tree, before.upper(), new[:_WIDTH].upper())
        except (CommandFailed, HostError) as error:
            yield f"samba's SID could not be carried over: {error.message}"
    tree.edit(_CONFIG, lambda text: _NAME.sub(lambda met: met["key"] + new[:_WIDTH], text))


def _sid(tree: Tree, before: str, after: str) -> str:
    said = tree.inside(["net", f"--netbiosname={before}", "getlocalsid"]).text
    met = re.search(r"S-1-5-21(?:-\d+){3}", said)
    if met is None:
        return f"samba has no SID of its own yet: {said.strip()}"
    tree.inside(["net", f"--netbiosname={after}", "setlocalsid", met[0]])
    return f"samba's SID {met[0]} goes with the new name {after}"
