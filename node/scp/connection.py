"""One peer's connection: read when something is there, bounded in size and time, ended without noise."""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import structlog
from pynetdicom.association import Association
from pynetdicom.fsm import InvalidEventError, StateMachine
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationSocket

from node.scp.instance_identity import PARSE_ERRORS

log = structlog.get_logger()

MAX_PDU_BYTES = 1 << 20  # no PDU is longer, be it A-ASSOCIATE-RQ or the largest P-DATA-TF that may be configured
_WAIT_SECONDS = 0.1
_CLOSED_SECONDS = 0.001
_BEFORE_REQUEST = ("Sta1", "Sta2")  # PS3.8 9.2.2: idle; or the transport connection is open, the request awaited


class WakingQueue(queue.Queue[Any]):
    """A queue that calls ``wake`` after each item put."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As `queue.Queue.put`, then wake the reader."""
        super().put(item, block, timeout)
        self._wake()


class ForgivingStateMachine(StateMachine):  # type: ignore[misc]
    """Ends the association where pynetdicom's own lets its thread die: at an event that the state does not expect.

    A peer that speaks before it was answered brings it about: the answer then comes in the wrong state.
    """

    def do_action(self, event: str) -> None:
        """As pynetdicom's."""
        try:
            super().do_action(event)
        except (InvalidEventError, *PARSE_ERRORS) as error:
            kind, state = type(error).__name__, self.current_state
            log.warning("association_broken", address=self.dul.assoc.requestor.address, reason=kind, state=state)
            self.dul.kill_dul()


class SteadyTimer(Timer):  # type: ignore[misc]
    """pynetdicom's timer, by a clock that nobody sets: when the wall clock jumps, no association ends of it."""

    _start_time: float | None
    _end_time: float | None

    @property
    def remaining(self) -> float:
        """Seconds until it expires."""
        if self.timeout is None:
            return 1.0
        if self._start_time is None:
            return float(self.timeout)
        end = time.monotonic() if self._end_time is None else self._end_time
        return float(self.timeout - (end - self._start_time))

    def start(self) -> None:
        """Begin anew."""
        self._start_time, self._end_time = time.monotonic(), None

    def stop(self) -> None:
        """Expire no more."""
        self._end_time = time.monotonic()


class Connection(AssociationSocket):  # type: ignore[misc]
    """The socket of one association.

    pynetdicom looks a thousand times a second whether something came; here its thread sleeps until the peer sends, or
    `wake` is called because there is something to send. A PDU is read at once instead of in pieces of 4 KiB; it must be
    whole within ``timeout_seconds`` and no longer than `MAX_PDU_BYTES`, whatever length the peer announces. The first,
    A-ASSOCIATE-RQ, must be whole within the association's ``acse_timeout``, counted from the beginning.
    """

    def __init__(self, association: Association, connection: socket.socket, timeout_seconds: float) -> None:
        super().__init__(association, client_socket=connection)
        self._timeout_seconds = timeout_seconds
        self._ask_until = time.monotonic() + association.acse_timeout
        # without it a peer that stops in the middle of a PDU blocks pynetdicom's reader for ever
        connection.settimeout(timeout_seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)

    @property
    def ready(self) -> bool:
        """True if the peer sent something; waits a tenth of a second for it, unless woken or with events to act on."""
        if self.socket is None or not self._is_connected:
            time.sleep(_CLOSED_SECONDS)
            return False
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        poll = select.poll()  # unlike select.select it takes any number of descriptors
        try:
            poll.register(self.socket, select.POLLIN)
            poll.register(self._ear, select.POLLIN)
            wait_seconds = _WAIT_SECONDS if self.event_queue.empty() else 0
            awake = {descriptor for descriptor, _ in poll.poll(wait_seconds * 1000)}
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed
            return False
        if self._ear.fileno() in awake:
            with contextlib.suppress(OSError):
                self._ear.recv(4096)
        return self.socket is not None and self.socket.fileno() in awake

    def recv(self, nr_bytes: int) -> bytearray:
        """``nr_bytes`` of the peer; fewer if it closed the connection.

        Raises:
            OSError: they did not come in time, or are more than any PDU may have.
        """
        if nr_bytes > MAX_PDU_BYTES:
            log.warning("pdu_too_large", address=self.assoc.requestor.address, announced_bytes=nr_bytes)
            raise ConnectionError("the announced PDU is too large")
        has_asked = self.assoc.dul.state_machine.current_state not in _BEFORE_REQUEST
        deadline = time.monotonic() + self._timeout_seconds if has_asked else self._ask_until
        content, count = bytearray(nr_bytes), 0
        with memoryview(content) as view:
            while count < nr_bytes:
                remaining_seconds = deadline - time.monotonic()
                if remaining_seconds <= 0:
                    raise TimeoutError("the PDU was not whole in time")
                self.socket.settimeout(remaining_seconds)
                received = self.socket.recv_into(view[count:])
                if not received:
                    break
                count += received
        self.socket.settimeout(self._timeout_seconds)
        del content[count:]
        return content

    def wake(self) -> None:
        """Let `ready` return at once."""
        with contextlib.suppress(OSError):  # closed, or already rung so often that the peer's end is full
            self._bell.send(b"\0")

    def close_bell(self) -> None:
        """Close what `wake` needs, when nobody waits any more."""
        self._bell.close()
        self._ear.close()
