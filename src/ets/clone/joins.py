"""The joins that this server has opened: on the disk, one directory each, changed under one lock.

``ets join`` and the agent both come here, so neither has to run for the other to read or change a
join. All that lies here is for root alone: the token's key, the ssh host key of the copy.

Invariant: who is in ``authorized_keys`` is in an ``Approval`` of a join that is not at its end;
and a certificate that was issued here and is not in use any more is named by ``superseded``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from ets import paths
from ets.clone import bootloader, protocol, sshd, states
from ets.clone.layout import Layout
from ets.clone.protocol import Request, Terms
from ets.clone.states import ADMITTED, Answer, Approval, Join
from ets.errors import CloneError, HostError
from ets.host import crl, pki
from ets.host.atomic import append_durably, make_parents, write_atomic
from ets.site.model import Server, Site


@dataclass(frozen=True, slots=True)
class Told:
    """What a newcomer that asked is told. ``proof`` is empty where the join has no token."""

    state: states.State
    why: str
    certificate: str = ""
    proof: str = ""


class Joins:
    """The joins of one server. ``directory`` holds them, ``keys`` the site's CA."""

    def __init__(self, directory: Path, keys: Path, *, port: int = paths.PORT_CLONE) -> None:
        self.directory = directory
        self.keys = keys
        self.port = port
        self._lock = threading.Lock()

    # -- reading ----------------------------------------------------------------------------

    def all(self) -> tuple[Join, ...]:
        """All joins that are known here, also those at their end, by name. Raises CloneError."""
        if not self.directory.is_dir():
            return ()
        found = (self.read(path.parent.name) for path in self.directory.glob("*/join.json"))
        return tuple(sorted((j for j in found if j is not None), key=lambda join: join.name))

    def read(self, name: str) -> Join | None:
        """The join of that name, or None. Raises CloneError when its file is damaged."""
        if not self._named(name):
            return None
        file = self._file(name)
        try:
            return _join(json.loads(file.read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CloneError(
                f"cannot read the join of {name} in {file}: {error}",
                hint=f"remove {file.parent} and open the join again",
            ) from error

    def superseded(self) -> frozenset[str]:
        """Serial numbers of certificates that were issued here and that nobody should have: of
        joins that came to nothing, and of attempts before the one that counted."""
        rows = tuple(self._issued())
        good = {
            join.approval.serial
            for join in self.all()
            if join.approval and join.state in {*ADMITTED, "done"}
        }
        good |= {serial for _, serial, kept in rows if kept}
        return frozenset(serial for _, serial, _ in rows if serial not in good)

    def revoke(self, file: Path, serials: Collection[str]) -> None:
        """Put certificates on the site's list of revoked ones in ``file``. Raises HostError."""
        self._ready()
        with self._held():
            old = file.read_bytes() if file.exists() else None
            content = crl.revoke(self.keys, old, serials)
            write_atomic(file, content, mode=0o600)

    def issued(self, name: str) -> frozenset[str]:
        """Serial numbers of all certificates that were issued here for ``name``."""
        return frozenset(serial for owner, serial, _ in self._issued() if owner == name)

    # -- the administrator ------------------------------------------------------------------

    def open(self, site: Site, me: Server, wanted: Join) -> tuple[Join, str]:
        """Open a join; returns it and its token (empty when it is unattended).

        ``wanted`` says all but id, key and state. Raises CloneError when there is an open one of
        that name, this server cannot take newcomers, or lacks what the site's layout needs.
        """
        self._ready()
        bootloader.require(Layout(site.clone.layout, site.clone.mirror), Path("/"))
        with self._held():
            old = self.read(wanted.name)
            if old is not None and not states.expire(old, wanted.opened).ended:
                raise CloneError(
                    f"a join of {wanted.name} is open already: {old.reason}",
                    hint=f"ets join --cancel {wanted.name}, then open it again",
                )
            token = "" if wanted.unattended else protocol.token_of(secrets.token_bytes(10))
            key = protocol.token_key(token) if token else ""
            rules = site.clone
            join = replace(
                wanted, id=secrets.token_hex(8), key=key, layout=rules.layout, mirror=rules.mirror
            )
            self._private(self.directory)
            if not any(not other.ended for other in self.all()):
                self._make_host_key()
            shutil.rmtree(self._file(join.name).parent, ignore_errors=True)
            self._private(self._file(join.name).parent)
            secret = secrets.token_hex(32).encode()
            write_atomic(self._file(join.name).with_name("secret"), secret, mode=0o600)
            self._write(join)
        return join, token

    def approve(self, name: str, code: str) -> Join:
        """The machine that shows ``code`` may become ``name``. Raises CloneError."""

        def change(join: Join) -> Join:
            try:
                return states.approve_code(join, code)
            except ValueError as error:
                raise CloneError(str(error), hint="ets join --list shows who asks") from error

        return self.change(name, change)

    def cancel(self, name: str) -> Join:
        """End the join; whoever was let in is put out by the agent's next look."""
        return self.change(name, lambda join: states.cancel(join, "cancelled by hand"))

    def change(self, name: str, how: Callable[[Join], Join]) -> Join:
        """Change the join of that name. Raises CloneError when there is none."""
        with self._held():
            join = self.read(name)
            if join is None:
                raise CloneError(
                    f"this server has no join of {name}", hint=f"open one: ets join {name}"
                )
            changed = how(join)
            if changed != join:
                if changed.state == "done" and changed.approval is not None:
                    self._note({"name": name, "serial": changed.approval.serial, "kept": True})
                self._write(changed)
        return changed

    # -- the newcomer -----------------------------------------------------------------------

    def terms(self, site: Site, me: Server, join: Join) -> Terms:
        """What this server says of a join. Raises CloneError when a file is missing."""
        return Terms(
            site=site.name, name=join.name, source=me.name, id=join.id,
            host_key=self._text(self.directory / "host_key.pub").strip(),
            ca=self._text(self.keys / paths.CA_CERT.name), port=self.port,
            layout=join.layout, mirror=join.mirror, rebuild=join.rebuild,
            erase=join.erase,
        )  # fmt: skip

    def nonce(self, name: str, commit: str) -> str:
        """The nonce for a commitment. Raises CloneError when there is no such join."""
        secret = self._text(self._file(name).with_name("secret"))
        return protocol.answer_to(commit, bytes.fromhex(secret))

    def ask(self, site: Site, me: Server, request: Request, proof: object, now: float) -> Told:
        """Answer a newcomer; approves it when it may come in, and then issues its certificate.

        Raises CloneError when there is no such join, HostError when the certificate request is
        unusable or the CA away.
        """
        join = self.read(request.name)
        if join is None:
            return Told("refused", f"no join of {protocol.plain(request.name, 63)} is open here")
        terms = self.terms(site, me, join)
        nonce = self.nonce(join.name, protocol.commitment(request))
        seen = protocol.transcript(terms, request, nonce)
        answer = states.ask(join, request, seen, proof, now)
        if answer.join == join:
            return self._told(answer, seen)

        def change(join: Join) -> Join:
            nonlocal answer
            answer = states.ask(join, request, seen, proof, now)
            mine = answer.join.approval
            if mine is not None and mine != join.approval:
                return replace(answer.join, approval=self._issue(site, request, mine))
            return answer.join

        changed = self.change(join.name, change)
        return self._told(replace(answer, join=changed), seen)

    def report(self, document: object, now: float) -> Join:
        """Take a newcomer's report. Raises ValueError for one that is not to be taken."""
        name, content, signature = protocol.report_parts(document)
        join = self.read(name)
        if join is None or join.approval is None:
            raise ValueError("there is nobody who might report that")
        signed = protocol.report_bytes(join.id, content)
        key = serialization.load_ssh_public_key(join.approval.ssh.encode())
        try:
            # a request has no other kind of key; see protocol.Request
            cast(ed25519.Ed25519PublicKey, key).verify(signature, signed)
        except InvalidSignature:
            raise ValueError("the signature is wrong") from None
        return self.change(name, lambda join: states.reported(join, content, now))

    def expire(self, now: float) -> None:
        """End what is over."""
        for join in self.all():
            if states.expire(join, now) != join:
                self.change(join.name, lambda found: states.expire(found, now))

    # -- the copy's sshd --------------------------------------------------------------------

    def settle(self, me: Server) -> bool:
        """Let in exactly whom the joins say: write the keys, start or stop sshd. Returns whether
        it runs. Raises HostError."""
        with self._held():
            approved = [(join, join.approval) for join in self.all() if join.approval is not None]
            admitted = [(j.name, a.ssh) for j, a in approved if j.state in ADMITTED]
            keys = self.directory / "authorized_keys"
            text = sshd.authorized(admitted).encode()
            before = keys.read_bytes() if keys.exists() else b""
            if not before and not admitted:
                return False
            if before != text:
                write_atomic(keys, text, mode=0o600)
                # who lost its approval is put out, though it be in the middle of the copy
                done = {(j.name, a.ssh) for j, a in approved if j.state == "done"}
                if sshd.keys(before.decode()) - {*admitted} - done:
                    sshd.stop()
            if not admitted:
                sshd.stop()
                keys.unlink()
                return False
            addresses = dict.fromkeys(
                me.addresses[role] for role in ("stations", "lan") if role in me.addresses
            )
            host_key = self._text(self.directory / "host_key.pub").strip()
            sshd.start(self.directory, list(addresses), self.port, host_key)
            return True

    # -- inside -----------------------------------------------------------------------------

    def _told(self, answer: Answer, seen: str) -> Told:
        mine = answer.join.approval
        if answer.state != "approved" or mine is None:
            return Told(answer.state, answer.why)
        key = answer.join.key
        proof = protocol.proof(key, "server", seen) if key else ""
        return Told("approved", answer.why, mine.certificate, proof)

    def _issue(self, site: Site, request: Request, approval: Approval) -> Approval:
        try:
            addresses = site.server(request.name).addresses.values()
        except KeyError as error:
            raise CloneError(
                f"the site file that the agent runs by has no server {request.name}",
                hint="apply the site file on this server: ets apply",
            ) from error
        certificate, serial = pki.sign(self.keys, request.csr.encode(), request.name, addresses)
        self._note({"name": request.name, "serial": serial})
        return replace(approval, certificate=certificate.decode(), serial=serial)

    def _note(self, row: Mapping[str, object]) -> None:
        append_durably(self.directory / "issued.jsonl", json.dumps(row).encode() + b"\n")

    def _issued(self) -> Iterator[tuple[str, str, bool]]:
        """Name, serial number, and whether it is kept, of all certificates issued here."""
        with contextlib.suppress(OSError):
            for line in (self.directory / "issued.jsonl").read_text().splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    row = json.loads(line)
                    yield str(row["name"]), str(row["serial"]), row.get("kept") is True

    def _ready(self) -> None:
        """Raises CloneError when this server cannot sign, with what to do."""
        ca = self.keys / paths.CA_KEY.name
        if not ca.exists():
            raise CloneError(
                f"this server cannot sign or revoke certificates: {ca} is missing",
                hint=f"do it on a server that has it, or copy it to {ca} (root, 0600) from where "
                "the site's CA is kept, for the time of the join or for good (docs/security.md)",
            )

    def _make_host_key(self) -> None:
        key = ed25519.Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        write_atomic(self.directory / "host_key", private, mode=0o600)
        write_atomic(self.directory / "host_key.pub", public + b"\n")

    def _file(self, name: str) -> Path:
        return self.directory / name / "join.json"

    def _named(self, name: str) -> bool:
        """Is it the name of a directory here? Names from the wire are never part of a path
        before that."""
        if not self.directory.is_dir():
            return False
        return any(entry.name == name for entry in self.directory.iterdir())

    def _write(self, join: Join) -> None:
        body = json.dumps({"format": 1, **asdict(join)}, indent=1).encode() + b"\n"
        write_atomic(self._file(join.name), body, mode=0o600)

    def _text(self, path: Path) -> str:
        try:
            return path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise CloneError(f"cannot read {path}: {error}") from error

    def _private(self, directory: Path) -> None:
        make_parents(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
        directory.chmod(0o700)

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """The lock over all joins here. Holders write a few small files, so it is waited for."""
        try:
            self._private(self.directory)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self.directory / "lock", flags, 0o600)
        except OSError as error:
            raise HostError(
                f"cannot use {self.directory}: {error.strerror}",
                hint="run it as root" if os.geteuid() else "",
            ) from error
        try:
            with self._lock:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
        finally:
            os.close(descriptor)


def _join(document: Mapping[str, object]) -> Join:
    """A join as it was written. Raises ValueError, TypeError, KeyError."""
    if document.get("format") != 1:
        raise ValueError("of another version")
    known = {one.name for one in fields(Join)}
    told = {name: value for name, value in document.items() if name in known}
    approval = told.get("approval")
    if isinstance(approval, dict):
        told["approval"] = Approval(**approval)
    return Join(**told)  # type: ignore[arg-type]
