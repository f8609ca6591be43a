"""The sender's query for the instances that a peer holds: C-FIND, Study Root, IMAGE level (PS3.4 C)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydicom import Dataset
from pynetdicom.association import Association
from pynetdicom.dsutils import encode
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from node.dicom.outgoing import Outgoing
from node.errors import DeliveryError
from node.scu.association import associate, why_not_established
from node.study import Destination

MODEL = StudyRootQueryRetrieveInformationModelFind
_PENDING = (0xFF00, 0xFF01)
_TEMPORARY = (0x0110, 0x0210, 0x0213, 0xA700, 0xFE00)  # PS3.4 C.4.1.1.4: failures that may be temporary


class QueryState(StrEnum):
    """The result of a query."""

    ANSWERED = "answered"
    UNSUPPORTED = "unsupported"
    UNANSWERED = "unanswered"  # to be repeated


@dataclass(frozen=True, slots=True)
class QueryOutcome:
    """The state of a query, the SOP Instance UIDs that the peer listed, and the reason if the answer is incomplete."""

    state: QueryState
    held: frozenset[str] = frozenset()
    reason: str | None = None


def find_instances(
    destination: Destination, calling_ae_title: str, instances: Sequence[Outgoing], timeout_seconds: float
) -> QueryOutcome:
    """Query which of ``instances`` the peer holds; one C-FIND request for each, on one association.

    A network error is a state of the outcome, never an exception.
    """
    contexts = [build_context(MODEL)]
    held: set[str] = set()
    try:
        with associate(destination, calling_ae_title, contexts, timeout_seconds) as association:
            if not association.is_established:
                return _not_established(association, destination)
            for message_id, instance in enumerate(instances, start=1):
                outcome = _find(association, destination, instance, message_id)
                if outcome.state is not QueryState.ANSWERED:
                    return outcome
                held |= outcome.held
    except DeliveryError as error:
        return QueryOutcome(QueryState.UNANSWERED, reason=str(error))
    return QueryOutcome(QueryState.ANSWERED, frozenset(held))


def encoded_identifier(instance: Outgoing) -> bytes:
    """The identifier of the query for ``instance``, in Implicit VR Little Endian."""
    return encode(_identifier(instance), is_implicit_vr=True, is_little_endian=True) or b""


def _identifier(instance: Outgoing) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID = instance.study_instance_uid
    query.SeriesInstanceUID = instance.series_instance_uid
    query.SOPInstanceUID = instance.sop_instance_uid
    return query


def _not_established(association: Association, destination: Destination) -> QueryOutcome:
    if association.rejected_contexts and not association.is_rejected:
        return QueryOutcome(QueryState.UNSUPPORTED, reason="does not answer queries")
    return QueryOutcome(QueryState.UNANSWERED, reason=why_not_established(association, destination))


def _find(association: Association, destination: Destination, instance: Outgoing, message_id: int) -> QueryOutcome:
    query = _identifier(instance)
    held = set()
    status = None
    try:
        # read all responses: pynetdicom's reactor sleeps until the last one is taken
        for answer, match in association.send_c_find(query, MODEL, message_id):
            status = answer.get("Status")
            # a peer that ignores a key lists other instances, too
            if status in _PENDING and match is not None and _is_match(match, query):
                held.add(instance.sop_instance_uid)
    except RuntimeError:
        # pynetdicom raises it if the association has ended, which may happen at any moment
        return QueryOutcome(QueryState.UNANSWERED, reason=f"{destination.ae_title} ended the association")
    if status is None:
        return QueryOutcome(QueryState.UNANSWERED, reason=f"{destination.ae_title} aborted or did not answer")
    if status == 0x0000:
        return QueryOutcome(QueryState.ANSWERED, frozenset(held))
    state = QueryState.UNANSWERED if status in _TEMPORARY else QueryState.UNSUPPORTED
    return QueryOutcome(state, reason=f"{destination.ae_title} answered 0x{status:04X} to the query")


def _is_match(match: Dataset, query: Dataset) -> bool:
    """True if ``match`` is the instance asked for, in the study and series in which it was sent."""
    keys = ("StudyInstanceUID", "SeriesInstanceUID")
    is_elsewhere = any(match.get(key) and match[key].value != query[key].value for key in keys)
    return match.get("SOPInstanceUID") == query.SOPInstanceUID and not is_elsewhere
