"""Says in plain words why a TLS handshake failed; OpenSSL's own words follow in brackets."""

from __future__ import annotations

import ssl

_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG",
                     "RECORD_LAYER_FAILURE", "BAD_RECORD_TYPE", "RECORD_TOO_SMALL"})  # fmt: skip
_NO_VERSION = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "VERSION_TOO_LOW",
                         "NO_PROTOCOLS_AVAILABLE", "INAPPROPRIATE_FALLBACK"})  # fmt: skip
_NO_SUITE = frozenset({"NO_SHARED_CIPHER", "NO_SUITABLE_KEY_SHARE", "NO_SUITABLE_SIGNATURE_ALGORITHM",
                       "NO_SHARED_SIGNATURE_ALGORITHMS", "NO_SHARED_GROUPS", "DH_KEY_TOO_SMALL", "WRONG_CURVE",
                       "TLSV1_ALERT_INSUFFICIENT_SECURITY", "TLSV13_ALERT_INSUFFICIENT_SECURITY"})  # fmt: skip
_NO_CERTIFICATE = frozenset({"PEER_DID_NOT_RETURN_A_CERTIFICATE"})
_OURS_REFUSED = frozenset({"TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
                           "SSLV3_ALERT_CERTIFICATE_EXPIRED", "SSLV3_ALERT_CERTIFICATE_REVOKED",
                           "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE", "TLSV1_ALERT_ACCESS_DENIED",
                           "TLSV1_ALERT_DECRYPT_ERROR", "TLSV13_ALERT_CERTIFICATE_REQUIRED"})  # fmt: skip

_WORDS = (
    (_NO_TLS, "the peer does not speak TLS on this connection: one side has it on, the other off"),
    (_NO_VERSION, "the peer speaks neither TLS 1.2 nor 1.3"),
    (_NO_SUITE, "the peer offers no cipher suite, curve or signature of the profile (tls.profile)"),
    (_NO_CERTIFICATE, "the peer sent no certificate, and tls.ca_file asks for one"),
    (_OURS_REFUSED, "the peer does not accept the node's certificate"),
    # also what a peer says that found no certificate where it wants one
    ({"SSLV3_ALERT_HANDSHAKE_FAILURE"}, "the peer found nothing in common, or wants a certificate"),
)


def failure_in_words(error: OSError) -> str:
    """Why a handshake, or the connection after it, failed. Names no file, since the peer's words decide."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionResetError | BrokenPipeError):
        return "the peer ended the connection in the handshake; its log may say why"
    if isinstance(error, TimeoutError):
        return "the peer did not do the handshake in time"
    reason = getattr(error, "reason", None)  # an SSLError that OpenSSL itself did not raise has none
    if not isinstance(error, ssl.SSLError) or reason is None:
        return error.strerror or type(error).__name__
    quoted = reason.replace("_", " ").lower()
    words = next((text for reasons, text in _WORDS if reason in reasons), None)
    return f"{words} ({quoted})" if words else quoted
