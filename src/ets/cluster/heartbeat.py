"""What a server says twice a second: "I am here", in one small datagram that nobody else can make.

A datagram is ``HMAC-SHA256(site secret, body)`` followed by the body, compact JSON of at most
``MAX_BODY`` bytes. The HMAC is looked at first, so that garbage costs one hash and nothing is
parsed that did not come from a server of the site.

Invariant (replay): of one sender only pairs (start, counter) that rise are accepted. ``start``
grows with every start of an agent, ``counter`` with every datagram of it. A recorded datagram can
therefore be played back only to an agent that has itself just started, and buys no more than the
belief that a lost server is alive, which costs balance and nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

Link = Literal["lan", "stations"]
#: the networks on which servers hear each other
LINKS: tuple[Link, ...] = get_args(Link)
FORMAT = 1
MAC_BYTES = 32
MAX_BODY = 1000
_LIMIT = 2**62


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """``server`` on ``link`` is alive.

    ``site`` is the digest of its site file, ``records`` and ``condition`` are fingerprints of its
    runtime records and of what else it has to say (its published images, whether its services
    are well), ``load`` its load average over a minute, ``wall``
    its clock in seconds since 1970.
    """

    server: str
    link: Link
    start: int
    counter: int
    site: str
    records: str
    condition: str
    load: float
    wall: float


class Refused(ValueError):
    """A datagram that is not a heartbeat for us; says why in a few words."""


def encode(beat: Heartbeat, secret: bytes) -> bytes:
    """The datagram. Raises ValueError when it would be too long (an absurd server name)."""
    content = {field.name: getattr(beat, field.name) for field in fields(beat)}
    body = json.dumps({"format": FORMAT, **content}, separators=(",", ":")).encode()
    if len(body) > MAX_BODY:
        raise ValueError(f"a heartbeat of {len(body)} bytes; at most {MAX_BODY}")
    return _authenticator(body, secret) + body


def decode(datagram: bytes, secret: bytes) -> Heartbeat:
    """The heartbeat in a datagram. Raises Refused for anything else, whatever it is."""
    if not MAC_BYTES < len(datagram) <= MAC_BYTES + MAX_BODY:
        raise Refused("wrong length")
    code, body = datagram[:MAC_BYTES], datagram[MAC_BYTES:]
    if not hmac.compare_digest(code, _authenticator(body, secret)):
        raise Refused("not from this site")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused("not JSON") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise Refused("another format")
    return _parse(content)


def _parse(content: dict[str, object]) -> Heartbeat:
    texts = {name: content.get(name) for name in ("server", "link", "site", "records", "condition")}
    counts = {name: content.get(name) for name in ("start", "counter")}
    amounts = {name: content.get(name) for name in ("load", "wall")}
    good = (
        len(content) == len(fields(Heartbeat))
        and all(isinstance(value, str) and len(value) <= 128 for value in texts.values())
        and all(type(value) is int and 0 <= value < _LIMIT for value in counts.values())
        and all(type(value) in (int, float) for value in amounts.values())
        and texts["link"] in LINKS
    )
    if not good:
        raise Refused("not a heartbeat")
    made: dict[str, object] = {**texts, **counts, **amounts}
    return Heartbeat(**made)  # type: ignore[arg-type]


def _authenticator(body: bytes, secret: bytes) -> bytes:
    return hmac.new(secret, b"ets heartbeat\0" + body, hashlib.sha256).digest()


class Gate:
    """Lets each sender's datagrams through once, in rising order.

    Bounded: holds one pair per sender and link, for the named senders only.
    """

    def __init__(self, senders: Collection[str]) -> None:
        self._last: dict[tuple[str, str], tuple[int, int]] = {
            (sender, link): (-1, -1) for sender in senders for link in LINKS
        }

    def admit(self, beat: Heartbeat, link: Link) -> None:
        """Accept ``beat``, which arrived on ``link``, or raise Refused saying why not."""
        last = self._last.get((beat.server, link))
        if last is None:
            raise Refused("not a peer")
        if beat.link != link:
            raise Refused("sent for another network")
        now = (beat.start, beat.counter)
        if now <= last:
            raise Refused("replayed")
        self._last[beat.server, link] = now


def fingerprint(versions: Mapping[str, object]) -> str:
    """Sixteen hexadecimal digits that are equal exactly when the mappings are (but for an
    accident of 2^-64)."""
    text = json.dumps(versions, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
