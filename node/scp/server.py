"""The receiver's life cycle: listen, negotiate associations, stop without leaving a thread or a socket."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from socketserver import BaseServer
from types import TracebackType
from weakref import WeakKeyDictionary

import structlog
from pydicom.uid import UID, EnhancedMRImageStorage, MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import Verification
from pynetdicom.transport import ThreadedAssociationServer

from node.errors import ConfigError
from node.metrics import Metrics
from node.scp.handlers import StorageHandlers
from node.sections import ScpSection

log = structlog.get_logger()

STORAGE_SOP_CLASSES = (MRImageStorage, EnhancedMRImageStorage)

_POLL_SECONDS = 0.1
_STOP_SECONDS = 3.0  # how long open associations get to end in good order before they are cut ...
_GIVE_UP_SECONDS = 10.0  # ... and before a thread that hangs in the disk is left behind


class _Server(ThreadedAssociationServer):  # type: ignore[misc]
    """pynetdicom's server with room for a whole scanner fleet to connect at once (its default is 5)."""

    request_queue_size = 128

    def shutdown(self) -> None:
        """Stop listening. pynetdicom's own expects to have been started by ``AE.start_server``."""
        BaseServer.shutdown(self)
        self.server_close()


def _support_what_is_proposed(event: evt.Event) -> None:
    """Accept each storage context in the first transfer syntax proposed, private ones included.

    pynetdicom has fixed lists of transfer syntaxes, and the acceptor's order wins. Here, before the negotiation of one
    association, each proposal is cut to its first transfer syntax and the supported contexts are made to match. The
    instances are kept undecoded, so nothing needs to be understood.
    """
    first_proposed: dict[UID, list[UID]] = {}
    for context in event.assoc.requestor.primitive.presentation_context_definition_list:
        if context.abstract_syntax in STORAGE_SOP_CLASSES:
            context.transfer_syntax = context.transfer_syntax[:1]
            first_proposed.setdefault(context.abstract_syntax, []).extend(context.transfer_syntax)
    event.assoc.acceptor.supported_contexts = [
        build_context(Verification),
        *(build_context(sop_class, transfer_syntaxes) for sop_class, transfer_syntaxes in first_proposed.items()),
    ]


def _supported_contexts() -> list[PresentationContext]:
    return [build_context(sop_class) for sop_class in (Verification, *STORAGE_SOP_CLASSES)]


class Receiver:
    """The storage SCP, from `start` to `stop`; also a context manager."""

    def __init__(self, section: ScpSection, handlers: StorageHandlers, metrics: Metrics) -> None:
        self._section = section
        self._handlers = handlers
        self._metrics = metrics
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        # pynetdicom forgets to close a socket whose peer was faster
        self._sockets: WeakKeyDictionary[Association, socket.socket] = WeakKeyDictionary()

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Bind and listen.

        Raises:
            ConfigError: the address cannot be listened on; names the key.
        """
        section = self._section
        ae = AE(section.ae_title)
        ae.require_called_aet = True
        ae.require_calling_aet = list(section.calling_ae_titles)
        ae.maximum_associations = section.max_associations
        ae.maximum_pdu_size = section.max_pdu_bytes
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = section.network_timeout_seconds
        bindings = [
            (evt.EVT_CONN_OPEN, self._connection_opened),
            (evt.EVT_CONN_CLOSE, self._connection_closed),
            (evt.EVT_REQUESTED, _support_what_is_proposed),
            (evt.EVT_REJECTED, self._association_rejected),
            (evt.EVT_C_ECHO, self._handlers.handle_echo),
            (evt.EVT_C_STORE, self._handlers.handle_store),
        ]
        try:
            self._server = ae.make_server(
                (section.host, section.port),
                contexts=_supported_contexts(),
                evt_handlers=bindings,
                server_class=_Server,
            )
        except OSError as error:
            key = "scp.port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "scp.host"
            raise ConfigError(f"{key}: cannot listen on {section.host}:{section.port}: {error.strerror}") from None
        self._metrics.associations.set_function(self._established_associations)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_SECONDS,), name="receiver")
        self._thread.start()
        log.info("receiver_listening", ae_title=section.ae_title, host=section.host, port=section.port)

    def stop(self) -> None:
        """Stop listening, abort open associations, wait for their threads. Senders repeat what was not answered."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._server = self._thread = None
        server.shutdown()
        thread.join()
        self._end_associations(server)
        for connection in list(self._sockets.values()):
            connection.close()
        log.info("receiver_stopped")

    def _end_associations(self, server: _Server) -> None:
        """Abort what is established; cut connections that never asked for an association, or do not end in time."""
        started = time.monotonic()
        while associations := server.active_associations:
            elapsed_seconds = time.monotonic() - started
            if elapsed_seconds > _GIVE_UP_SECONDS:
                log.error("associations_left_open", count=len(associations))
                return
            for association in associations:
                if association.is_established:
                    association.abort(block=False)
                elif association.requestor.primitive is None or elapsed_seconds > _STOP_SECONDS:
                    self._cut(association)
            time.sleep(_POLL_SECONDS)

    def _cut(self, association: Association) -> None:
        connection = self._sockets.get(association)
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        # its thread may wait for an A-ASSOCIATE-RQ; None is what a time-out gives
        association.dul.to_user_queue.put(None)

    def _connection_opened(self, event: evt.Event) -> None:
        connection = event.assoc.dul.socket.socket
        # without it a peer that stops in the middle of a PDU blocks pynetdicom's reader for ever
        connection.settimeout(self._section.network_timeout_seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets[event.assoc] = connection

    def _connection_closed(self, event: evt.Event) -> None:
        connection = self._sockets.pop(event.assoc, None)
        if connection is not None:
            connection.close()

    def _association_rejected(self, event: evt.Event) -> None:
        request = event.assoc.requestor.primitive
        log.warning(
            "association_rejected",
            calling_ae_title=request.calling_ae_title,
            called_ae_title=request.called_ae_title,
            address=event.assoc.requestor.address,
        )

    def _established_associations(self) -> float:
        server = self._server
        return sum(association.is_established for association in server.active_associations) if server else 0
