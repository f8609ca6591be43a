"""Reception of instances: a C-STORE's data set is written to the spool fragment by fragment, never whole in memory.

pynetdicom collects the fragments of a message in ``DIMSEMessage.data_set``, to which it only writes. Here that buffer
writes to a file.
"""

from __future__ import annotations

import io
import queue
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE, N_EVENT_REPORT, DIMSEPrimitive
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.service_class_n import StorageCommitmentServiceClass

from node.scp.free_space import FreeSpace
from node.scp.incoming import IncomingFile
from node.scp.instance_identity import PARSE_ERRORS
from node.scp.status import INSTANCE_TOO_LARGE, OUT_OF_RESOURCES, Status

log = structlog.get_logger()

_GET_SECONDS = 0.1
_MOST_UNANSWERED = 16  # requests without waiting for the responses, which no peer negotiated
_COMMAND_SET_BYTES = 1 << 16
_MESSAGE_BYTES = 16 << 20  # data sets of messages other than C-STORE, which are kept in memory
_SERVICES = {C_STORE: StorageServiceClass, N_EVENT_REPORT: StorageCommitmentServiceClass}
_TOO_FULL = "free space is below scp.watermark_mebibytes"


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """The UIDs known before the data set arrives: of the command set, and of the presentation context."""

    sop_class_uid: str
    sop_instance_uid: str
    abstract_syntax: str
    transfer_syntax: str
    sending_ae_title: str = ""

    def head(self) -> bytes:
        """Preamble and file meta of the instance's file (PS3.10 7.1).

        Encoded here because pydicom takes as long for it as the node takes for all the rest of an instance.
        """
        texts = (
            (0x0002, b"UI", self.sop_class_uid),  # Media Storage SOP Class UID
            (0x0003, b"UI", self.sop_instance_uid),  # Media Storage SOP Instance UID
            (0x0010, b"UI", self.transfer_syntax),
            (0x0012, b"UI", str(PYNETDICOM_IMPLEMENTATION_UID)),
            (0x0013, b"SH", PYNETDICOM_IMPLEMENTATION_VERSION),
            # Sending Application Entity Title: who called, so that rules of [[priority]] can ask for it
            *(((0x0017, b"AE", self.sending_ae_title),) if self.sending_ae_title else ()),
        )
        meta = [struct.pack("<HH2sHL2s", 2, 0x0001, b"OB", 0, 2, b"\x00\x01")]  # File Meta Information Version
        for element, vr, text in texts:
            value = text.encode("ascii")
            value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
            meta.append(struct.pack("<HH2sH", 2, element, vr, len(value)) + value)
        content = b"".join(meta)
        return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(content)) + content


def _plain_ae_title(value: str) -> str:
    """A calling AE title as it may stand in a file (PS3.5 6.2); empty if it may not."""
    title = value.strip()
    return title if title.isascii() and title.isprintable() and "\\" not in title and len(title) <= 16 else ""


