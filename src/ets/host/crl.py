"""Certificates that are not valid any more: a certificate revocation list (RFC 5280, section 5).

Signed by the site's CA, so it may come from anybody: what is not signed is not taken. It has no
end of its own before the CA's: a list that ran out would lock every server out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ets.errors import HostError
from ets.host.pki import BACKDATED, authority_in


@dataclass(frozen=True, slots=True)
class Revoked:
    """A list: its number, which rises, and the serial numbers (hex) on it."""

    number: int
    serials: frozenset[str]


def read(content: bytes, ca: bytes) -> Revoked:
    """The list in ``content``, as signed by ``ca`` (both PEM). Raises HostError for any other."""
    try:
        found = x509.load_pem_x509_crl(content)
        signer = x509.load_pem_x509_certificate(ca).public_key()
        valid = isinstance(signer, ec.EllipticCurvePublicKey) and found.is_signature_valid(signer)
        number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except Exception as error:  # the parser's own errors are many
        raise HostError(f"the list of revoked certificates is unusable: {error}") from error
    if not valid:
        raise HostError("the list of revoked certificates is not signed by this site's CA")
    return Revoked(number, frozenset(f"{entry.serial_number:x}" for entry in found))


def revoke(directory: Path, old: bytes | None, serials: Collection[str]) -> bytes:
    """A new list (PEM), signed with the CA in ``directory``: what is on ``old`` and ``serials``.

    Raises HostError when the CA is missing, or ``old`` is not its list.
    """
    authority, key = authority_in(directory)
    ca = authority.public_bytes(serialization.Encoding.PEM)
    before = read(old, ca) if old else Revoked(0, frozenset())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now - BACKDATED)
        .next_update(authority.not_valid_after_utc)
        .add_extension(x509.CRLNumber(before.number + 1), critical=False)
    )
    for serial in sorted({*before.serials, *serials}):
        entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16))
        builder = builder.add_revoked_certificate(entry.revocation_date(now - BACKDATED).build())
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
