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

from node.dicom.tls_failures import failure_in_words
from node.dicom.tls_profile import client_context
from node.errors import ConfigError, DeliveryError
from node.study import Destination, TlsFiles

_PDV_HEAD_BYTES = 6  # length, context ID and control header (PS3.8 9.3.5.1, E.2), counted in the maximum length
_NOT_ABOUT_CONTEXTS = {  # (source, reason) of permanent rejections (PS3.8 9.3.4)
    (1, 2),  # application context name not supported
    (1, 3),  # calling AE title not recognised
    (1, 7),  # called AE title not recognised
    (2, 2),  # protocol version not supported
}


class TlsContext(ssl.SSLContext):
    """DICOM TLS as `client_context` builds it. ``failure_reason`` says why TLS failed, which pynetdicom only logs."""

    failure_reason: str | None = None

    @classmethod
    def of(cls, files: TlsFiles) -> TlsContext:
        """The context for ``files``.

        Raises:
            DeliveryError: a file cannot be used; the message names its key and path.
        """
        try:
            context = client_context(files, cls)
        except ConfigError as error:
            raise DeliveryError(str(error)) from None
        context.sslsocket_class = _TlsSocket
        return context


class _TlsSocket(ssl.SSLSocket):
    """A socket that records why it could not connect, and closes itself then; pynetdicom does neither."""

    def connect(self, address: Any) -> None:
        try:
            super().connect(address)
        except OSError:
            self.close()
            raise

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError as error:
            self._note(error)
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except ssl.SSLError as error:  # with TLS 1.3, a peer refuses the node's certificate after the handshake
            self._note(error)
            raise

    def _note(self, error: OSError) -> None:
        assert isinstance(self.context, TlsContext)
        self.context.failure_reason = f"TLS: {failure_in_words(error)}"


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
    reason = f"{where} cannot be reached or does not answer"
    if destination.tls is None and association.requestor.port:  # the port of an open connection
        # a peer that expects TLS closes a connection without it, mostly without a word
        reason += "; it accepted the connection: does it expect TLS (destination.tls)?"
    return reason
