"""Accepts TCP connections: allowed addresses, number of connections, TLS handshake."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import ssl
import sys
import time
from collections.abc import Callable
from socketserver import BaseServer
from typing import Any

import structlog
from pynetdicom.association import Association
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from node.dicom.certificates import validities
from node.dicom.tls_failures import failure_in_words
from node.study import Peer, TlsFiles

log = structlog.get_logger()

_HANDSHAKE_SECONDS = 10.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
NOT_ALLOWED = "not in scp.allowed_addresses"
_PAUSE_SECONDS = 0.2  # before the next try: a connection that cannot be accepted stays pending


def tell_validity(files: TlsFiles) -> None:
    """Log which certificates have expired, or will soon."""
    for each in validities(files):
        if each.remark:
            log.warning("certificate", key=each.key, file=str(each.file), reason=each.remark)


class ConnectionFilter:
    """Decides by address and number of connections which peer may connect. ``open_count`` counts open connections."""

    def __init__(
        self, allowed_addresses: tuple[str, ...], most_connections: int, open_count: Callable[[], int]
    ) -> None:
        self._networks = [ipaddress.ip_network(each) for each in allowed_addresses]
        self._most_connections = most_connections
        self._open_count = open_count

    def reason_to_refuse(self, address: str) -> str | None:
        """Why a peer at ``address`` may not connect now; None if it may."""
        peer = ipaddress.ip_address(address)
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        if self._networks and not any(peer in network for network in self._networks):
            return NOT_ALLOWED
        if self._open_count() >= self._most_connections:
            return "too many connections"
        return None


class _AssociationStarter(RequestHandler):  # type: ignore[misc]
    """Starts the threads of one association; if that fails, nothing of it is left."""

    server: Listener

    def handle(self) -> None:
        """Start the association. pynetdicom's event for this step would hide what `prepare_association` raises.

        Raises:
            OSError, RuntimeError: there are no more descriptors, or threads.
        """
        association = self._create_association()
        self.server.prepare_association(association)
        try:
            association.dul.start()
            association._started_dul = True  # else pynetdicom starts it in a thread, where its error is not caught
            association.start()
        except RuntimeError:
            self.server.discard_association(association)
            raise


class Listener(ThreadedAssociationServer):  # type: ignore[misc]
    """pynetdicom's server, for connections that a `ConnectionFilter` allows.

    Its backlog lets all scanners of a hospital connect at once (pynetdicom's default is 5), and a TLS handshake delays
    no other connection. ``on_tick`` is called several times a second, ``prepare_association`` for each association
    before its threads start, ``discard_association`` if a thread does not start, ``on_refused`` for each peer not
    authorised, by its address or in the TLS handshake.
    """

    request_queue_size = 128

    def __init__(
        self,
        *arguments: Any,
        connection_filter: ConnectionFilter,
        tls: ssl.SSLContext | None,
        on_tick: Callable[[], None],
        prepare_association: Callable[[Association], None],
        discard_association: Callable[[Association], None],
        on_refused: Callable[[Peer, str], None],
        **keywords: Any,
    ) -> None:
        self._connection_filter = connection_filter
        self._tls = tls
        self._on_tick = on_tick
        self.prepare_association, self.discard_association = prepare_association, discard_association
        self._on_refused = on_refused
        self._is_exhausted = False
        self._handshakes: set[ssl.SSLSocket] = set()
        super().__init__(*arguments, request_handler=_AssociationStarter, **keywords)

    @property
    def handshake_count(self) -> int:
        """Connections whose TLS handshake is under way."""
        return len(self._handshakes)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept the next connection.

        Raises:
            OSError: it cannot be accepted now; raised after a pause if descriptors ran out, to keep the CPU free.
        """
        try:
            taken: tuple[socket.socket, Any] = super().get_request()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                if not self._is_exhausted:
                    log.error("connections_cannot_be_taken", reason=error.strerror)
                self._is_exhausted = True
                time.sleep(_PAUSE_SECONDS)
            raise
        self._is_exhausted = False
        return taken

    def verify_request(self, _request: Any, client_address: Any) -> bool:
        """True if the peer may connect; otherwise its connection is closed without a response."""
        reason = self._connection_filter.reason_to_refuse(client_address[0])
        if reason:
            log.warning("connection_refused", address=client_address[0], reason=reason)
        if reason == NOT_ALLOWED:
            self._on_refused(Peer("", client_address[0]), reason)
        return reason is None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Start an association, after the TLS handshake if TLS is on. Runs in a thread of its own."""
        connection = self._do_handshake(request, client_address[0]) if self._tls else request
        if connection is not None:
            super().finish_request(connection, client_address)

    def _do_handshake(self, request: socket.socket, address: str) -> ssl.SSLSocket | None:
        assert self._tls is not None
        request.settimeout(_HANDSHAKE_SECONDS)
        try:
            connection = self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        except OSError:  # the peer is gone already
            self.shutdown_request(request)
            return None
        self._handshakes.add(connection)
        try:
            connection.do_handshake()
        except OSError as error:  # ssl.SSLError and TimeoutError included
            reason = failure_in_words(error)
            log.warning("tls_handshake_failed", address=address, reason=reason)
            self._on_refused(Peer("", address), f"TLS: {reason}")
            self.shutdown_request(connection)
            return None
        finally:
            self._handshakes.discard(connection)
        return connection

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """Log that an association could not be started; socketserver would print it."""
        log.error("connection_failed", address=client_address[0], reason=type(sys.exception()).__name__)

    def service_actions(self) -> None:
        """Call ``on_tick``; socketserver calls this method between two connections."""
        super().service_actions()
        self._on_tick()

    def shutdown(self) -> None:
        """Stop listening. pynetdicom's own method works only after ``AE.start_server``."""
        BaseServer.shutdown(self)
        for connection in list(self._handshakes):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
