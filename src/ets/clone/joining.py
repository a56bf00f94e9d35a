"""The newcomer's side of a join: asks to be let in, and reaches the server that it is copied from.

Everything that must outlive a power cut lies in one directory (``keys``): the two private keys,
the request that was sent, and what was agreed. Whoever takes the directory along goes on where it
ended, with the same approval: the installer on the disk that it makes, and the first boot.
"""

from __future__ import annotations

import http.client
import json
import secrets
import shlex
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from ets import paths
from ets.clone import protocol
from ets.clone.protocol import Request, Terms
from ets.errors import CloneError
from ets.host import pki
from ets.host.atomic import write_atomic
from ets.host.deadline import Deadline
from ets.host.ssh import OPTIONS

#: seconds between two questions, and for an answer
EVERY = 2.0
ANSWER = 6.0
#: seconds for the server's sshd to come up after the approval
LISTENING = 20.0
MAX_ANSWER = 65536
#: seconds between two reports of one stage, and after one that nobody heard: a copy must not wait
#: for its reports
REPORT_EVERY, UNHEARD = 1.0, 15.0

Tell = Callable[[str], None]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Offer:
    """What was agreed: this machine becomes ``server``, copied from ``source``, which is reached
    at ``address``:``port`` and shows ``host_key``. Certificates are PEM. ``now`` is the source's
    clock when it answered, in seconds since 1970: this machine's own may say anything."""

    server: str
    source: str
    address: str
    port: int
    host_key: str
    ca: bytes
    certificate: bytes
    layout: str
    mirror: bool
    rebuild: bool
    erase: bool
    now: float = 0.0


class _Unanswered(Exception):
    """No usable answer; the text says why."""


