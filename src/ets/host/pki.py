"""The site's own certificate authority: who may speak as a server of this site.

One CA per site, elliptic keys (P-256), one certificate per server that is good for both ends of a
mutual TLS connection and carries the server's name and addresses. The site secret beside them
authenticates heartbeats, which are too small and too frequent for TLS.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ets.errors import HostError
from ets.host.atomic import write_atomic

#: certificates are valid from yesterday, so that a server whose clock is behind can start
BACKDATED = timedelta(days=1)
CA_LIFE = timedelta(days=3650 * 2)
SERVER_LIFE = timedelta(days=3650)
SECRET_BYTES = 32


def new_secret() -> str:
    """A new site secret: 32 random bytes as 64 hexadecimal digits."""
    return secrets.token_hex(SECRET_BYTES)


def make_ca(directory: Path, site: str = "ets") -> None:
    """Make the CA of a site: ``ca.crt`` and ``ca.key`` in ``directory``, readable by root only.

    Raises HostError when there is one already: a new CA would lock every server out.
    """
    if (directory / "ca.key").exists():
        raise HostError(
            f"there is a certificate authority in {directory} already",
            hint="keep it; a new one would make every server's certificate worthless",
        )
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ETS site {site}"[:64])])
    builder = (
        _certificate(name, name, key.public_key(), CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256())
    _directory(directory)
    write_atomic(directory / "ca.key", _private(key), mode=0o600)
    write_atomic(directory / "ca.crt", _public(certificate), mode=0o600)


def issue(directory: Path, server: str, addresses: Iterable[IPv4Address | str], out: Path) -> None:
    """Issue a server's certificate with the CA in ``directory``; write ``ca.crt``,
    ``server.crt`` and ``server.key`` to ``out``, readable by root only.

    Raises HostError when the CA is missing or unreadable.
    """
    authority, authority_key = authority_in(directory)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign(authority, authority_key, key.public_key(), server, addresses)
    _directory(out)
    write_atomic(out / "ca.crt", _public(authority), mode=0o600)
    write_atomic(out / "server.key", _private(key), mode=0o600)
    write_atomic(out / "server.crt", _public(certificate), mode=0o600)


def make_request(server: str) -> tuple[bytes, bytes]:
    """A server's new private key and its certificate request, both PEM: the key never leaves the
    machine that made it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, server)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    signed = request.sign(key, hashes.SHA256())
    return _private(key), signed.public_bytes(serialization.Encoding.PEM)


def sign(
    directory: Path, request: bytes, server: str, addresses: Iterable[IPv4Address | str]
) -> tuple[bytes, str]:
    """A certificate (PEM) for the key in ``request``, and its serial number (hex). What else the
    request asks for is not looked at: name and addresses are the site file's.

    Raises HostError when the request is not signed by its own P-256 key, or the CA is missing.
    """
    try:
        asked = x509.load_pem_x509_csr(request)
        valid = asked.is_signature_valid
        key = asked.public_key()
    except Exception as error:  # the parser's own errors are many; whatever it is, it is refused
        raise HostError(f"the certificate request of {server} is unusable: {error}") from error
    if not valid or not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.key_size != 256:
        raise HostError(f"the certificate request of {server} is not signed by a P-256 key")
    authority, authority_key = authority_in(directory)
    certificate = _sign(authority, authority_key, key, server, addresses)
    return _public(certificate), serial_of(_public(certificate))


def serial_of(certificate: bytes) -> str:
    """The serial number of a certificate (PEM) in hexadecimal. Raises HostError."""
    try:
        return f"{x509.load_pem_x509_certificate(certificate).serial_number:x}"
    except ValueError as error:
        raise HostError(f"a certificate is damaged: {error}") from error


def issued_for(certificate: bytes, ca: bytes, key: bytes, server: str) -> bool:
    """Is the certificate signed by ``ca`` for this private ``key`` and this server? (All PEM.)
    Times are not looked at: a machine that was never set up may have any clock."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(ca))
        private = serialization.load_pem_private_key(key, None)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except Exception:  # whatever is wrong with bytes from the network: it was not issued
        return False
    same = found.public_key() == private.public_key()
    return same and server in names.value.get_values_for_type(x509.DNSName)


def _sign(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePublicKey,
    server: str,
    addresses: Iterable[IPv4Address | str],
) -> x509.Certificate:
    names: list[x509.GeneralName] = [x509.DNSName(server)]
    names += [x509.IPAddress(IPv4Address(address)) for address in addresses]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, server)])
    both_ends = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    signer = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    builder = (
        _certificate(authority.subject, subject, key, SERVER_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both_ends), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer.value),
            critical=False,
        )
    )
    return builder.sign(authority_key, hashes.SHA256())


def write_secret(path: Path, secret: str) -> None:
    """Write the site secret to ``path``, readable by root only."""
    _directory(path.parent)
    write_atomic(path, secret.encode() + b"\n", mode=0o600)


def read_secret(path: Path) -> bytes:
    """The site secret as bytes. Raises HostError when missing, or not 64 hexadecimal digits."""
    hint = "copy it from another server of the site; it is the same everywhere"
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise HostError(
            f"cannot read the site secret {path}: {error.strerror}", hint=hint
        ) from error
    except ValueError as error:
        raise HostError(f"the site secret {path} is not hexadecimal", hint=hint) from error
    if len(secret) != SECRET_BYTES:
        raise HostError(f"the site secret {path} has {len(secret)} bytes, not 32", hint=hint)
    return secret


def _certificate(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def authority_in(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The CA in ``directory``, with its key. Raises HostError when missing or damaged."""
    hint = f"make one with make_ca, or copy ca.crt and ca.key to {directory}"
    try:
        certificate = x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    except OSError as error:
        raise HostError(
            f"cannot read the CA in {directory}: {error.strerror}", hint=hint
        ) from error
    except (ValueError, TypeError) as error:
        raise HostError(f"the CA in {directory} is damaged: {error}", hint=hint) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise HostError(f"{directory / 'ca.key'} is not an elliptic curve key", hint=hint)
    return certificate, key


def _directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"cannot make {directory}: {error.strerror}") from error


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
