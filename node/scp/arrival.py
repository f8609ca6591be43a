"""Reception of instances: a C-STORE's data set is written to the spool fragment by fragment, never whole in memory.

pynetdicom collects the fragments of a message in ``DIMSEMessage.data_set``, to which it only writes. Here that buffer
writes to a file.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

from node.scp.free_space import FreeSpace
from node.scp.incoming import IncomingFile
from node.scp.limits import REPORT_BYTES, MemoryBudget, TooMuchError
from node.scp.status import INSTANCE_TOO_LARGE, OUT_OF_RESOURCES, Status

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


def plain_ae_title(value: str) -> str:
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

    ``begin`` returns the `Arrival` of a C-STORE request, or None for a report of storage commitment, which alone stays
    in memory; it raises TooMuchError for any other message. ``budget``: what all reports together may take.
    """

    def __init__(self, begin: Callable[[], Arrival | None], budget: MemoryBudget) -> None:
        super().__init__()
        self._begin: Callable[[], Arrival | None] | None = begin
        self._budget = budget
        self.arrival: Arrival | None = None

    def write(self, fragment: bytes) -> int:  # type: ignore[override]
        """Pass the next fragment on.

        Raises:
            TooMuchError: the message may have no data set, or it is larger than such a message may be now.
        """
        if self._begin is not None:
            self.arrival, self._begin = self._begin(), None
        if self.arrival is not None:
            self.arrival.write(fragment)
            return len(fragment)
        if self.tell() + len(fragment) > REPORT_BYTES:
            raise TooMuchError("a report larger than any that was asked for")
        if not self._budget.take(self, len(fragment)):
            raise TooMuchError("too many reports at once")
        return super().write(fragment)

    def forget(self) -> None:
        """Give the memory back: the message is answered, or its association has ended. A second call does nothing."""
        self._budget.release(self)
