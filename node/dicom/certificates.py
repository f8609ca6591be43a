"""Reads certificates and keys: says in words what is wrong with a file of [tls], and when a certificate expires."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from node.errors import ConfigError
from node.study import TlsFiles

LEAST_RSA_BITS, LEAST_EC_BITS = 2048, 256  # RFC 9325 4.2 and 4.5
SOON = timedelta(days=30)
_WEAK_HASHES = (hashes.MD5, hashes.SHA1)


@dataclass(frozen=True, slots=True)
class Validity:
    """A certificate's time, with its key in the config, and the remark on it that a human needs (None: none)."""

    key: str
    file: Path
    until: datetime
    is_valid: bool
    remark: str | None


def check_certificate(files: TlsFiles) -> None:
    """Check that certificate and key can be read, belong together and are strong enough (RFC 9325 4.2, 4.5).

    Raises:
        ConfigError: they are not; the message names key and path.
    """
    for key, file in (("certificate_file", files.certificate_file), ("key_file", files.key_file)):
        if file is None:
            raise ConfigError(f"tls.{key}: missing, and TLS needs it")
    assert files.certificate_file is not None
    assert files.key_file is not None
    certificate = _certificates("tls.certificate_file", files.certificate_file)[0]
    _check_strength("tls.certificate_file", files.certificate_file, certificate)
    if _key(files.key_file) != _encoded(certificate.public_key()):
        raise ConfigError(
            f"tls.key_file: {files.key_file}: is not the key of the certificate in {files.certificate_file}"
        )


def check_authorities(file: Path) -> None:
    """Check that ``tls.ca_file`` holds certificates.

    Raises:
        ConfigError: it does not; the message names key and path.
    """
    _certificates("tls.ca_file", file)


def validities(files: TlsFiles, now: datetime | None = None) -> Iterator[Validity]:
    """The validity of the node's certificate and of each authority's; ``now``: None for the present time.

    Raises:
        ConfigError: a file cannot be read; the message names key and path.
    """
    now = now or datetime.now(UTC)
    for key, file in (("tls.certificate_file", files.certificate_file), ("tls.ca_file", files.ca_file)):
        if file is not None:
            chain = _certificates(key, file)
            # one authority of several may have expired and be replaced already: the last one counts
            certificate = chain[0] if key == "tls.certificate_file" else max(chain, key=_end)
            yield _validity(key, file, certificate, now)


def _validity(key: str, file: Path, certificate: x509.Certificate, now: datetime) -> Validity:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return Validity(key, file, end, False, f"is not valid before {begin:%Y-%m-%d %H:%M} UTC: is the clock right?")
    if now > end:
        return Validity(key, file, end, False, f"expired on {end:%Y-%m-%d}: peers refuse it; have it renewed")
    remark = f"expires on {end:%Y-%m-%d}, in {(end - now).days} days: have it renewed" if end - now < SOON else None
    return Validity(key, file, end, True, remark)


def _end(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_after_utc


def _content(key: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: {file}: cannot be read: {error.strerror or type(error).__name__}") from None


def _certificates(key: str, file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_content(key, file))
    except ValueError:
        raise ConfigError(f"{key}: {file}: holds no certificate in PEM form") from None


def _key(file: Path) -> bytes:
    """The public half of the private key in ``file``, encoded."""
    content = _content("tls.key_file", file)
    try:
        return _encoded(load_pem_private_key(content, None).public_key())  # type: ignore[arg-type]
    except TypeError:
        raise ConfigError(f"tls.key_file: {file}: the key has a pass phrase; the node needs one without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"tls.key_file: {file}: holds no private key in PEM form") from None


def _encoded(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _check_strength(key: str, file: Path, certificate: x509.Certificate) -> None:
    public = certificate.public_key()
    if isinstance(public, RSAPublicKey) and public.key_size < LEAST_RSA_BITS:
        raise ConfigError(f"{key}: {file}: an RSA key of {public.key_size} bits; {LEAST_RSA_BITS} are the least")
    if isinstance(public, EllipticCurvePublicKey) and public.key_size < LEAST_EC_BITS:
        raise ConfigError(f"{key}: {file}: an elliptic curve of {public.key_size} bits; {LEAST_EC_BITS} are the least")
    if isinstance(certificate.signature_hash_algorithm, _WEAK_HASHES):
        name = certificate.signature_hash_algorithm.name.upper()
        raise ConfigError(f"{key}: {file}: is signed with {name}; SHA-256 is the least")
