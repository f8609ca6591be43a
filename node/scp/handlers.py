"""What the node answers to C-ECHO and C-STORE. The life cycle of associations is in ``server.py``."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pynetdicom import evt

from node.errors import InstanceRefused
from node.metrics import Metrics
from node.scp.spool import Spool, StoreOutcome
from node.scp.status import (
    CANNOT_UNDERSTAND,
    DATA_SET_DOES_NOT_MATCH,
    INVALID_UID,
    MISSING_UID,
    OUT_OF_RESOURCES,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    Status,
)
from node.uids import is_valid_uid

log = structlog.get_logger()

_SOP_CLASS_UID = Tag("SOPClassUID")
_SOP_INSTANCE_UID = Tag("SOPInstanceUID")
_STUDY_INSTANCE_UID = Tag("StudyInstanceUID")
_SERIES_INSTANCE_UID = Tag("SeriesInstanceUID")
_IDENTITY_TAGS = (_SOP_CLASS_UID, _SOP_INSTANCE_UID, _STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID)
# what pydicom is seen to raise on bytes that are no data set
_PARSE_ERRORS = (
    AttributeError,
    EOFError,
    InvalidDicomError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Identity:
    """The UIDs of one instance, as its data set says; empty where it says nothing."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str


def read_identity(content: bytes) -> Identity:
    """The identity of a DICOM file. Its data set is read up to the Series Instance UID, inflated if need be.

    Raises:
        InstanceRefused: the data set cannot be parsed.
    """

    def is_past_identity(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return int(tag) > int(_SERIES_INSTANCE_UID)

    try:
        data_set = read_partial(io.BytesIO(content), stop_when=is_past_identity, specific_tags=list(_IDENTITY_TAGS))
        # raw values: pydicom's own conversion warns of, and repairs, what is to be refused here
        raw = [data_set.get_item(tag) if tag in data_set else None for tag in _IDENTITY_TAGS]
        values = [(element.value or b"").rstrip(b"\0 ").decode("ascii") if element else "" for element in raw]
    except _PARSE_ERRORS as error:
        raise InstanceRefused(f"the data set cannot be parsed ({type(error).__name__})") from None
    return Identity(*values)


class StorageHandlers:
    """C-ECHO and C-STORE of the node's SCP.

    ``on_instance_stored(study_instance_uid, series_instance_uid)`` is called after an instance is safe, new or
    duplicate, and before Success is answered. It must not raise.
    """

    def __init__(
        self, spool: Spool, metrics: Metrics, watermark_bytes: int, on_instance_stored: Callable[[str, str], None]
    ) -> None:
        self._spool = spool
        self._metrics = metrics
        self._watermark_bytes = watermark_bytes
        self._on_instance_stored = on_instance_stored

    def handle_echo(self, _event: evt.Event) -> int:
        """C-ECHO (PS3.4 A): always Success."""
        return SUCCESS.code

    def handle_store(self, event: evt.Event) -> int:
        """C-STORE (PS3.4 B.2.3): Success only once the instance is durable, else why it was not taken."""
        with self._metrics.store_seconds.time():
            return self._store(event).code

    def _store(self, event: evt.Event) -> Status:
        request = event.request
        if not (is_valid_uid(request.AffectedSOPClassUID) and is_valid_uid(request.AffectedSOPInstanceUID)):
            return self._refuse(INVALID_UID, "(0000,0002) or (0000,1000) of the request is not a valid UID")
        if request.AffectedSOPClassUID != event.context.abstract_syntax:
            return self._refuse(SOP_CLASS_NOT_SUPPORTED, "(0000,0002) is not the presentation context's SOP class")
        content = event.encoded_dataset()
        try:
            identity = read_identity(content)
        except InstanceRefused as error:
            return self._refuse(CANNOT_UNDERSTAND, str(error))
        if refusal := self._check_identity(identity, request):
            return refusal
        if self._spool.free_bytes() < self._watermark_bytes:
            return self._out_of_resources("free space is below scp.watermark_mebibytes")
        try:
            outcome = self._spool.write_instance(
                identity.study_instance_uid, identity.series_instance_uid, identity.sop_instance_uid, content
            )
        except InstanceRefused as error:
            return self._refuse(INVALID_UID, str(error))
        except OSError as error:
            return self._out_of_resources(error.strerror or type(error).__name__)
        self._metrics.instances.labels(outcome.value).inc()
        self._metrics.received_bytes.inc(len(content))
        if outcome is not StoreOutcome.CONFLICT:
            self._on_instance_stored(identity.study_instance_uid, identity.series_instance_uid)
        return SUCCESS

    def _check_identity(self, identity: Identity, request: evt.Event) -> Status | None:
        for tag, uid in (
            ("(0008,0016) SOP Class UID", identity.sop_class_uid),
            ("(0008,0018) SOP Instance UID", identity.sop_instance_uid),
            ("(0020,000D) Study Instance UID", identity.study_instance_uid),
            ("(0020,000E) Series Instance UID", identity.series_instance_uid),
        ):
            if not uid:
                return self._refuse(MISSING_UID, f"{tag} is missing")
        if identity.sop_class_uid != request.AffectedSOPClassUID:
            return self._refuse(DATA_SET_DOES_NOT_MATCH, "(0008,0016) SOP Class UID is not the request's (0000,0002)")
        if identity.sop_instance_uid != request.AffectedSOPInstanceUID:
            return self._refuse(
                DATA_SET_DOES_NOT_MATCH, "(0008,0018) SOP Instance UID is not the request's (0000,1000)"
            )
        return None

    def _refuse(self, status: Status, reason: str) -> Status:
        self._metrics.instances.labels("refused").inc()
        log.warning("instance_refused", status=f"0x{status.code:04X}", reason=reason)
        return status

    def _out_of_resources(self, reason: str) -> Status:
        self._metrics.instances.labels("out_of_resources").inc()
        log.error("spool_out_of_resources", free_bytes=self._spool.free_bytes(), reason=reason)
        return OUT_OF_RESOURCES
