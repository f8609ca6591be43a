"""What is wrong with a file of [tls] is said by its key and path; contexts follow the profile."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from certificates import Authority, curve, make_authority
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from lab import needs, run_program

from node.dicom.certificates import validities
from node.dicom.tls_failures import failure_in_words
from node.dicom.tls_profile import client_context, server_context
from node.errors import ConfigError
from node.study import TlsFiles

pytestmark = needs("openssl")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The hospital's certificate authority."""
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> TlsFiles:
    """The node's files, all in order."""
    return authority.issue("node")


def _missing(files: TlsFiles, _: Authority, folder: Path) -> TlsFiles:
    return replace(files, key_file=folder / "none.key")


def _folder(files: TlsFiles, _: Authority, folder: Path) -> TlsFiles:
    return replace(files, certificate_file=folder)


def _swapped(files: TlsFiles, _: Authority, __: Path) -> TlsFiles:
    return replace(files, certificate_file=files.key_file, key_file=files.certificate_file)


def _certificate_as_key(files: TlsFiles, _: Authority, __: Path) -> TlsFiles:
    return replace(files, key_file=files.certificate_file)


def _key_of_another(files: TlsFiles, authority: Authority, __: Path) -> TlsFiles:
    return replace(files, key_file=authority.issue("another").key_file)


def _locked(files: TlsFiles, _: Authority, folder: Path) -> TlsFiles:
    assert files.key_file is not None
    key = serialization.load_pem_private_key(files.key_file.read_bytes(), None)
    locked = folder / "locked.key"
    form = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return replace(files, key_file=locked)


def _empty_authorities(files: TlsFiles, _: Authority, folder: Path) -> TlsFiles:
    (folder / "empty.crt").write_text("")
    return replace(files, ca_file=folder / "empty.crt")


def _short_key(_: TlsFiles, authority: Authority, __: Path) -> TlsFiles:
    return authority.issue("short", key=rsa.generate_private_key(65537, 1024))


def _small_curve(_: TlsFiles, authority: Authority, __: Path) -> TlsFiles:
    return authority.issue("small", key=curve(ec.SECP224R1))


@pytest.mark.parametrize(
    ("damage", "named", "words"),
    [
        (_missing, "tls.key_file: {folder}/none.key", "cannot be read: No such file or directory"),
        (_folder, "tls.certificate_file: {folder}", "cannot be read: Is a directory"),
        (_swapped, "tls.certificate_file: ", "holds no certificate in PEM form"),
        (_certificate_as_key, "tls.key_file: ", "holds no private key in PEM form"),
        (_key_of_another, "tls.key_file: ", "is not the key of the certificate in "),
        (_locked, "tls.key_file: {folder}/locked.key", "the key has a pass phrase"),
        (_empty_authorities, "tls.ca_file: {folder}/empty.crt", "holds no certificate in PEM form"),
        (_short_key, "tls.certificate_file: ", "an RSA key of 1024 bits; 2048 are the least"),
        (_small_curve, "tls.certificate_file: ", "an elliptic curve of 224 bits; 256 are the least"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_by_key_and_path(
    damage: Callable[[TlsFiles, Authority, Path], TlsFiles],
    named: str,
    words: str,
    own: TlsFiles,
    authority: Authority,
    tmp_path: Path,
) -> None:
    """Each damage is named by its key, its path and what is wrong, for the side that listens and for the other."""
    files = damage(own, authority, tmp_path)
    for build in (server_context, lambda each: client_context(each, ssl.SSLContext)):
        with pytest.raises(ConfigError) as raised:
            build(files)
        assert str(raised.value).startswith(named.format(folder=tmp_path))
        assert words in str(raised.value)


def test_sha1_is_no_signature(tmp_path: Path) -> None:
    """A certificate that is signed with SHA-1 is refused in words."""
    files = TlsFiles(tmp_path / "old.crt", tmp_path / "old.key", None)
    make = ("req", "-x509", "-sha1", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=old")
    done = run_program("openssl", *make, "-keyout", tmp_path / "old.key", "-out", tmp_path / "old.crt")
    assert done.returncode == 0, done.stdout
    with pytest.raises(ConfigError, match=r"is signed with SHA1; SHA-256 is the least"):
        server_context(files)


def test_certificate_and_key_are_both_needed(own: TlsFiles) -> None:
    """A certificate without its key, or a listener without a certificate, is named by the missing key."""
    with pytest.raises(ConfigError, match=r"tls\.key_file: missing"):
        client_context(replace(own, key_file=None), ssl.SSLContext)
    with pytest.raises(ConfigError, match=r"tls\.certificate_file: missing"):
        server_context(TlsFiles(None, None, None))


def test_expiry_is_told_before_and_after(authority: Authority) -> None:
    """A certificate that is valid for long has no remark; one that ends soon, has ended or begins later has one."""
    files = authority.issue("year", days=(-1, 365))
    now = datetime.now(UTC)

    def told(days: float) -> tuple[bool, str]:
        own, _ = validities(files, now + timedelta(days=days))
        return own.is_valid, own.remark or ""

    assert told(0) == (True, "")
    assert told(340)[0]
    assert "in 25 days: have it renewed" in told(340)[1].replace("24 days", "25 days")
    assert not told(366)[0]
    assert "expired on" in told(366)[1]
    assert not told(-2)[0]
    assert "is the clock right?" in told(-2)[1]


def test_failure_is_never_silent() -> None:
    """An error of the network that is none of TLS, and one that OpenSSL does not name, have words as well."""
    assert failure_in_words(TimeoutError()) == "the peer did not do the handshake in time"
    assert failure_in_words(OSError(113, "No route to host")) == "No route to host"
    assert failure_in_words(ssl.SSLError()) == "SSLError"
