"""Certificates that are not valid any more, as this agent keeps to them.

The list is a file (``site.crl`` beside the records) and a record (``crl/site``); whichever has the
higher number is the truth, when the site's CA has signed it. Who has the CA's key adds what its own
joins left behind: certificates of attempts that came to nothing.

Every server tells the serial number of its own certificate (``keys/NAME``), so that a server which
is lost with all it knew can be put out by any other.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from ets import paths
from ets.agent.place import Place
from ets.agent.state import STANDING, State
from ets.clone.joins import Joins
from ets.cluster.records import Record, canonical
from ets.errors import HostError
from ets.host import crl, pki
from ets.host.atomic import write_atomic
from ets.host.crl import Revoked

log = structlog.get_logger("ets.agent.revoked")

KEY = "crl/site"
NONE = Revoked(0, frozenset())


class Revocations:
    """The list of this server. ``step`` and ``keep`` wait for the disk: not for the loop."""

    def __init__(self, place: Place, state: State, joins: Joins) -> None:
        self._place = place
        self._state = state
        self._joins = joins
        self._ca = (place.tree.pki / paths.CA_CERT.name).read_bytes()
        self._seen: bytes | None = None
        self.list = NONE

    @property
    def file(self) -> Path | None:
        """The list's file, when there is one that can be used."""
        return self._place.tree.crl if self.list.number else None

    def load(self) -> bool:
        """Read the file again; true when the list is another one. A damaged one is an alarm, and
        the last good one stays until the record, or another server, brings it again."""
        try:
            content = self._place.tree.crl.read_bytes()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise HostError(f"cannot read {self._place.tree.crl}: {error.strerror}") from error
        if content == self._seen:
            return False
        try:
            found = crl.read(content, self._ca)
        except HostError as error:
            self._state.alarm(f"{self._place.tree.crl}: {error.message}", keep=STANDING)
            return False
        self._seen = content
        changed, self.list = found != self.list, found
        return changed

    def add(self) -> None:
        """Revoke what this server's joins left behind, but nothing that a server of the site says
        it lives by: a join may have ended here because its last words were lost. Raises
        HostError."""
        if not (self._place.tree.pki / paths.CA_KEY.name).exists():
            return
        told = (r.value for key, r in self._state.held.items() if key.startswith("keys/"))
        used = {str(value.get("serial")) for value in told if isinstance(value, dict)}
        left = self._joins.superseded() - self.list.serials - used
        if left:
            self._joins.revoke(self._place.tree.crl, left)
            log.info("revoked", serials=sorted(left))

    def wanted(self) -> Record | None:
        """The record that this server must write: its list is newer than what the site has."""
        held = self._state.held.get(KEY)
        if self._seen is None or (held is not None and held.version >= self.list.number):
            return None
        body = canonical({"pem": self._seen.decode()})
        return Record(KEY, self._place.me.name, self.list.number, body)

    def newer(self) -> bytes | None:
        """The record's list, when it is newer than the file and signed by the site's CA."""
        held = self._state.held.get(KEY)
        if held is None or held.version <= self.list.number:
            return None
        value = held.value
        pem = value.get("pem") if isinstance(value, dict) else None
        try:
            content = str(pem).encode()
            found = crl.read(content, self._ca)
        except HostError as error:
            self._state.alarm(f"record {KEY}: {error.message}", keep=STANDING)
            return None
        return content if found.number == held.version else None

    def keep(self, content: bytes) -> None:
        """Write the list's file. Raises HostError."""
        write_atomic(self._place.tree.crl, content, mode=0o600)

    def tell_serial(self) -> None:
        """Write this server's own serial number into its record, when it is another one."""
        certificate = (self._place.tree.pki / paths.SERVER_CERT.name).read_bytes()
        self._state.write(f"keys/{self._place.me.name}", {"serial": pki.serial_of(certificate)})
