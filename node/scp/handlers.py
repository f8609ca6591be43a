"""The responses to C-ECHO and C-STORE requests. The life cycle of associations is in ``server.py``."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    KeyObjectSelectionDocumentStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)
from pynetdicom import evt
from pynetdicom.association import Association

from node.config_sections import ScpSection
from node.dicom.uids import is_usable_uid, is_valid_uid
from node.errors import InstanceRefused
from node.metrics import Metrics
from node.scp.arrival import Arrival, StoreRequest
from node.scp.free_space import FreeSpace
from node.scp.incoming import IncomingFile
from node.scp.instance_identity import Identity, inflates_beyond, read_identity
from node.scp.limits import DOCUMENT_BYTES
from node.scp.observer import Observer
from node.scp.rejection_note import read_rejection_note
from node.scp.removal import is_moved_for_deletion
from node.scp.spool import Spool, StoreOutcome
from node.scp.status import (
    CANNOT_UNDERSTAND,
    DATA_SET_DOES_NOT_MATCH,
    INSTANCE_TOO_LARGE,
    INVALID_UID,
    MISSING_UID,
    OUT_OF_RESOURCES,
    SOP_CLASS_NOT_SUPPORTED,
    STUDY_TOO_LARGE,
    SUCCESS,
    Status,
)
from node.scp.study_sizes import StudySizes

log = structlog.get_logger()

IMAGE_SOP_CLASSES = (
    MRImageStorage,
    EnhancedMRImageStorage,
    EnhancedMRColorImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
)
STORAGE_SOP_CLASSES = (*IMAGE_SOP_CLASSES, KeyObjectSelectionDocumentStorage)
_MOST_INFLATED_BYTES = 1 << 28  # whoever reads the header of a deflated data set inflates all of it into memory


class StorageHandlers:
    """C-ECHO and C-STORE of the node's SCP. `begin` starts to receive an instance, `handle_store` returns its status.

    ``on_instance_stored(study_instance_uid, series_instance_uid)`` is called for each instance, new, duplicate or in
    conflict, and for each series of which a rejection note withdraws instances, when that is durable and before the
    response with Success. It must not raise.
    """

    def __init__(
        self,
        spool: Spool,
        metrics: Metrics,
        section: ScpSection,
        on_instance_stored: Callable[[str, str], None],
        observer: Observer | None = None,
    ) -> None:
        self._spool = spool
        self._metrics = metrics
        self._free_space = FreeSpace(spool.free_bytes, section.watermark_mebibytes << 20)
        self._takes_leading_zeros = section.uid_repair == "map"
        self._max_instance_bytes = section.max_instance_mebibytes << 20
        self._sizes = StudySizes(spool, section.max_study_mebibytes << 20)
        self._on_instance_stored = on_instance_stored
        self._observer = observer
        self._is_full = False
        metrics.free_bytes.set_function(lambda: self._free_bytes() or 0)
        metrics.open_conflicts.set_function(spool.count_open_conflicts)

    def handle_echo(self, _event: evt.Event) -> int:
        """C-ECHO (PS3.4 A): always Success."""
        return SUCCESS.code

    def begin(self, request: StoreRequest) -> Arrival:
        """The `Arrival` for an instance whose data set begins to arrive; it may be refused already."""
        arrival = Arrival(request, self._max_instance_bytes, self._free_space)
        if not is_valid_uid(request.sop_class_uid):
            arrival.refuse(INVALID_UID, "(0000,0002) of the request is not a valid UID")
        elif reason := self._why_not_taken("(0000,1000) of the request", request.sop_instance_uid):
            arrival.refuse(INVALID_UID, reason)
        elif request.sop_class_uid != request.abstract_syntax or request.sop_class_uid not in STORAGE_SOP_CLASSES:
            arrival.refuse(SOP_CLASS_NOT_SUPPORTED, "(0000,0002) is not the presentation context's SOP class")
        arrival.open(self._spool.open_incoming)
        return arrival

    def handle_store(self, event: evt.Event) -> int:
        """C-STORE (PS3.4 B.2.3): Success only once the instance is durable, else the status that refuses it."""
        arrival: Arrival | None = event.request.DataSet.arrival
        with self._metrics.store_seconds.time():
            if arrival is None:
                return self._answer(MISSING_UID, "there is no data set").code
            try:
                return self._store(arrival, event.assoc).code
            finally:
                arrival.discard()

    def _store(self, arrival: Arrival, association: Association) -> Status:
        if arrival.refusal:
            return self._answer(*arrival.refusal)
        assert arrival.file is not None
        try:
            return self._keep(arrival.file, arrival.request, association)
        except OSError as error:
            return self._answer(OUT_OF_RESOURCES, error.strerror or type(error).__name__)

    def _keep(self, file: IncomingFile, request: StoreRequest, association: Association) -> Status:
        try:
            with file.open_data_set() as data_set:
                identity = read_identity(data_set, request.transfer_syntax)
            if request.transfer_syntax == DeflatedExplicitVRLittleEndian and self._inflates_too_far(file, identity):
                return self._answer(INSTANCE_TOO_LARGE, "inflated, larger than it may be")
        except InstanceRefused as error:
            return self._answer(CANNOT_UNDERSTAND, str(error))
        if refusal := _mismatch(identity, request):
            return self._answer(*refusal)
        for name, uid in _named(identity):
            if reason := self._why_not_taken(name, uid):
                return self._answer(INVALID_UID, reason)
        study_instance_uid, series_instance_uid = identity.study_instance_uid, identity.series_instance_uid
        uids = (study_instance_uid, series_instance_uid, identity.sop_instance_uid)
        if identity.sop_class_uid == KeyObjectSelectionDocumentStorage:
            return self._keep_document(file, identity, association)
        try:
            if not self._sizes.fits(study_instance_uid, file.size_bytes) and not self._spool.holds(*uids, file):
                return self._answer(STUDY_TOO_LARGE, "the study is larger than scp.max_study_mebibytes")
            outcome = self._spool.keep(*uids, file)
        except InstanceRefused as error:
            return self._answer(INVALID_UID, str(error))
        if outcome is not StoreOutcome.DUPLICATE:
            self._sizes.add(study_instance_uid, file.size_bytes)
        self._metrics.instances.labels(outcome.value).inc()
        if outcome is StoreOutcome.CORRECTION:
            self._metrics.corrections.inc()
        self._metrics.received_bytes.inc(file.size_bytes)
        self._note_free_space()
        # a conflict, too, is told when the study is handed over
        self._on_instance_stored(study_instance_uid, series_instance_uid)
        if self._observer:
            self._observer.instance_stored(association, identity, outcome is StoreOutcome.DUPLICATE)
        return SUCCESS

    def _keep_document(self, file: IncomingFile, identity: Identity, association: Association) -> Status:
        """Keep a Key Object Selection; each study of which it rejects instances is judged again."""
        if file.size_bytes > DOCUMENT_BYTES:
            return self._answer(INSTANCE_TOO_LARGE, f"a Key Object Selection of more than {DOCUMENT_BYTES >> 20} MiB")
        try:
            file.open_data_set().close()  # all of it is in the file now
            note = read_rejection_note(file.path)
        except InstanceRefused as error:
            return self._answer(CANNOT_UNDERSTAND, str(error))
        self._spool.keep_document(identity.study_instance_uid, identity.sop_instance_uid, file, note)
        self._metrics.instances.labels("document" if note is None else "rejection_note").inc()
        self._metrics.received_bytes.inc(file.size_bytes)
        self._note_free_space()
        for study_instance_uid, instances in (note.instances if note else {}).items():
            # retention may have moved it away, and may move it back
            is_away = is_moved_for_deletion(self._spool.folder, study_instance_uid)
            if is_away or self._spool.study_folder(study_instance_uid).is_dir():
                for series_instance_uid in sorted(set(instances.values())):
                    self._on_instance_stored(study_instance_uid, series_instance_uid)
        if self._observer:
            self._observer.instance_stored(association, identity, is_known=False)
        return SUCCESS

    def _why_not_taken(self, name: str, uid: str) -> str | None:
        """Why ``uid`` is not accepted as a UID; None if it is. ``name``: its tag, and what it is."""
        if is_valid_uid(uid) or (self._takes_leading_zeros and is_usable_uid(uid)):
            return None
        hint = " because of leading zeros (scp.uid_repair)" if is_usable_uid(uid) else ""
        return f"{name} is not a valid UID{hint}"

    def _inflates_too_far(self, file: IncomingFile, identity: Identity) -> bool:
        is_document = identity.sop_class_uid == KeyObjectSelectionDocumentStorage
        most_bytes = DOCUMENT_BYTES if is_document else min(self._max_instance_bytes, _MOST_INFLATED_BYTES)
        with file.open_data_set() as data_set:
            return inflates_beyond(data_set, most_bytes)

    def _free_bytes(self) -> int | None:
        """Free bytes of the spool's disk; None if they cannot be read."""
        try:
            return self._spool.free_bytes()
        except OSError:
            return None

    def _answer(self, status: Status, reason: str) -> Status:
        """Count and log a refusal; returns ``status``."""
        if status is OUT_OF_RESOURCES:
            self._metrics.instances.labels("out_of_resources").inc()
            self._is_full = True
            log.error("spool_out_of_resources", free_bytes=self._free_bytes(), reason=reason)
        else:
            self._metrics.instances.labels("refused").inc()
            log.warning("instance_refused", status=f"0x{status.code:04X}", reason=reason)
        return status

    def _note_free_space(self) -> None:
        if self._is_full:
            self._is_full = False
            log.info("spool_has_room_again", free_bytes=self._free_bytes())


def _named(identity: Identity) -> tuple[tuple[str, str], ...]:
    """The UIDs that name an instance's folders and file, with their tags."""
    return (
        ("(0008,0018) SOP Instance UID", identity.sop_instance_uid),
        ("(0020,000D) Study Instance UID", identity.study_instance_uid),
        ("(0020,000E) Series Instance UID", identity.series_instance_uid),
    )


def _mismatch(identity: Identity, request: StoreRequest) -> tuple[Status, str] | None:
    """Status and reason if a UID is missing, or differs between data set and request; None if all agree."""
    for name, uid in (("(0008,0016) SOP Class UID", identity.sop_class_uid), *_named(identity)):
        if not uid:
            return MISSING_UID, f"{name} is missing"
    if identity.sop_class_uid != request.sop_class_uid:
        return DATA_SET_DOES_NOT_MATCH, "(0008,0016) SOP Class UID is not the request's (0000,0002)"
    if identity.sop_instance_uid != request.sop_instance_uid:
        return DATA_SET_DOES_NOT_MATCH, "(0008,0018) SOP Instance UID is not the request's (0000,1000)"
    return None
