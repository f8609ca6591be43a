"""The sender's associations: plain or TLS, opened and closed. What is said on them is in the other ``scu`` files."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from node.errors import DeliveryError
from node.study import Destination, TlsFiles


class TlsContext(ssl.SSLContext):
    """DICOM TLS (PS3.15 B.9, BCP 195): TLS 1.2 or newer, the peer's certificate and name are checked.

    ``trouble`` says why no connection came about, which pynetdicom only logs.
    """

    trouble: str | None = None

    @classmethod
    def of(cls, files: TlsFiles) -> TlsContext:
        """The context for ``files``; without ``ca_file`` the system's authorities count.

        Raises:
            DeliveryError: a file cannot be used; names its key.
        """
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.sslsocket_class = _TlsSocket
        try:
            if files.ca_file:
                context.load_verify_locations(files.ca_file)
            else:
                context.load_default_certs()
        except OSError as error:
            raise DeliveryError(f"tls.ca_file: {_tls_reason(error)}") from None
        if files.certificate_file:
            try:
                # the empty pass phrase: a key that needs one must not make the library ask on a terminal
                context.load_cert_chain(files.certificate_file, files.key_file, password="")
            except OSError as error:
                raise DeliveryError(f"tls.certificate_file or tls.key_file: {_tls_reason(error)}") from None
        return context


class _TlsSocket(ssl.SSLSocket):
    """Remembers why it could not connect, and closes itself then; pynetdicom does neither."""

    def connect(self, address: Any) -> None:
        assert isinstance(self.context, TlsContext)
        try:
            super().connect(address)
        except ssl.SSLError as error:
            self.context.trouble = f"TLS: {_tls_reason(error)}"
            self.close()
            raise
        except OSError:
            self.close()
            raise


def _tls_reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "no certificate or key in PEM form").replace("_", " ").lower()
    return error.strerror or type(error).__name__


def _give_stolen_responses_back(association: Association) -> None:
    """Work around a race of pynetdicom 3.0.4, which `pyproject.toml` pins for this reason.

    Its reactor thread says that it is paused before it is: it may still take one message off the queue, and a response
    taken so is dropped as "unexpected" while the sender waits for it until the time-out. Here such a response goes back
    to the front of the queue, for C-FIND has several. The reactor, now really paused, takes no second one.
    """
    serve_request = association._serve_request

    def serve(message: Any, context_id: int) -> None:
        if getattr(message, "MessageIDBeingRespondedTo", None) is None:
            serve_request(message, context_id)
            return
        messages = association.dimse.msg_queue
        with messages.mutex:
            messages.queue.appendleft((context_id, message))
            messages.not_empty.notify()

    association._serve_request = serve


@contextlib.contextmanager
def associate(
    destination: Destination,
    calling_ae_title: str,
    contexts: Sequence[PresentationContext],
    timeout_seconds: float,
    handlers: Sequence[Any] = (),
) -> Iterator[Association]:
    """An association, established or not; released and its socket closed on leaving.

    ``handlers``: pairs of event and handler, for what the peer may ask on this association.

    Raises:
        DeliveryError: the host has no address, or the TLS files cannot be used.
    """
    connections: list[socket.socket] = []

    def keep_socket(event: evt.Event) -> None:
        # before the connection is tried: if it fails, pynetdicom forgets to close the socket
        if not connections:
            connections.append(event.assoc.dul.socket.socket)

    def set_up_socket(event: evt.Event) -> None:
        connection = event.assoc.dul.socket.socket
        # with TLS, another than before; pynetdicom forgets to close it if the peer was faster
        connections.append(connection)
        # without it a peer that stops reading blocks pynetdicom's sender for ever
        connection.settimeout(timeout_seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    tls = TlsContext.of(destination.tls) if destination.tls else None
    ae = AE(calling_ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = timeout_seconds
    try:
        association = ae.associate(
            destination.host,
            destination.port,
            contexts=list(contexts),
            ae_title=destination.ae_title,
            tls_args=(tls, destination.host) if tls else None,
            evt_handlers=[(evt.EVT_ACSE_SENT, keep_socket), (evt.EVT_CONN_OPEN, set_up_socket), *handlers],
        )
    except OSError as error:
        raise DeliveryError(f"{destination.host}: {error.strerror}") from None
    try:
        if tls and tls.trouble:
            raise DeliveryError(f"{_address(destination)}: {tls.trouble}")
        _give_stolen_responses_back(association)
        yield association
    finally:
        if association.is_established:
            association.release()
        if association.ident is not None:
            association.join()
        for connection in connections:
            connection.close()


def _address(destination: Destination) -> str:
    return f"{destination.ae_title} at {destination.host}:{destination.port}"


def why_not_established(association: Association, destination: Destination) -> str:
    """In words, for an association that was rejected or never came about."""
    where = _address(destination)
    if association.is_rejected:
        return f"{where} rejected the association: {association.acceptor.primitive.reason_str}"
    if association.rejected_contexts:
        return f"{where} accepted no presentation context"
    return f"{where} cannot be reached or does not answer"
