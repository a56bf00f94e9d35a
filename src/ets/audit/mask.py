"""Servers' own names and addresses, taken out of other things, so that what two servers do on
addresses of their own is the same. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ets.facts.inventory import Inventory
from ets.facts.kinds import Facts


class Mask:
    """What one server says, with *its address in NETWORK*, *a peer's address in NETWORK* and so on
    in place of what tells servers apart."""

    def __init__(self, inventory: Inventory, all_of_them: Sequence[Inventory]) -> None:
        self._words: dict[str, str] = {}
        for other in all_of_them:
            whose = "its" if other is inventory else "a peer's"
            for address, about in other.facts.get("address", {}).items():
                own = inventory.facts.get("address", {})
                if other is inventory or address not in own:
                    self._words[address] = f"{whose} address in {about.get('network', '')}"
            if other is inventory or other.server != inventory.server:
                self._words[other.server] = f"{whose} name"
        known = sorted(map(re.escape, self._words), key=len, reverse=True)
        self._any = re.compile(rf"(?<![\w.:-])(?:{'|'.join(known)})(?![\w:-]|\.\w)")

    def text(self, text: str) -> str:
        """``text`` as every server of the site would say it."""
        return self._any.sub(lambda met: self._words[met[0]], text)

    def facts(self, facts: Facts) -> Facts:
        """Facts, with names and values masked."""
        return {
            self.text(name): {key: self.text(value) for key, value in about.items()}
            for name, about in facts.items()
        }
