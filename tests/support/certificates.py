"""Certificates for tests of TLS: an authority, and what it signs, made by OpenSSL in a folder of the test's."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

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