class Joining:
    """One machine that wants in.

    ``addresses`` are those of the servers that may take it, ``hardware`` what it tells of itself
    (``mac`` is the card that it booted from), ``token`` what a person typed, if anything.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        keys: Path,
        hardware: Mapping[str, object],
        *,
        token: str | None = None,
        port: int = paths.PORT_HTTP,
    ) -> None:
        """Makes the keys where there are none. Raises CloneError for what is no token,
        HostError when ``keys`` cannot be written."""
        if token is not None and not protocol.well_formed(token, protocol.TOKEN_BYTES * 8):
            raise CloneError(
                "that is no join token: it has four groups of four letters and digits",
                hint="type it as ets join shows it; large or small letters are the same",
            )
        self._addresses = tuple(addresses)
        self._keys = keys
        self._hardware = dict(hardware)
        self._port = port
        self._token = self._kept_token(token)
        self._agreed = self._read("agreed.json")
        self._count = 0
        self._stage, self._not_before = "", 0.0
        self.code = ""

    # -- asking -----------------------------------------------------------------------------

    def wait(self, deadline: float, tell: Tell) -> Offer:
        """Ask until this machine is approved, at most ``deadline`` seconds; ``tell`` is given what
        a person should read, each text once.

        Raises CloneError when it is refused (the reason is in it), DeadlinePassed is not used:
        when the time is over, the CloneError says what was heard last.
        """
        end, last = Deadline(deadline), ""
        while True:
            said = ""
            for address in self._addresses:
                try:
                    offer, said = self._ask(address)
                except _Unanswered as error:
                    said = said or str(error)
                    continue
                if offer is not None:
                    self._wait_for_sshd(offer)
                    return offer
                break
            if said != last:
                tell(said)
                last = said
            if end.passed:
                raise CloneError(
                    f"waited {deadline:.0f} s to be let in; the last that was heard: {said}",
                    hint="ets join --list on the server shows what it waits for",
                )
            time.sleep(min(EVERY, end.left))

    def open(self, address: str) -> tuple[Json, ...]:
        """The joins that are open at a server for this machine. Raises CloneError."""
        try:
            answer = self._post(address, "open", {"mac": self._mac})
        except _Unanswered as error:
            raise CloneError(str(error)) from error
        found = answer.get("joins")
        return (
            tuple(row for row in found if isinstance(row, dict)) if isinstance(found, list) else ()
        )

    def _ask(self, address: str) -> tuple[Offer | None, str]:
        """One round of questions: the offer, or what to tell the person."""
        request = self._request(address)
        commit = protocol.commitment(request)
        told = self._post(address, "hello", {"name": request.name, "commit": commit})
        try:
            terms, nonce = Terms.read(told.get("terms")), str(told.get("nonce"))
        except ValueError as error:
            raise _Unanswered(f"{address} answers something unusable: {error}") from error
        if terms.name != request.name:
            raise _Unanswered(f"{address} answers about {terms.name}, not {request.name}")
        seen = protocol.transcript(terms, request, nonce)
        self.code = protocol.code(seen)
        question: Json = {"request": request.document()}
        if self._token:
            question["proof"] = protocol.proof(self._token, "newcomer", seen)
        answer = self._post(address, "ask", question)
        state, why = answer.get("state"), protocol.plain(str(answer.get("why", "")), 500)
        if state == "refused":
            self._forget_token()
            raise CloneError(f"{terms.source} does not let this machine in: {why}", hint=_hint(why))
        if state != "approved":
            return None, f"{terms.source} says: {why}"
        return self._accept(address, terms, seen, answer), why

    def _accept(self, address: str, terms: Terms, seen: str, answer: Json) -> Offer:
        """The offer, when the server has proved what it must. Raises CloneError."""
        if self._token and not protocol.proves(answer.get("proof"), self._token, "server", seen):
            raise CloneError(
                f"the server at {address} does not know the token that was typed: it is not the "
                "one that ets join was run on, or the token is wrong",
                hint="start again; if it stays so, somebody on this network is in between",
            )
        certificate = str(answer.get("certificate", "")).encode()
        key = (self._keys / "server.key").read_bytes()
        if not pki.issued_for(certificate, terms.ca.encode(), key, terms.name):
            raise CloneError(f"the certificate that {terms.source} sent is not this machine's")
        now = answer.get("now")
        agreed: Json = {
            "terms": terms.document(),
            "address": address,
            "certificate": certificate.decode(),
            "now": float(now) if isinstance(now, int | float) else 0.0,
        }
        self._write("agreed.json", json.dumps(agreed).encode())
        known = f"{_alias(terms)} {terms.host_key}\n"
        self._write("known_hosts", known.encode())
        self._agreed = agreed
        return _offer(agreed)

    def _request(self, address: str) -> Request:
        """What was asked before, or a new request with new keys for it."""
        kept = self._read("request.json")
        if kept is not None:
            try:
                return Request.read(kept)
            except ValueError:
                pass  # of another version: ask anew
        name = self._choose(address)
        private, csr = pki.make_request(name)
        user = ed25519.Ed25519PrivateKey.generate()
        public = user.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        hardware = self._hardware
        if len(protocol.canonical(hardware)) > protocol.MAX_REQUEST - 4096:
            hardware = {"note": "a machine with too much in it to tell"}
        request = Request(
            name, self._mac, secrets.token_hex(32), public.decode(), csr.decode(), hardware
        )
        self._write("server.key", private)
        self._write("user_key", _openssh(user))
        self._write("request.json", protocol.canonical(request.document()))
        return request

    def _choose(self, address: str) -> str:
        """The server that this machine may become. Raises CloneError when that is not clear."""
        rows = self.open(address)
        mine = [row for row in rows if row.get("for_you")] or list(rows)
        names = [str(row.get("name")) for row in mine]
        if len(names) == 1:
            return names[0]
        if not names:
            raise CloneError(
                f"no join is open for this machine ({self._mac or 'no card'}) at {address}",
                hint="run `ets join NAME` on the server, then start this machine again",
            )
        raise CloneError(
            f"several joins are open at {address}: {', '.join(sorted(names))}",
            hint="say on the server which machine is which: ets join NAME --mac MAC",
        )

    # -- afterwards -------------------------------------------------------------------------

    @property
    def offer(self) -> Offer:
        """What was agreed, also by an earlier run with the same keys. Raises CloneError."""
        if self._agreed is None:
            raise CloneError("this machine was not let in yet")
        return _offer(self._agreed)

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """The ssh command line for ``argv`` on the source. Raises CloneError before ``wait``."""
        offer, terms = self.offer, self._terms
        return [
            "ssh", "-F", "none", *OPTIONS,
            "-o", "ServerAliveCountMax=3",
            "-o", "IdentitiesOnly=yes", "-o", f"IdentityFile={self._keys / 'user_key'}",
            "-o", f"UserKnownHostsFile={self._keys / 'known_hosts'}",
            "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes",
            "-o", f"HostKeyAlias={_alias(terms)}", "-o", "HostKeyAlgorithms=ssh-ed25519",
            "-o", "Ciphers=aes128-gcm@openssh.com,chacha20-poly1305@openssh.com",
            "-o", "LogLevel=ERROR", "-p", str(offer.port),
            "--", f"root@{offer.address}", shlex.join(argv),
        ]  # fmt: skip

    def report(self, stage: str, text: str, done: float | None = None) -> None:
        """Tell the source how far this machine is; best effort. ``done`` is from 0 to 1. The
        stages ``copied`` and ``done`` change what the source does: after the first, this machine
        is given its own disk to boot from; after the second, its key is worth nothing more."""
        if self._agreed is None:
            return
        now = time.monotonic()
        if now < self._not_before and stage == self._stage:
            return
        self._stage, self._not_before = stage, now + REPORT_EVERY
        for _ in range(2):
            content: Json = {"count": self._count + 1, "stage": stage, "text": text[:400]}
            if done is not None:
                content["done"] = min(1.0, max(0.0, done))
            try:
                answer = self._post(self.offer.address, "report", self._signed(content))
            except (_Unanswered, OSError, CloneError):
                self._not_before = time.monotonic() + UNHEARD
                return
            count = answer.get("count")
            self._count = count if isinstance(count, int) else self._count + 1
            if not answer.get("stale"):
                return

    def _signed(self, content: Json) -> Json:
        key = serialization.load_ssh_private_key((self._keys / "user_key").read_bytes(), None)
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise CloneError(f"{self._keys / 'user_key'} is a key of another kind")
        signature = key.sign(protocol.report_bytes(self._terms.id, content))
        return {"name": self._terms.name, "report": content, "signature": signature.hex()}

    # -- inside -----------------------------------------------------------------------------

    @property
    def _mac(self) -> str:
        return str(self._hardware.get("mac", "")).lower()

    @property
    def _terms(self) -> Terms:
        if self._agreed is None:
            raise CloneError("this machine was not let in yet")
        return Terms.read(self._agreed["terms"])

    def _wait_for_sshd(self, offer: Offer) -> None:
        """Raises CloneError when the source's sshd does not come up."""
        end = Deadline(LISTENING)
        while True:
            try:
                with socket.create_connection((offer.address, offer.port), 3):
                    return
            except OSError as error:
                if end.passed:
                    raise CloneError(
                        f"{offer.source} let this machine in, but {offer.address}:{offer.port} "
                        f"does not answer: {error.strerror or error}",
                        hint=f"on {offer.source}: journalctl -u ets-clone-sshd -u ets-agent",
                    ) from error
                time.sleep(min(0.2, end.left))

    def _post(self, address: str, what: str, content: Json) -> Json:
        """One question over HTTP. Raises _Unanswered."""
        connection = http.client.HTTPConnection(address, self._port, timeout=ANSWER)
        try:
            connection.request(
                "POST", f"/api/join/{what}", protocol.canonical(content),
                {"content-type": "application/json"},
            )  # fmt: skip
            answer = connection.getresponse()
            body = answer.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            said = getattr(error, "strerror", None) or error or type(error).__name__
            raise _Unanswered(f"the server at {address} does not answer: {said}") from error
        finally:
            connection.close()
        text = protocol.plain(body.decode(errors="replace").strip(), 300)
        if answer.status != http.client.OK:
            raise _Unanswered(f"the server at {address} answers {answer.status}: {text}")
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise _Unanswered(f"the server at {address} answers something unusable: {text[:80]}")
        return document

    def _kept_token(self, typed: str | None) -> str:
        """The token's key: of what was typed now, else of what was typed before."""
        if typed is not None:
            self._write("token.key", protocol.token_key(typed).encode())
        try:
            return (self._keys / "token.key").read_text(encoding="ascii")
        except OSError:
            return ""

    def _forget_token(self) -> None:
        (self._keys / "token.key").unlink(missing_ok=True)
        self._token = ""

    def _read(self, name: str) -> Json | None:
        try:
            found = json.loads((self._keys / name).read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _write(self, name: str, content: bytes) -> None:
        self._keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(self._keys / name, content, mode=0o600)


def _alias(terms: Terms) -> str:
    return f"ets-join-{terms.id}"


def _offer(agreed: Json) -> Offer:
    terms = Terms.read(agreed["terms"])
    return Offer(
        server=terms.name, source=terms.source, address=str(agreed["address"]), port=terms.port,
        host_key=terms.host_key, ca=terms.ca.encode(),
        certificate=str(agreed["certificate"]).encode(), layout=terms.layout, mirror=terms.mirror,
        rebuild=terms.rebuild, erase=terms.erase, now=float(agreed["now"]),
    )  # fmt: skip


def _openssh(key: ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def _hint(why: str) -> str:
    if "token" in why:
        return "type the token that ets join shows, or approve this machine there by its code"
    return "open the join again on the server: ets join NAME"
