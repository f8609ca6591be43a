"""The TCP connection of one association: reads without polling, and limits the size and time of a PDU."""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from pynetdicom.association import Association
from pynetdicom.fsm import InvalidEventError, StateMachine
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationSocket

from node.dicom.parse_errors import PARSE_ERRORS
from node.scp.limits import ASSOCIATE_RQ_BYTES, TooMuchError, check_pdu

log = structlog.get_logger()

_WAIT_SECONDS = 0.1
_PIECE_BYTES = 1 << 16
_LEAST_PDU_BYTES = 1 << 10  # for any PDU but P-DATA-TF and A-ASSOCIATE-RQ; those have four bytes
_CLOSED_SECONDS = 0.001
_TLS_HANDSHAKE = b"\x16\x03"  # how a TLS connection begins (RFC 8446 5.1); no PDU does
_BEFORE_REQUEST = ("Sta1", "Sta2")  # PS3.8 9.2.2: idle; transport connection open, awaiting A-ASSOCIATE-RQ


class CheckedDecoder:
    """Decodes the PDUs of one association once `limits.check_pdu` has counted what they hold.

    One thread at a time decodes: the objects of a PDU take many times the memory of its bytes. ``decode``: pynetdicom's
    method that it replaces.
    """

    _lock = threading.Lock()

    def __init__(self, decode: Callable[[bytearray], Any], association: Association) -> None:
        self._decode = decode
        self._association = association

    def __call__(self, pdu: bytearray) -> Any:
        """The PDU and its event. pynetdicom catches every exception, and aborts the association (A-ABORT)."""
        try:
            check_pdu(pdu)
        except TooMuchError as error:
            log.warning("association_aborted", reason=str(error), address=self._association.requestor.address)
            raise
        with self._lock:
            return self._decode(pdu)


class WakingQueue(queue.Queue[Any]):
    """A queue that calls ``wake`` after each item put."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As `queue.Queue.put`; then call ``wake``."""
        super().put(item, block, timeout)
        self._wake()


class ClosingStateMachine(StateMachine):  # type: ignore[misc]
    """Ends the association at an event that is invalid in the current state; pynetdicom's own lets its thread crash.

    A peer that sends a PDU before it has the response to the last one causes it: the response is then sent in the wrong
    state.
    """

    def do_action(self, event: str) -> None:
        """Do the action of ``event``, or end the association if that fails."""
        try:
            super().do_action(event)
        except (InvalidEventError, *PARSE_ERRORS) as error:
            kind, state = type(error).__name__, self.current_state
            log.warning("association_broken", address=self.dul.assoc.requestor.address, reason=kind, state=state)
            self.dul.kill_dul()


class MonotonicTimer(Timer):  # type: ignore[misc]
    """pynetdicom's timer on the monotonic clock: a step of the wall clock ends no association."""

    _start_time: float | None
    _end_time: float | None

    @property
    def remaining(self) -> float:
        """Seconds until the timer expires."""
        if self.timeout is None:
            return 1.0
        if self._start_time is None:
            return float(self.timeout)
        end = time.monotonic() if self._end_time is None else self._end_time
        return float(self.timeout - (end - self._start_time))

    def start(self) -> None:
        """Start, or restart, the timer."""
        self._start_time, self._end_time = time.monotonic(), None

    def stop(self) -> None:
        """Stop the timer; `remaining` then stays as it is."""
        self._end_time = time.monotonic()


