"""Certificates for tests of TLS: an authority, and what it signs, made in a folder of the test's."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from lab import run_program

from node.study import TlsFiles

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority in ``folder``."""

    folder: Path

    @property
    def certificate_file(self) -> Path:
        """What peers are checked against."""
        return self.folder / "ca.crt"

    def sign(self, name: str, *, host: str = "127.0.0.1") -> TlsFiles:
        """Key and certificate called ``name``, for ``host`` (an address, or a name)."""
        key, certificate = self.folder / f"{name}.key", self.folder / f"{name}.crt"
        kind = "IP" if host[0].isdigit() else "DNS"
        signer = ("-CA", self.certificate_file, "-CAkey", self.folder / "ca.key")
        _make(name, key, certificate, *signer, "-addext", f"subjectAltName={kind}:{host}")
        return TlsFiles(certificate, key, self.certificate_file)

    def issue(
        self, name: str, *, key: Any = None, days: tuple[float, float] = (-1, 2), digest: Any = None, host: str = ""
    ) -> TlsFiles:
        """As `sign`, of any kind, weak ones too: any key (None: RSA of 2048 bits), valid between two ``days`` from now,
        signed with ``digest`` (None: SHA-256).
        """
        key = key or rsa.generate_private_key(65537, 2048)
        now = datetime.now(UTC)
        issuer = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
        signer: Any = serialization.load_pem_private_key((self.folder / "ca.key").read_bytes(), None)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.SubjectAlternativeName([_host(host or "127.0.0.1")]), critical=False)
            .sign(signer, digest or hashes.SHA256())
        )
        key_file, certificate_file = self.folder / f"{name}.key", self.folder / f"{name}.crt"
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
        certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return TlsFiles(certificate_file, key_file, self.certificate_file)


def curve(kind: type[ec.EllipticCurve]) -> ec.EllipticCurvePrivateKey:
    """A new key on a curve."""
    return ec.generate_private_key(kind())


def _host(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)


def make_authority(folder: Path) -> Authority:
    """A new authority."""
    folder.mkdir(parents=True, exist_ok=True)
    _make("authority", folder / "ca.key", folder / "ca.crt")
    return Authority(folder)


def _make(name: str, key: Path, certificate: Path, *more: str | Path) -> None:
    done = run_program(
        "openssl", "req", "-x509", *_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", certificate, *more
    )
    assert done.returncode == 0, done.stdout


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """A server with these files, which asks its peers for certificates of the same authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.ca_file)
    context.load_cert_chain(files.certificate_file or "", files.key_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context
