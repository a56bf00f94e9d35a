"""The order in which a station uses the servers: weighted rendezvous hashing of its MAC.

Every server computes it alone and gets the same answer; nothing is stored or exchanged. Promises,
each with a property test in ``tests/unit/test_placement.py``:

1. the share of stations whose first server is S is weight(S) / sum of weights, within what the
   binomial distribution allows;
2. the loss of a server changes no other pair's relative order: only its own stations move;
3. its return restores exactly the order before.

Source: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM ToN
1998; weights by the logarithmic method (Schindelhauer and Schomaker, SPAA 2005):
score = -w / ln(h), h uniform in (0, 1).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Protocol, TypeVar


class Weighted(Protocol):
    """Anything with a name and a positive weight: a ``Server``, or a view of one."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> float: ...


def score(mac: str, server: Weighted) -> float:
    """How much ``server`` wants the station ``mac``; the highest wins. Always positive."""
    digest = hashlib.blake2b(f"{mac.lower()}\0{server.name}".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 0.5) / 2.0**64
    return server.weight / -math.log(uniform) if uniform < 1.0 else math.inf


S = TypeVar("S", bound=Weighted)


def order(mac: str, servers: Iterable[S]) -> tuple[S, ...]:
    """``servers`` in the order in which the station ``mac`` uses them, its own first."""
    return tuple(sorted(servers, key=lambda server: (-score(mac, server), server.name)))
