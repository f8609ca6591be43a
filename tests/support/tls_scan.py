"""A scanner of TLS listeners, with OpenSSL: which versions, cipher suites, groups and signatures do they accept?"""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import warnings

from lab import find_program

SECONDS = 10.0
VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
}
SUITES_OF_1_3 = (
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
)


def offered_suites() -> list[str]:
    """Every suite of TLS 1.2 and older that OpenSSL has, those without encryption or authentication included."""
    done = _openssl("ciphers", "-tls1_2", "ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    return [name for name in done.stdout.strip().split(":") if not name.startswith("TLS_")]


def accepted(port: int, suites: list[str]) -> set[tuple[str, str]]:
    """Version and suite of each handshake that the listener takes: all suites at once in the versions before TLS 1.2,
    each of ``suites`` alone in TLS 1.2, each suite alone in TLS 1.3.
    """
    offers = [("TLSv1", "ALL:COMPLEMENTOFALL"), ("TLSv1.1", "ALL:COMPLEMENTOFALL")]
    offers += [("TLSv1.2", suite) for suite in suites]
    found = {pair for version, suite in offers if (pair := _handshake(port, version, suite))}
    for suite in SUITES_OF_1_3:
        if s_client(port, "-tls1_3", "-ciphersuites", suite):
            found.add(("TLSv1.3", suite))
    return found


def _handshake(port: int, version: str, suite: str) -> tuple[str, str] | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old versions are what is looked for
        context.set_ciphers(f"{suite}:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = VERSIONS[version]
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as plain,
            context.wrap_socket(plain) as connection,
        ):
            agreed = connection.cipher()
            return (version, agreed[0]) if agreed else None
    except (ssl.SSLError, ConnectionError):
        return None


def s_client(port: int, *options: str, talk: str = "") -> str:
    """The suite that ``openssl s_client`` agrees on with the listener; empty: none. ``talk``: what it is told to do."""
    level = () if "-cipher" in options else ("-cipher", "ALL:@SECLEVEL=0")
    done = _openssl("s_client", "-connect", f"127.0.0.1:{port}", *level, *options, talk=talk)
    found = re.search(r"Cipher is (\S+)", done.stdout)
    is_done = found is not None and "Cipher is (NONE)" not in done.stdout and "handshake failure" not in done.stderr
    return found[1] if found and is_done else ""


def s_client_output(port: int, *options: str, talk: str = "") -> str:
    """What ``openssl s_client`` prints."""
    done = _openssl("s_client", "-connect", f"127.0.0.1:{port}", *options, talk=talk)
    return done.stdout + done.stderr


def _openssl(*arguments: str, talk: str = "") -> subprocess.CompletedProcess[str]:
    program = find_program("openssl")
    assert program is not None
    return subprocess.run(
        [program, *arguments], input=talk, capture_output=True, text=True, timeout=60, check=False, errors="replace"
    )
