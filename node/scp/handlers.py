"""What the node answers to C-ECHO and C-STORE. The life cycle of associations is in ``server.py``."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_STORE

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

_SERIES_INSTANCE_UID = Tag("SeriesInstanceUID")
# in the order of Identity's fields
_TAGS: list[BaseTag | int] = [Tag("SOPClassUID"), Tag("SOPInstanceUID"), Tag("StudyInstanceUID"), _SERIES_INSTANCE_UID]
_INFLATED_HEAD_BYTES = 16 << 20  # the Series Instance UID lies far before that
# what pydicom is seen to raise on bytes that are no data set
_PARSE_ERRORS = (
    AttributeError,
    EOFError,
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


def read_identity(data_set: bytes, transfer_syntax: str) -> Identity:
    """The identity of an encoded data set, which is read up to its Series Instance UID, inflated if need be.

    Private transfer syntaxes are taken as explicit VR little endian unless they look implicit, as pydicom does.

    Raises:
        InstanceRefused: the data set cannot be parsed.
    """

    def is_past_identity(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return int(tag) > int(_SERIES_INSTANCE_UID)

    is_implicit_vr = transfer_syntax == ImplicitVRLittleEndian
    is_little_endian = transfer_syntax != ExplicitVRBigEndian
    try:
        if transfer_syntax == DeflatedExplicitVRLittleEndian:
            data_set = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data_set, _INFLATED_HEAD_BYTES)
        elements = read_dataset(
            io.BytesIO(data_set), is_implicit_vr, is_little_endian, stop_when=is_past_identity, specific_tags=_TAGS
        )
        # raw values: pydicom's own conversion repairs, and repeats in warnings, what is to be refused here
        raw = [elements.get_item(tag) if tag in elements else None for tag in _TAGS]
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
        metrics.free_bytes.set_function(spool.free_bytes)

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
        try:
            identity = read_identity(event.encoded_dataset(include_meta=False), event.context.transfer_syntax)
        except InstanceRefused as error:
            return self._refuse(CANNOT_UNDERSTAND, str(error))
        if refusal := self._check_identity(identity, request):
            return refusal
        if self._spool.free_bytes() < self._watermark_bytes:
            return self._out_of_resources("free space is below scp.watermark_mebibytes")
        content = event.encoded_dataset()
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

    def _check_identity(self, identity: Identity, request: C_STORE) -> Status | None:
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
