"""How a blank machine and a server come to trust each other over a network that nobody trusts.

Pure. The parts, all plain JSON over HTTP:

*commit*   the newcomer sends the sha256 of its request and is told the server's *terms* and a
           nonce that follows from that commitment;
*ask*      it sends the request itself (its ssh key, its certificate request, its hardware). The
           *transcript* is the sha256 over terms, request and nonce: whoever changes anything on
           the way makes two transcripts of one. The *code* shown on both sides is its first 100
           bits.
*approve*  a token that only the two sides know proves the transcript to each of them (HMAC), or
           an administrator types the newcomer's code on the server, or the join was opened
           unattended for the newcomer's card.

Invariants:

1. nobody is approved but for one transcript (``ets.clone.states`` says by what);
2. neither side can choose its part after it has seen the other's (so two transcripts with one
   code cannot be looked for): the request is fixed by the commitment, the nonce follows from it.

What the wire cannot be asked for: a machine that boots from a network in somebody else's hands
runs somebody else's installer. Nothing of this site gets there without an approval, though.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

VERSION = 1
#: Crockford's base 32: no I, L, O or U
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
TOKEN_BYTES = 10
CODE_BITS = 100
#: bytes of a request, with all that a machine tells of its hardware
MAX_REQUEST = 24_000

_SSH_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{68}")
_HEX32 = re.compile(r"[0-9a-f]{64}")


def canonical(value: object) -> bytes:
    """The one way to write ``value`` as JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def base32(data: bytes, bits: int) -> str:
    """The first ``bits`` of ``data`` (a multiple of 20) as groups of four, with hyphens."""
    number = int.from_bytes(data, "big") >> (len(data) * 8 - bits)
    digits = [ALPHABET[number >> shift & 31] for shift in range(bits - 5, -1, -5)]
    return "-".join("".join(digits[at : at + 4]) for at in range(0, len(digits), 4))


def normal(typed: str) -> str:
    """A token or code as ``base32`` writes it, from what a person typed: any case, any spaces or
    hyphens, and O, I and L where 0 and 1 were meant."""
    told = re.sub(r"[\s-]", "", typed).upper().translate(str.maketrans("OIL", "011"))
    return "-".join(told[at : at + 4] for at in range(0, len(told), 4))


def token_of(random: bytes) -> str:
    """A token (80 bits) from ``TOKEN_BYTES`` random bytes."""
    return base32(random, TOKEN_BYTES * 8)


def well_formed(typed: str, bits: int) -> bool:
    """Has what a person typed the length and the letters of a token or code of ``bits``?"""
    told = normal(typed).replace("-", "")
    return len(told) == bits // 5 and all(letter in ALPHABET for letter in told)