class Connection(AssociationSocket):  # type: ignore[misc]
    """The socket of one association.

    pynetdicom polls its socket a thousand times a second; here its thread sleeps until the peer sends, or until `wake`
    is called because there is something to send. A PDU must be complete within ``timeout_seconds`` and no longer than
    ``max_pdu_bytes``, which is what the association negotiated; memory is taken as its bytes arrive, whatever length
    the peer announces. The first PDU, A-ASSOCIATE-RQ, must be complete within the association's ``acse_timeout``,
    counted from the connection, and has a limit of its own.
    """

    def __init__(
        self, association: Association, connection: socket.socket, timeout_seconds: float, max_pdu_bytes: int
    ) -> None:
        super().__init__(association, client_socket=connection)
        self._timeout_seconds = timeout_seconds
        self._max_pdu_bytes = max(max_pdu_bytes, _LEAST_PDU_BYTES)
        self._request_deadline = time.monotonic() + association.acse_timeout
        # without a time-out a peer that stops in the middle of a PDU blocks pynetdicom's reader for ever
        connection.settimeout(timeout_seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wake_sender, self._wake_receiver = socket.socketpair()
        self._wake_sender.setblocking(False)
        self._wake_receiver.setblocking(False)

    @property
    def ready(self) -> bool:
        """True if the peer has sent data; waits for it up to 0.1 s, unless woken or with events to handle."""
        if self.socket is None or not self._is_connected:
            time.sleep(_CLOSED_SECONDS)
            return False
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        poll = select.poll()  # unlike select.select it takes any number of descriptors
        try:
            poll.register(self.socket, select.POLLIN)
            poll.register(self._wake_receiver, select.POLLIN)
            wait_seconds = _WAIT_SECONDS if self.event_queue.empty() else 0
            awake = {descriptor for descriptor, _ in poll.poll(wait_seconds * 1000)}
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed
            return False
        if self._wake_receiver.fileno() in awake:
            with contextlib.suppress(OSError):
                self._wake_receiver.recv(4096)
        return self.socket is not None and self.socket.fileno() in awake

    def recv(self, nr_bytes: int) -> bytearray:
        """``nr_bytes`` from the peer; fewer if the peer closed the connection.

        Raises:
            OSError: the bytes did not arrive in time, or are more than a PDU may have.
        """
        has_requested = self.assoc.dul.state_machine.current_state not in _BEFORE_REQUEST
        if nr_bytes > (self._max_pdu_bytes if has_requested else ASSOCIATE_RQ_BYTES):
            log.warning("pdu_too_large", address=self.assoc.requestor.address, announced_bytes=nr_bytes)
            raise ConnectionError("the announced PDU is too large")
        deadline = time.monotonic() + self._timeout_seconds if has_requested else self._request_deadline
        content, count = bytearray(min(nr_bytes, _PIECE_BYTES)), 0
        while count < nr_bytes:
            if count == len(content):
                content.extend(bytes(min(nr_bytes - count, count)))
            received = self._read_into(content, count, deadline)
            if not received:
                break
            count += received
        if not has_requested and content.startswith(_TLS_HANDSHAKE):
            log.warning("peer_speaks_tls", address=self.assoc.requestor.address, reason="scp.tls is off")
            raise ConnectionError("the peer speaks TLS")
        del content[count:]
        return content

    def _read_into(self, content: bytearray, start: int, deadline: float) -> int:
        """Fill ``content`` from ``start`` with what has arrived; the count, 0 if the peer closed the connection.

        Bytes that have arrived count as in time, for this thread may have waited for a processor, not for the peer.
        """
        connection = self.socket
        connection.settimeout(max(deadline - time.monotonic(), 0))
        try:
            with memoryview(content) as view, view[start:] as rest:
                return int(connection.recv_into(rest))
        except (BlockingIOError, ssl.SSLWantReadError, TimeoutError):
            raise TimeoutError("the PDU was not whole in time") from None
        finally:
            connection.settimeout(self._timeout_seconds)

    def wake(self) -> None:
        """Let `ready` return at once."""
        with contextlib.suppress(OSError):  # closed, or the buffer is full because nobody has read it yet
            self._wake_sender.send(b"\0")

    def close_wake_sockets(self) -> None:
        """Close the sockets that `wake` needs. Call it when the association's threads have ended."""
        self._wake_sender.close()
        self._wake_receiver.close()
