"""The receiver's life cycle: listen, negotiate associations, stop without leaving a thread or a socket."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from types import TracebackType

import structlog
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import Verification

from node.config_sections import ScpSection, TlsSection
from node.dicom.tls_profile import server_context
from node.errors import ConfigError
from node.metrics import Metrics
from node.scp.commitment import CommitmentHandler, commitment_context
from node.scp.connection import CheckedDecoder, ClosingStateMachine, Connection, MonotonicTimer, WakingQueue
from node.scp.handlers import STORAGE_SOP_CLASSES, StorageHandlers
from node.scp.limits import SPARE_CONNECTIONS, MemoryBudget
from node.scp.listener import ConnectionFilter, Listener, tell_validity
from node.scp.observer import Observer, peer_of
from node.scp.provider import StreamingProvider
from node.study import Peer

log = structlog.get_logger()

_POLL_SECONDS = 0.1
_STOP_SECONDS = 3.0  # time for open associations to end before their connections are cut ...
_GIVE_UP_SECONDS = 10.0  # ... and before a thread that waits for the disk is left running
REQUEST_SECONDS = 10.0  # for A-ASSOCIATE-RQ on a new connection; scp.network_timeout_seconds if less
CALLING_NOT_ALLOWED = "the calling AE title is not in scp.calling_ae_titles"
CALLED_WRONG = "the called AE title is not scp.ae_title"
_LOCAL_LIMIT_EXCEEDED = (0x02, 0x03, 0x02)  # PS3.8 9.3.4: rejected-transient, by the provider, local-limit-exceeded


def _support_what_is_proposed(association: Association, others: list[PresentationContext]) -> None:
    """Accept each storage presentation context in the first transfer syntax proposed, a private one included.

    pynetdicom has fixed lists of transfer syntaxes, and applies the acceptor's order. Here, before the negotiation of
    one association, each proposal is cut to its first transfer syntax and the supported contexts are set to match. The
    node stores instances without decoding them, so any transfer syntax will do. ``others``: the supported presentation
    contexts besides storage.
    """
    first_proposed: dict[UID, list[UID]] = {}
    known = {context.abstract_syntax for context in others}
    for context in association.requestor.primitive.presentation_context_definition_list:
        if context.abstract_syntax in known:
            continue
        context.transfer_syntax = context.transfer_syntax[:1]  # of what will be rejected, too: it is kept in memory
        if context.abstract_syntax in STORAGE_SOP_CLASSES:
            first_proposed.setdefault(context.abstract_syntax, []).extend(context.transfer_syntax)
    association.acceptor.supported_contexts = [
        *others,
        *(build_context(sop_class, transfer_syntaxes) for sop_class, transfer_syntaxes in first_proposed.items()),
    ]


def _is_under_way(association: Association) -> bool:
    is_over = association.is_rejected or association.is_aborted or association.is_released
    return association.is_alive() and not is_over


class Receiver:
    """The storage SCP, from `start` to `stop`; also a context manager.

    ``tls``: the TLS files, if ``section.tls``. ``commitment``: handles storage commitment reports; None: their
    presentation context is rejected. ``observer``: is told of associations that ended and of peers not let in.
    """

    def __init__(
        self,
        section: ScpSection,
        handlers: StorageHandlers,
        metrics: Metrics,
        tls: TlsSection | None = None,
        commitment: CommitmentHandler | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer
        self._section = section
        self._handlers = handlers
        self._metrics = metrics
        self._tls = tls or TlsSection()
        self._commitment = commitment
        self._report_memory = MemoryBudget()
        self._server: Listener | None = None
        self._thread: threading.Thread | None = None
        # pynetdicom does not close a socket that the peer closed first: `_clean_up` closes the sockets listed here
        self._open: dict[Association, tuple[socket.socket, Connection]] = {}
        self._accept_lock = threading.Lock()
        self._accepted: set[Association] = set()

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
            ConfigError: the address cannot be listened on, or a TLS file cannot be used; the message names the key.
        """
        section = self._section
        ae = AE(section.ae_title)
        ae.require_called_aet = True
        ae.require_calling_aet = list(section.calling_ae_titles)
        most_connections = section.max_associations + SPARE_CONNECTIONS
        ae.maximum_associations = 2 * most_connections  # never reached, as it counts silent connections, too
        ae.maximum_pdu_size = section.max_pdu_bytes
        ae.dimse_timeout = ae.network_timeout = section.network_timeout_seconds
        ae.acse_timeout = min(section.network_timeout_seconds, REQUEST_SECONDS)
        others = [build_context(Verification)]
        bindings = [
            (evt.EVT_REQUESTED, self._association_requested, [others]),
            (evt.EVT_REJECTED, self._association_rejected),
            (evt.EVT_C_ECHO, self._handlers.handle_echo),
            (evt.EVT_C_STORE, self._handlers.handle_store),
        ]
        if self._commitment:
            others.append(commitment_context())
            bindings.append((evt.EVT_N_EVENT_REPORT, self._commitment.handle_event_report))
        tls = server_context(self._tls.files()) if section.tls else None
        if tls:
            tell_validity(self._tls.files())
        try:
            self._server = ae.make_server(
                (section.host, section.port),
                contexts=[*others, *(build_context(sop_class) for sop_class in STORAGE_SOP_CLASSES)],
                evt_handlers=bindings,
                server_class=Listener,
                connection_filter=ConnectionFilter(section.allowed_addresses, most_connections, self._connection_count),
                tls=tls,
                on_tick=self._clean_up_ended,
                prepare_association=self._prepare,
                discard_association=self._discard,
                on_refused=self._peer_refused,
            )
        except OSError as error:
            key = "scp.port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "scp.host"
            raise ConfigError(f"{key}: cannot listen on {section.host}:{section.port}: {error.strerror}") from None
        self._metrics.associations.set_function(self._established_associations)
        self._thread = threading.Thread(target=self._serve, args=(self._server,), name="receiver")
        self._thread.start()
        log.info("receiver_listening", ae_title=section.ae_title, host=section.host, port=section.port, tls=section.tls)

    @property
    def is_alive(self) -> bool:
        """True while connections are accepted."""
        return self._thread is not None and self._thread.is_alive()

    def _serve(self, server: Listener) -> None:
        try:
            server.serve_forever(_POLL_SECONDS)
        finally:
            if self._server is server:  # `stop` was not called
                log.error("receiver_not_listening")

    def stop(self) -> None:
        """Stop listening, abort open associations, wait for their threads. Peers repeat requests without response."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._server = self._thread = None
        server.shutdown()
        thread.join()
        self._end_associations(server)
        for association in list(self._open):
            self._clean_up(association)
        log.info("receiver_stopped")

    def _end_associations(self, server: Listener) -> None:
        """Abort established associations; cut connections without an A-ASSOCIATE-RQ, or that do not end in time."""
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
        if association in self._open:
            with contextlib.suppress(OSError):
                self._open[association][0].shutdown(socket.SHUT_RDWR)
        association.dul.to_user_queue.put(None)

    def _prepare(self, association: Association) -> None:
        """Replace the association's connection, timers and DIMSE provider by the node's, before its threads start."""
        dul, plain = association.dul, association.dul.socket.socket
        try:
            timeout_seconds, max_pdu_bytes = self._section.network_timeout_seconds, self._section.max_pdu_bytes
            connection = Connection(association, plain, timeout_seconds, max_pdu_bytes)
        except OSError:  # no descriptors left, or the peer is gone
            plain.close()
            raise
        dul.event_queue.get_nowait()  # both connections put their event; one is enough
        association.dimse = StreamingProvider(association, self._handlers.begin, self._report_memory)
        dul._decode_pdu = CheckedDecoder(dul._decode_pdu, association)
        dul.socket = connection
        dul.state_machine = ClosingStateMachine(dul)
        dul.artim_timer = MonotonicTimer(association.acse_timeout)
        dul._idle_timer = MonotonicTimer(association.network_timeout)
        dul.to_provider_queue = WakingQueue(connection.wake)
        dul.to_user_queue = WakingQueue(association.dimse.wake)
        dul._run_loop_delay = 0  # Connection.ready waits
        self._open[association] = (plain, connection)

    def _discard(self, association: Association) -> None:
        """Clean up an association whose threads did not start, or only one of the two."""
        association.dul.kill_dul()
        self._cut(association)
        if association.dul.ident is not None:
            association.dul.join()
        self._clean_up(association)

    def _clean_up_ended(self) -> None:
        for association in list(self._open):
            dul = association.dul
            if association.ident is None:  # about to start
                continue
            if not association.is_alive():
                if dul.is_alive():  # the association's thread has ended and cannot stop it
                    dul.kill_dul()
                else:
                    self._clean_up(association)
            elif not dul.is_alive():
                # it may wait for an A-ASSOCIATE-RQ that cannot come; None has the effect of a time-out
                dul.to_user_queue.put(None)

    def _clean_up(self, association: Association) -> None:
        plain, connection = self._open.pop(association)
        self._accepted.discard(association)
        with contextlib.suppress(OSError):
            plain.close()
        connection.close_wake_sockets()
        association.dimse.discard_arrivals()
        if self._observer:
            self._observer.association_ended(association)

    def _association_requested(self, event: evt.Event, others: list[PresentationContext]) -> None:
        """Accept the association, or reject it (transient) if ``max_associations`` are open."""
        association = event.assoc
        with self._accept_lock:
            count = sum(_is_under_way(each) for each in self._accepted.copy())
            is_accepted = count < self._section.max_associations
            if is_accepted:
                self._accepted.add(association)
        if is_accepted:
            _support_what_is_proposed(association, others)
            return
        association.acse.send_reject(*_LOCAL_LIMIT_EXCEEDED)
        self._log_rejection(association, "scp.max_associations are open")
        association.kill()

    def _connection_count(self) -> int:
        return len(self._open) + (self._server.handshake_count if self._server else 0)

    def _association_rejected(self, event: evt.Event) -> None:
        """pynetdicom rejected the association, which it does for an AE title alone."""
        is_called_well = event.assoc.requestor.primitive.called_ae_title.strip() == self._section.ae_title.strip()
        reason = CALLING_NOT_ALLOWED if is_called_well else CALLED_WRONG
        self._log_rejection(event.assoc, reason)
        self._peer_refused(peer_of(event.assoc), reason)

    def _log_rejection(self, association: Association, reason: str) -> None:
        request = association.requestor.primitive
        log.warning(
            "association_rejected",
            calling_ae_title=request.calling_ae_title,
            called_ae_title=request.called_ae_title,
            address=association.requestor.address,
            reason=reason,
        )

    def _peer_refused(self, peer: Peer, reason: str) -> None:
        if self._observer:
            self._observer.peer_refused(peer, reason)

    def _established_associations(self) -> float:
        server = self._server
        return sum(association.is_established for association in server.active_associations) if server else 0
