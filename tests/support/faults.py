"""A PACS that refuses, stalls, aborts and half-answers on demand, and a wait on conditions."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from types import TracebackType
from typing import Any, Self

from pydicom.uid import UID
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

from node.study import Destination


class Fault(Enum):
    """What the PACS does instead of answering a C-STORE with a status."""

    STALL = auto()  # never answers
    ABORT = auto()  # A-ABORT instead of the response
    HALF_ANSWER = auto()  # the connection ends in the middle of the response
    TAKE_AND_ABORT = auto()  # keeps the instance, then A-ABORT instead of the response


class Takes(StrEnum):
    """Which of the presentation contexts of one association the PACS takes."""

    ALL = auto()  # every one that it supports
    FIRST = auto()  # only the first one proposed
    ONE = auto()  # every one, but it rejects an association that proposes more than one
    ONE_OR_ABORT = auto()  # the same, but with an A-ABORT
    NONE_NOW = auto()  # it rejects each association for now, since it has too many


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """What the PACS received: the data set exactly as it came over the wire."""

    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set: bytes


_PORTS = range(12_000, 32_000, 200)
"""First ports of the ranges that processes take; all below those that Linux gives to outgoing connections."""


@functools.cache
def _ports_of_this_process() -> Iterator[int]:
    """A range of ports that no other test process on this machine uses, over and over.

    A port that the kernel chooses may be given to another process between the choice and the bind. The name of an
    abstract socket reserves the range until this process ends.
    """
    for first in random.Random(os.getpid()).sample(_PORTS, len(_PORTS)):
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0glionode-tests-{first}")
        except OSError:
            reservation.close()
            continue
        _RESERVATIONS.append(reservation)
        return itertools.cycle(range(first, first + _PORTS.step))
    raise AssertionError("every range of ports is taken")


_RESERVATIONS: list[socket.socket] = []


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing uses, and that no other test process will take."""
    for port in _ports_of_this_process():
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("an endless range has ended")


def wait_until(condition: Callable[[], object], deadline_seconds: float = 60.0) -> None:
    """Return once ``condition`` holds; fail the test if it does not within the deadline."""
    deadline = time.monotonic() + deadline_seconds
    while not condition():
        assert time.monotonic() < deadline, "the awaited condition did not come true in time"
        time.sleep(0.01)


class FakePacs:
    """A storage SCP on 127.0.0.1 that follows ``plan``; also a context manager.

    The n-th C-STORE is answered by the n-th entry of ``plan``: a DIMSE status, or a `Fault`; what comes after the plan
    is stored. ``sop_classes`` are the storage SOP classes accepted. ``is_rejecting``: every association is rejected.
    ``is_deaf``: associations are accepted, but nothing is read from them afterwards. ``tls``: associations are
    encrypted. ``transfer_syntaxes``: those in which the storage SOP classes are accepted. ``max_pdu_bytes``: the
    longest PDU that it receives.
    """

    ae_title = "PACS"

    def __init__(
        self,
        plan: Sequence[int | Fault] = (),
        *,
        sop_classes: Sequence[str] = (),
        is_rejecting: bool = False,
        is_deaf: bool = False,
        tls: ssl.SSLContext | None = None,
        transfer_syntaxes: Sequence[str] = ALL_TRANSFER_SYNTAXES,
        takes: Takes = Takes.ALL,
        max_pdu_bytes: int = 16382,
    ) -> None:
        self.received: list[StoredInstance] = []
        self.association_count = 0
        self.port = free_port()
        self.plan = list(plan)
        self._sop_classes = sop_classes
        self._is_rejecting = is_rejecting
        self._is_deaf = is_deaf
        self._tls = tls
        self._transfer_syntaxes = list(transfer_syntaxes)
        self._takes = takes
        self._max_pdu_bytes = max_pdu_bytes
        self.association_requests = 0
        self._released = threading.Event()
        self._ae = AE(self.ae_title)

    @property
    def destination(self) -> Destination:
        """The PACS as a destination of results."""
        return Destination("pacs", self.ae_title, "127.0.0.1", self.port)

    def __enter__(self) -> Self:
        self._ae.require_calling_aet = ["NOBODY"] if self._is_rejecting else []
        self._ae.add_supported_context(Verification)
        for sop_class in self._sop_classes:
            self._ae.add_supported_context(sop_class, self._transfer_syntaxes)
        self._ae.maximum_pdu_size = self._max_pdu_bytes
        self._ae.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=self._handlers(),
            ssl_context=self._tls,
        )
        return self

    def _handlers(self) -> list[Any]:
        return [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_ESTABLISHED, self._established),
            (evt.EVT_DATA_RECV, self._data_received),
            (evt.EVT_C_STORE, self._store),
        ]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._ae.shutdown()
        wait_until(lambda: not self._ae.active_associations)

    def _requested(self, event: evt.Event) -> None:
        self.association_requests += 1
        proposed = event.assoc.requestor.primitive.presentation_context_definition_list
        if self._takes is Takes.FIRST:
            first = proposed[0]
            supported = [
                each for each in event.assoc.acceptor._contexts if each.abstract_syntax == first.abstract_syntax
            ]
            event.assoc.acceptor._contexts = [
                build_context(each.abstract_syntax, first.transfer_syntax)
                for each in supported
                if first.transfer_syntax[0] in each.transfer_syntax
            ]
        elif self._takes is Takes.NONE_NOW or (self._takes is Takes.ONE and len(proposed) > 1):
            # transient, local limit exceeded; or permanent, by the service user, no reason given
            event.assoc.acse.send_reject(*((2, 3, 2) if self._takes is Takes.NONE_NOW else (1, 1, 1)))
            event.assoc.is_rejected = True
            event.assoc.kill()
        elif self._takes is Takes.ONE_OR_ABORT and len(proposed) > 1:
            event.assoc.acse.send_abort(0x00)
            event.assoc.is_aborted = True
            event.assoc.kill()

    def _established(self, _event: evt.Event) -> None:
        self.association_count += 1

    def _data_received(self, event: evt.Event) -> None:
        if self._is_deaf and event.assoc.is_established:
            self._released.wait()

    def _store(self, event: evt.Event) -> int:
        answer = self.plan.pop(0) if self.plan else 0x0000
        if answer in (0x0000, Fault.TAKE_AND_ABORT) or (isinstance(answer, int) and answer >> 12 == 0xB):
            transfer_syntax = UID(event.context.transfer_syntax)
            self.received.append(
                StoredInstance(
                    event.request.AffectedSOPInstanceUID, transfer_syntax, event.encoded_dataset(include_meta=False)
                )
            )
        if isinstance(answer, int):
            return answer
        if answer is Fault.STALL:
            self._released.wait()
        elif answer is Fault.HALF_ANSWER:
            connection = event.assoc.dul.socket.socket
            connection.sendall(b"\x04\x00\x00\x00\x00\x60" + b"\x00\x00")  # a P-DATA-TF PDU of 96 bytes, 2 of them
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        else:
            event.assoc.abort()
        return 0x0000  # not sent: the association is over
