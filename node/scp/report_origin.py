"""Who brings a storage commitment report, and whether that is the destination that was asked (PS3.4 J.3.3).

The standard gives a report no signature: without this check, any peer that may associate could commit a study in the
name of the PACS.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pynetdicom.association import Association

from node.dicom.commitment import CommitmentRequest


@dataclass(frozen=True, slots=True)
class ReportingPeer:
    """The peer of the association on which a report comes.

    ``certificate``: the certificate it presented, as ``ssl.SSLSocket.getpeercert`` gives it; empty if it presented
    none, or none was asked for. Such a certificate is signed by an authority of ``tls.ca_file``.
    """

    ae_title: str
    address: str
    is_encrypted: bool = False
    certificate: Mapping[str, Any] = field(default_factory=dict)


def reporting_peer(association: Association) -> ReportingPeer:
    """The peer that opened ``association``.

    Raises:
        OSError: the connection has ended.
    """
    requestor = association.requestor
    connection = association.dul.socket and association.dul.socket.socket
    is_encrypted = isinstance(connection, ssl.SSLSocket)
    try:
        certificate = (connection.getpeercert() or {}) if is_encrypted else {}
    except ValueError as error:  # the handshake is not complete, or the socket was closed
        raise OSError(str(error)) from None
    return ReportingPeer(requestor.ae_title, requestor.address, is_encrypted, certificate)


def why_not_from(request: CommitmentRequest, peer: ReportingPeer) -> str | None:
    """Why ``peer`` is not the destination that was asked; None if it is."""
    if peer.ae_title.strip() != request.ae_title.strip():
        return "its calling AE title is not the destination's (commitment_ae_title)"
    if not request.comes_from(peer.address):
        return "its address is not the destination's (commitment_addresses)"
    if request.is_encrypted and not peer.certificate:
        return "the destination is asked over TLS, and this peer presented no certificate (scp.tls, tls.ca_file)"
    if peer.certificate and not _is_named(peer.certificate, request.host):
        return "its certificate does not name the destination's host"
    return None


def _is_named(certificate: Mapping[str, Any], host: str) -> bool:
    """True if the certificate is for ``host``, a name or an address (RFC 9525; the common name does not count)."""
    from urllib3.util.ssl_match_hostname import CertificateError, match_hostname

    try:
        match_hostname(cast(Any, certificate), host)
    except CertificateError:
        return False
    return True