def token_key(token: str) -> str:
    """What a server keeps of a token, and proofs are made with (hex)."""
    return hashlib.sha256(b"ets join token\n" + normal(token).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Terms:
    """What the server says of itself and of the join. ``source`` is the server that is copied,
    ``host_key`` the public ssh key of its sshd for this, ``ca`` the site's CA (PEM), ``id`` tells
    this join from an earlier one of the same name."""

    site: str
    name: str
    source: str
    id: str
    host_key: str
    ca: str
    port: int
    layout: str
    mirror: bool
    rebuild: bool
    erase: bool

    def document(self) -> dict[str, object]:
        """As it is sent."""
        told = {name: getattr(self, name) for name in self.__slots__}
        return {"version": VERSION, **told}

    @classmethod
    def read(cls, document: object) -> Terms:
        """From what was sent. Raises ValueError."""
        found = _fields(document, "terms")
        if found.get("version") != VERSION:
            raise ValueError("the server speaks another version of this protocol")
        port = found.get("port")
        if type(port) is not int or not 0 < port < 65536:
            raise ValueError("port is no port")
        return cls(
            site=_text(found, "site"), name=_text(found, "name"), source=_text(found, "source"),
            id=_text(found, "id"), host_key=_ssh_key(found, "host_key"), ca=_text(found, "ca"),
            port=port, layout=_text(found, "layout"), mirror=found.get("mirror") is True,
            rebuild=found.get("rebuild") is True, erase=found.get("erase") is True,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """What a newcomer says of itself. ``mac`` is the card that it booted from, ``ssh`` its public
    key for the copy (ed25519), ``csr`` its certificate request (PEM), ``nonce`` 32 random bytes in
    hexadecimal; ``hardware`` is shown to the administrator and believed by nobody."""

    name: str
    mac: str
    nonce: str
    ssh: str
    csr: str
    hardware: Mapping[str, object]

    def document(self) -> dict[str, object]:
        """As it is sent."""
        told = {name: getattr(self, name) for name in self.__slots__}
        return {"version": VERSION, **told, "hardware": dict(self.hardware)}

    @classmethod
    def read(cls, document: object) -> Request:
        """From what was sent. Raises ValueError."""
        found = _fields(document, "request")
        if found.get("version") != VERSION:
            raise ValueError("the newcomer speaks another version of this protocol")
        texts = {name: _text(found, name) for name in ("name", "mac", "nonce", "csr")}
        if not _HEX32.fullmatch(texts["nonce"]):
            raise ValueError("nonce is not 32 bytes in hexadecimal")
        made = cls(
            **texts, ssh=_ssh_key(found, "ssh"), hardware=_fields(found.get("hardware"), "hardware")
        )
        if len(canonical(made.document())) > MAX_REQUEST:
            raise ValueError("the request is too long")
        return made


def _fields(document: object, what: str) -> dict[str, Any]:
    if isinstance(document, dict):
        return document
    raise ValueError(f"{what} is no table")


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or len(value) > 8192:
        raise ValueError(f"{name} is no text")
    return value


def _ssh_key(found: Mapping[str, Any], name: str) -> str:
    """A public key, and nothing that could be more than one word in a file of keys."""
    text = _text(found, name)
    if not _SSH_KEY.fullmatch(text):
        raise ValueError(f"{name} is no ed25519 key")
    return text


def commitment(request: Request) -> str:
    """What a newcomer sends before its request (hex)."""
    return hashlib.sha256(b"ets join commit\n" + canonical(request.document())).hexdigest()


def is_commitment(text: object) -> bool:
    """Is it the form of one?"""
    return isinstance(text, str) and _HEX32.fullmatch(text) is not None


def answer_to(commit: str, secret: bytes) -> str:
    """The server's nonce for a commitment (hex): unknown to everybody before it is asked for, and
    nothing has to be remembered of whoever asked."""
    return hmac.new(secret, b"ets join nonce\n" + commit.encode(), hashlib.sha256).hexdigest()


def transcript(terms: Terms, request: Request, nonce: str) -> str:
    """The sha256 (hex) over everything that both sides must have seen alike."""
    told = {"terms": terms.document(), "request": request.document(), "nonce": nonce}
    return hashlib.sha256(b"ets join\n" + canonical(told)).hexdigest()


def code(seen: str) -> str:
    """What both sides show of a transcript."""
    return base32(bytes.fromhex(seen), CODE_BITS)


def proof(key: str, side: Literal["newcomer", "server"], seen: str) -> str:
    """That ``side`` knows the token with that ``token_key`` (hex)."""
    told = f"ets join {side}\n{seen}".encode()
    return hmac.new(bytes.fromhex(key), told, hashlib.sha256).hexdigest()


def proves(given: object, key: str, side: Literal["newcomer", "server"], seen: str) -> bool:
    """Is ``given`` that proof? Takes as long for a wrong one as for the right one."""
    wanted = proof(key, side, seen)
    return isinstance(given, str) and given.isascii() and hmac.compare_digest(given, wanted)


def report_bytes(join: str, content: Mapping[str, object]) -> bytes:
    """What a newcomer signs of a report."""
    return b"ets join report\n" + canonical({"id": join, "report": dict(content)})


def report_parts(document: object) -> tuple[str, Mapping[str, object], bytes]:
    """Name, content and signature of a report as it was sent. Raises ValueError."""
    found = _fields(document, "a report")
    signature = bytes.fromhex(_text(found, "signature"))
    return _text(found, "name"), _fields(found.get("report"), "report"), signature


def plain(text: str, limit: int) -> str:
    """What a stranger said, fit for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text[:limit])
