"""The contexts of TLS (PS3.15 B.12 and B.10; BCP 195: RFC 8996, RFC 9325). No other file of ``node`` builds one.

What both profiles have in common: TLS 1.3, or TLS 1.2 with an ephemeral key exchange and an AEAD cipher (no CBC); no
compression, no renegotiation, no tickets; no key below the strength of 2048 bits of RSA, no SHA-1. The profiles differ
in the cipher suites of TLS 1.2.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TypeVar

from node.dicom.certificates import check_authorities, check_certificate
from node.dicom.tls_failures import failure_in_words
from node.errors import ConfigError
from node.study import TlsFiles, TlsProfile

# RFC 9325 4.2: the cipher suites recommended for TLS 1.2
_RECOMMENDED = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)
CIPHER_SUITES: dict[TlsProfile, tuple[str, ...]] = {
    "bcp195": _RECOMMENDED,
    # PS3.15 B.10 requires these two as well; RFC 9325 4.1 advises against them
    "bcp195-non-downgrading": (*_RECOMMENDED, "DHE-RSA-AES256-GCM-SHA384", "DHE-RSA-AES128-GCM-SHA256"),
}
"""The cipher suites of TLS 1.2, in the order of preference, by their OpenSSL names."""

_STRENGTH = "@SECLEVEL=2"  # OpenSSL: 112 bits, which is 2048 bits of RSA or Diffie-Hellman; no signature by SHA-1
_DH_GROUP = Path(__file__).with_name("ffdhe3072.pem")  # RFC 7919 A.2, a group of known strength (RFC 9325 7.4)

_Context = TypeVar("_Context", bound=ssl.SSLContext)


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """For the side that listens; with ``ca_file``, peers must send a certificate that it vouches for.

    Raises:
        ConfigError: a file is not configured or cannot be used; the message names its key and path.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _apply(context, files.profile)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    if any(suite.startswith("DHE-") for suite in CIPHER_SUITES[files.profile]):
        context.load_dh_params(str(_DH_GROUP))
    _load_certificate(context, files)
    if files.ca_file is not None:
        _load_authorities(context, files.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(files: TlsFiles, kind: type[_Context]) -> _Context:
    """For the side that connects: checks the peer's certificate and name; shows a certificate if there is one.

    Without ``ca_file`` it trusts the system's certificate authorities.

    Raises:
        ConfigError: a file cannot be used; the message names its key and path.
    """
    context = kind(ssl.PROTOCOL_TLS_CLIENT)  # this protocol checks certificate and name
    _apply(context, files.profile)
    if files.ca_file is not None:
        _load_authorities(context, files.ca_file)
    else:
        context.load_default_certs()
    if files.certificate_file is not None:
        _load_certificate(context, files)
    return context


def _apply(context: ssl.SSLContext, profile: TlsProfile) -> None:
    """Set what both sides have in common."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.set_ciphers(":".join((*CIPHER_SUITES[profile], _STRENGTH)))
    # RFC 9325 3.3 to 3.5. A ticket's key would stay the same for the life of the process, which 3.4 forbids.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET


def _load_certificate(context: ssl.SSLContext, files: TlsFiles) -> None:
    check_certificate(files)
    assert files.certificate_file is not None
    try:
        # an empty pass phrase, so that the library does not ask for one on a terminal
        context.load_cert_chain(files.certificate_file, files.key_file, password="")
    except ssl.SSLError as error:
        reason = failure_in_words(error)
        raise ConfigError(f"tls.certificate_file: {files.certificate_file}: cannot be used: {reason}") from None


def _load_authorities(context: ssl.SSLContext, file: Path) -> None:
    check_authorities(file)
    try:
        context.load_verify_locations(file)
    except ssl.SSLError as error:
        raise ConfigError(f"tls.ca_file: {file}: cannot be used: {failure_in_words(error)}") from None