class Arrival:
    """One instance during reception: its file in the spool, or the status that refuses it.

    After a refusal the rest of the data set is read and dropped. One thread writes the data set; another checks it when
    it is complete.
    """

    def __init__(self, request: StoreRequest, limit_bytes: int, free_space: FreeSpace) -> None:
        self.request = request
        self.file: IncomingFile | None = None
        self.refusal: tuple[Status, str] | None = None
        self._limit_bytes = limit_bytes
        self._free_space = free_space
        self._received_bytes = 0

    @property
    def is_far_too_large(self) -> bool:
        """True if the peer has sent more than twice the limit for one instance."""
        return self._received_bytes > 2 * self._limit_bytes

    def open(self, open_file: Callable[[bytes], IncomingFile]) -> None:
        """Open the instance's file, unless the instance is refused already."""
        if self.refusal:
            return
        try:
            if self._free_space.is_sufficient():
                self.file = open_file(self.request.head())
            else:
                self.refuse(OUT_OF_RESOURCES, _TOO_FULL)
        except OSError as error:
            self.refuse(OUT_OF_RESOURCES, error.strerror or type(error).__name__)

    def write(self, fragment: bytes) -> None:
        """Write the next fragment. A disk error refuses the instance: the response is sent after the last fragment."""
        self._received_bytes += len(fragment)
        if self.file is None:
            return
        if self._received_bytes > self._limit_bytes:
            self.refuse(INSTANCE_TOO_LARGE, "larger than scp.max_instance_mebibytes")
            return
        try:
            if self._free_space.allows(len(fragment), partial(self.refuse, OUT_OF_RESOURCES, _TOO_FULL)):
                self.file.write(fragment)
        except OSError as error:
            self.refuse(OUT_OF_RESOURCES, error.strerror or type(error).__name__)

    def refuse(self, status: Status, reason: str) -> None:
        """Note the status of the response, and delete what was written of the instance."""
        self.refusal = (status, reason)
        self.discard()

    def discard(self) -> None:
        """Delete the file in ``.incoming``. A second call does nothing."""
        if self.file is not None:
            self.file.discard()
            self.file = None


class ArrivingDataSet(io.BytesIO):
    """The buffer that pynetdicom writes a message's data set to; ``begin`` is called at the first fragment.

    ``begin`` returns the `Arrival` of a C-STORE request, or None for any other message, whose data set stays in memory.
    """

    def __init__(self, begin: Callable[[], Arrival | None]) -> None:
        super().__init__()
        self._begin: Callable[[], Arrival | None] | None = begin
        self.arrival: Arrival | None = None

    def write(self, fragment: bytes) -> int:  # type: ignore[override]
        """Pass the next fragment on."""
        if self._begin is not None:
            self.arrival, self._begin = self._begin(), None
        if self.arrival is not None:
            self.arrival.write(fragment)
            return len(fragment)
        if self.tell() + len(fragment) > _MESSAGE_BYTES:
            raise ValueError("the message is too large")
        return super().write(fragment)


class StreamingProvider(DIMSEServiceProvider):  # type: ignore[misc]
    """The DIMSE provider of one association; ``begin`` returns the `Arrival` for each C-STORE's data set.

    The association's thread waits for messages in `get_msg` and is woken by `wake`; pynetdicom's own provider polls a
    thousand times a second.
    """

    message: DIMSEMessage | None

    def __init__(self, association: Association, begin: Callable[[StoreRequest], Arrival]) -> None:
        super().__init__(association)
        self._begin = begin
        self._arrivals: list[Arrival] = []
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
        try:
            service(self.assoc).SCP(message, context)
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
            message.data_set = ArrivingDataSet(partial(self._begin_data_set, message))
            self.message = message
        message = self.message
        try:
            super().receive_primitive(primitive)
        except (*PARSE_ERRORS, OSError) as error:  # pydicom raises OSError, too; `Arrival` catches the disk's
            self.message = None
            self._abort(f"no DIMSE message ({type(error).__name__})")
            return
        if message.encoded_command_set.tell() > _COMMAND_SET_BYTES or self.msg_queue.qsize() > _MOST_UNANSWERED:
            self._abort("too much at once")
        elif self._arrivals and self._arrivals[-1].is_far_too_large:
            self._abort("an instance far beyond scp.max_instance_mebibytes")

    def _begin_data_set(self, message: DIMSEMessage) -> Arrival | None:
        if not isinstance(message, C_STORE_RQ):
            return None
        contexts = {context.context_id: context for context in self.assoc.accepted_contexts}
        context = contexts[message.context_id]
        request = StoreRequest(
            str(message.command_set.get("AffectedSOPClassUID", "")),
            str(message.command_set.get("AffectedSOPInstanceUID", "")),
            str(context.abstract_syntax),
            str(context.transfer_syntax[0]),
            _plain_ae_title(self.assoc.requestor.ae_title),
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
        """Delete the files of instances that are not complete. Call it when the association's threads have ended."""
        for arrival in self._arrivals:
            arrival.discard()
