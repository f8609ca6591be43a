"""Opens and closes the sender's associations, plain or TLS. The other files of ``scu`` send requests on them."""

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

_PDV_HEAD_BYTES = 6  # length, context ID and control header (PS3.8 9.3.5.1, E.2), counted in the maximum length
_NOT_ABOUT_CONTEXTS = {  # (source, reason) of permanent rejections (PS3.8 9.3.4)
    (1, 2),  # application context name not supported
    (1, 3),  # calling AE title not recognised
    (1, 7),  # called AE title not recognised
    (2, 2),  # protocol version not supported
}


class TlsContext(ssl.SSLContext):
    """DICOM TLS (PS3.15 B.9, BCP 195): TLS 1.2 or newer, the peer's certificate and name are checked.

    ``failure_reason`` says why a TLS handshake failed, which pynetdicom only logs.
    """

    failure_reason: str | None = None

    @classmethod
    def of(cls, files: TlsFiles) -> TlsContext:
        """The context for ``files``; without ``ca_file`` it trusts the system's certificate authorities.

        Raises:
            DeliveryError: a file cannot be used; the message names its key.
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
                # an empty pass phrase, so that the library does not ask for one on a terminal
                context.load_cert_chain(files.certificate_file, files.key_file, password="")
            except OSError as error:
                raise DeliveryError(f"tls.certificate_file or tls.key_file: {_tls_reason(error)}") from None
        return context


class _TlsSocket(ssl.SSLSocket):
    """A socket that records why it could not connect, and closes itself then; pynetdicom does neither."""

    def connect(self, address: Any) -> None:
        assert isinstance(self.context, TlsContext)
        try:
            super().connect(address)
        except ssl.SSLError as error:
            self.context.failure_reason = f"TLS: {_tls_reason(error)}"
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


def keep_responses(association: Association) -> None:
    """Work around a race of pynetdicom 3.0.4, which `pyproject.toml` pins for this reason.

    Its reactor thread reports that it is paused too early: it may still take one message from the queue, and drops a
    response as "unexpected" while the sender waits for it until the time-out. Here such a response is put back at the
    front of the queue, because a C-FIND has several responses. The reactor, paused by then, takes no second message.
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
    """An association, established or not; at the end of the block it is released and its socket is closed.

    ``handlers``: pairs of event and handler, for requests of the peer on this association.

    Raises:
        DeliveryError: the host has no address, the TLS files cannot be used, or the peer's PDUs are too short.
    """
    connections: list[socket.socket] = []

    def keep_socket(event: evt.Event) -> None:
        # called before the connection is made: if that fails, pynetdicom does not close the socket
        if not connections:
            connections.append(event.assoc.dul.socket.socket)

    def set_up_socket(event: evt.Event) -> None:
        connection = event.assoc.dul.socket.socket
        # with TLS a new socket; pynetdicom does not close it if the peer closes the connection first
        connections.append(connection)
        # without a time-out a peer that stops reading blocks pynetdicom's sender for ever
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
        if tls and tls.failure_reason:
            raise DeliveryError(f"{_address(destination)}: {tls.failure_reason}")
        if association.is_established:
            _check_pdu_length(association, destination)
        keep_responses(association)
        yield association
    finally:
        if association.is_established:
            association.release()
        if association.ident is not None:
            association.join()
        for connection in connections:
            connection.close()


def _check_pdu_length(association: Association, destination: Destination) -> None:
    longest_bytes = association.acceptor.maximum_length  # 0: no limit
    if longest_bytes is None:
        raise DeliveryError(f"{_address(destination)} does not say how long PDUs may be")
    if 0 < longest_bytes <= _PDV_HEAD_BYTES:
        raise DeliveryError(f"{_address(destination)} receives PDUs of at most {longest_bytes} bytes")


def _address(destination: Destination) -> str:
    return f"{destination.ae_title} at {destination.host}:{destination.port}"


def may_accept_fewer_contexts(association: Association) -> bool:
    """True if the peer rejected or aborted the association, and the number of presentation contexts may be why."""
    if association.is_rejected:
        answer = association.acceptor.primitive
        is_permanent = answer.result == 1
        return is_permanent and (answer.result_source, answer.diagnostic) not in _NOT_ABOUT_CONTEXTS
    # pynetdicom itself sends an A-ABORT if the peer cannot be reached or does not answer
    return association.is_aborted and association.acceptor.primitive is None and not association._sent_abort


def why_not_established(association: Association, destination: Destination) -> str:
    """The reason why an association was rejected or not established."""
    where = _address(destination)
    if association.is_rejected:
        return f"{where} rejected the association: {association.acceptor.primitive.reason_str}"
    if association.rejected_contexts:
        return f"{where} accepted no presentation context"
    return f"{where} cannot be reached or does not answer"
