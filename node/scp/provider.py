"""The DIMSE provider of one association: takes messages, serves requests, and aborts beyond the limits of `limits`."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from functools import partial

import structlog
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, N_EVENT_REPORT_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE, N_EVENT_REPORT, DIMSEPrimitive
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.service_class_n import StorageCommitmentServiceClass

from node.dicom.parse_errors import PARSE_ERRORS
from node.scp.arrival import Arrival, ArrivingDataSet, StoreRequest, plain_ae_title
from node.scp.limits import COMMAND_SET_BYTES, MOST_REPORTS, MOST_UNANSWERED, MemoryBudget, TooMuchError

log = structlog.get_logger()

_GET_SECONDS = 0.1
_SERVICES = {C_STORE: StorageServiceClass, N_EVENT_REPORT: StorageCommitmentServiceClass}


class StreamingProvider(DIMSEServiceProvider):  # type: ignore[misc]
    """The DIMSE provider of one association; ``begin`` returns the `Arrival` for each C-STORE's data set.

    The association's thread waits for messages in `get_msg` and is woken by `wake`; pynetdicom's own provider polls a
    thousand times a second.
    """

    message: DIMSEMessage | None

    def __init__(
        self, association: Association, begin: Callable[[StoreRequest], Arrival], budget: MemoryBudget
    ) -> None:
        super().__init__(association)
        self._begin = begin
        self._budget = budget
        self._arrivals: list[Arrival] = []
        self._report: ArrivingDataSet | None = None  # the one that arrives now; `_serve` forgets those before
        self._report_places = threading.BoundedSemaphore(MOST_REPORTS)
        self._message_deadline = 0.0
        self._serve_others = association._serve_request
        association._serve_request = self._serve

    def _serve(self, message: DIMSEPrimitive, context_id: int) -> None:
        """Answer a request with the service of its message type; that service checks the SOP class.

        pynetdicom chooses the service by the SOP class alone: it answers a C-STORE request of Verification as a C-ECHO
        request, and aborts the association at a SOP class that it does not know.
        """
        service, context = _SERVICES.get(type(message)), self.assoc._accepted_cx.get(context_id)
        if service is None or context is None:
            self._serve_others(message, context_id)
            if self.assoc._sent_abort:
                address = self.assoc.requestor.address
                log.warning("association_aborted", reason="a request that nobody here serves", address=address)
            return
        if isinstance(message, N_EVENT_REPORT):
            self._serve_report(message, service(self.assoc), context)
        else:
            self._answer(message, service(self.assoc), context)

    def _serve_report(self, report: N_EVENT_REPORT, service: ServiceClass, context: PresentationContext) -> None:
        """Answer a report of storage commitment; pynetdicom calls this in a thread for each."""
        try:
            if not self._report_places.acquire(blocking=False):
                self._abort("too many reports at once")
                return
            try:
                self._answer(report, service, context)
            finally:
                self._report_places.release()
        finally:
            if isinstance(report.EventInformation, ArrivingDataSet):
                report.EventInformation.forget()

    def _answer(self, message: DIMSEPrimitive, service: ServiceClass, context: PresentationContext) -> None:
        try:
            service.SCP(message, context)
        except PARSE_ERRORS as error:  # values of the request cannot be encoded in its response
            self._abort(f"a request that cannot be answered ({type(error).__name__})")

    def send_msg(self, primitive: DIMSEPrimitive, context_id: int) -> None:
        """Send a response. The network time-out starts again: until now the peer had to wait for the node's disk."""
        self.dul._idle_timer.restart()
        super().send_msg(primitive, context_id)

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take one P-DATA. An invalid message, or one beyond the limits, aborts the association (A-P-ABORT)."""
        if self.message is None:
            self._arrivals = [arrival for arrival in self._arrivals if arrival.file is not None]
            message = DIMSEMessage()
            message.data_set = ArrivingDataSet(partial(self._begin_data_set, message), self._budget)
            self.message = message
            self._message_deadline = time.monotonic() + self.assoc.network_timeout
        message = self.message
        try:
            super().receive_primitive(primitive)
        except TooMuchError as error:
            self.message = None
            self._abort(str(error))
            return
        except (*PARSE_ERRORS, OSError) as error:  # pydicom raises OSError, too; `Arrival` catches the disk's
            self.message = None
            self._abort(f"no DIMSE message ({type(error).__name__})")
            return
        if message.encoded_command_set.tell() > COMMAND_SET_BYTES or self.msg_queue.qsize() > MOST_UNANSWERED:
            self._abort("too much at once")
        elif self._arrivals and self._arrivals[-1].is_far_too_large:
            self._abort("an instance far beyond scp.max_instance_mebibytes")
        elif self._is_overdue():
            self._abort("a message that is not whole in time")

    def _is_overdue(self) -> bool:
        """True if the message in memory is not whole after the network time-out. An instance may take any time."""
        if self.message is None or time.monotonic() < self._message_deadline:
            return False
        return getattr(self.message.data_set, "arrival", None) is None

    def _begin_data_set(self, message: DIMSEMessage) -> Arrival | None:
        contexts = {context.context_id: context for context in self.assoc.accepted_contexts}
        context = contexts[message.context_id]
        if isinstance(message, N_EVENT_REPORT_RQ):
            self._report = message.data_set
            return None
        if not isinstance(message, C_STORE_RQ):
            raise TooMuchError("a data set with a message that has none")
        request = StoreRequest(
            str(message.command_set.get("AffectedSOPClassUID", "")),
            str(message.command_set.get("AffectedSOPInstanceUID", "")),
            str(context.abstract_syntax),
            str(context.transfer_syntax[0]),
            plain_ae_title(self.assoc.requestor.ae_title),
        )
        arrival = self._begin(request)
        self._arrivals.append(arrival)
        return arrival

    def _abort(self, reason: str) -> None:
        log.warning("association_aborted", reason=reason, address=self.assoc.requestor.address)
        self.dul.event_queue.put("Evt19")  # invalid PDU (PS3.8 9.2.3): A-ABORT, the association ends

    def get_msg(self, block: bool = False) -> tuple[int | None, object]:
        """The next message with its presentation context ID, or (None, None) if there is none within 0.1 s."""
        try:
            context_id, message = self.msg_queue.get(timeout=_GET_SECONDS)
        except queue.Empty:
            return None, None
        if message is not None and not message.is_valid_request:
            self._abort("a request without what it must have")  # pynetdicom would send no response
            return None, None
        return context_id, message

    def wake(self) -> None:
        """Let `get_msg` return, so that the association's thread handles an event that is not a message."""
        self.msg_queue.put((None, None))

    def discard_arrivals(self) -> None:
        """Delete the files of instances that are not complete, and give memory back. Call it when the association's
        threads have ended.
        """
        for arrival in self._arrivals:
            arrival.discard()
        if self._report is not None:
            self._report.forget()
