"""Certificates in /etc (x509(7)): for whom, by whom, until when. Keys are never read."""

from __future__ import annotations

import re
import warnings

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ets import identity

KIND = "certificate"
_PRINT = '/-----BEGIN CERTIFICATE-----/,/-----END CERTIFICATE-----/{print FILENAME ":" $0}'
ASK = (
    ("find", "/etc", "/usr/local/share/ca-certificates", "-xdev", "-type", "f", "(", "-name",
     "*.crt", "-o", "-name", "*.pem", "-o", "-name", "*.cer", ")", "!", "-name",
     "ca-certificates.crt", "-size", "-64k", "-exec", "awk", _PRINT, "{}", "+"),
)  # fmt: skip

_ONE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def parse(text: str) -> dict[str, dict[str, str]]:
    """The first certificate of each file that must be equal on all servers."""
    pieces: dict[str, list[str]] = {}
    for line in text.splitlines():
        path, _, content = line.partition(":")
        pieces.setdefault(path, []).append(content)
    found = {}
    for path, lines in pieces.items():
        met = _ONE.search("\n".join(lines))
        if met and path.startswith("/") and identity.compared(path):
            found[path] = _about(met[0])
    return found


def _about(pem: str) -> dict[str, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read = x509.load_pem_x509_certificate(pem.encode())
            return {
                "subject": read.subject.rfc4514_string(),
                "issuer": read.issuer.rfc4514_string(),
                "until": read.not_valid_after_utc.isoformat(),
                "fingerprint": read.fingerprint(hashes.SHA256()).hex()[:32],
            }
    except ValueError:
        return {"subject": "unreadable"}
