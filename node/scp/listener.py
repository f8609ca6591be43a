"""Who may connect, and how: addresses, number of connections, TLS. Everything else is the association's."""

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

from node.config_sections import TlsSection
from node.errors import ConfigError

log = structlog.get_logger()

_HANDSHAKE_SECONDS = 10.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_EXHAUSTED_SECONDS = 0.2  # before the next try, for what cannot be taken goes on knocking


def server_tls_context(section: TlsSection) -> ssl.SSLContext:
    """TLS 1.2 or newer (PS3.15 B.9) with the node's certificate; with a CA file, peers must show a certificate, too.

    Raises:
        ConfigError: a file is not named, or cannot be used; names the key.
    """
    if section.certificate_file is None or section.key_file is None:
        key = "certificate_file" if section.certificate_file is None else "key_file"
        raise ConfigError(f"tls.{key}: missing, and scp.tls needs it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(section.certificate_file, section.key_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"tls.certificate_file, tls.key_file: cannot be used: {error.strerror or error}") from None
    if section.ca_file is not None:
        try:
            context.load_verify_locations(section.ca_file)
        except OSError as error:
            raise ConfigError(f"tls.ca_file: cannot be used: {error.strerror or error}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class ConnectionFilter:
    """Decides by address and number who may connect. ``open_count`` tells how many connections are open."""

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
            return "not in scp.allowed_addresses"
        if self._open_count() >= self._most_connections:
            return "too many connections"
        return None


class _Beginning(RequestHandler):  # type: ignore[misc]
    """Begins one association, or leaves nothing of it."""

    server: Listener

    def handle(self) -> None:
        """As pynetdicom's; its event for this swallows what handlers raise.

        Raises:
            OSError, RuntimeError: there are no more descriptors, or threads.
        """
        association = self._create_association()
        self.server.prepare(association)
        try:
            association.dul.start()
            association._started_dul = True  # else it would start it itself, where nobody catches what that raises
            association.start()
        except RuntimeError:
            self.server.forget(association)
            raise


class Listener(ThreadedAssociationServer):  # type: ignore[misc]
    """pynetdicom's server behind a `ConnectionFilter`.

    It has room for a whole scanner fleet to connect at once (pynetdicom's default is 5), and a TLS handshake holds up
    nobody else. ``on_tick`` is called several times a second while it listens, ``prepare`` for each association before
    its threads start, ``forget`` if one does not.
    """

    request_queue_size = 128

    def __init__(
        self,
        *arguments: Any,
        connection_filter: ConnectionFilter,
        tls: ssl.SSLContext | None,
        on_tick: Callable[[], None],
        prepare: Callable[[Association], None],
        forget: Callable[[Association], None],
        **keywords: Any,
    ) -> None:
        self._doorkeeper = connection_filter
        self._tls = tls
        self._on_tick = on_tick
        self.prepare, self.forget = prepare, forget
        self._is_exhausted = False
        self._handshakes: set[ssl.SSLSocket] = set()
        super().__init__(*arguments, request_handler=_Beginning, **keywords)

    @property
    def handshake_count(self) -> int:
        """Connections whose TLS handshake is under way."""
        return len(self._handshakes)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take the next connection.

        Raises:
            OSError: it cannot be taken now. Without descriptors this takes a moment, so that a core is not lost, too.
        """
        try:
            taken: tuple[socket.socket, Any] = super().get_request()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                if not self._is_exhausted:
                    log.error("connections_cannot_be_taken", reason=error.strerror)
                self._is_exhausted = True
                time.sleep(_EXHAUSTED_SECONDS)
            raise
        self._is_exhausted = False
        return taken

    def verify_request(self, _request: Any, client_address: Any) -> bool:
        """True if the peer may connect; otherwise its connection is closed without a word."""
        reason = self._doorkeeper.reason_to_refuse(client_address[0])
        if reason:
            log.warning("connection_refused", address=client_address[0], reason=reason)
        return reason is None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Begin an association, after the TLS handshake if there is one. In a thread of its own."""
        connection = self._shake_hands(request, client_address[0]) if self._tls else request
        if connection is not None:
            super().finish_request(connection, client_address)

    def _shake_hands(self, request: socket.socket, address: str) -> ssl.SSLSocket | None:
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
        except OSError as error:  # ssl.SSLError and TimeoutError are such
            reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
            log.warning("tls_handshake_failed", address=address, reason=reason)
            self.shutdown_request(connection)
            return None
        finally:
            self._handshakes.discard(connection)
        return connection

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """An association could not be begun: log it, where socketserver prints."""
        log.error("connection_failed", address=client_address[0], reason=type(sys.exception()).__name__)

    def service_actions(self) -> None:
        """Between two connections."""
        super().service_actions()
        self._on_tick()

    def shutdown(self) -> None:
        """Stop listening. pynetdicom's own expects to have been started by ``AE.start_server``."""
        BaseServer.shutdown(self)
        for connection in list(self._handshakes):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
