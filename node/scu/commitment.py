"""The sender's request for storage commitment (PS3.4 J): N-ACTION, and a report on the same association."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog
from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from node.dicom.commitment import EVENT_TYPES, CommitmentReport, CommitmentRequest, read_report
from node.dicom.outgoing import Outgoing
from node.errors import CommitmentReportError, DeliveryError
from node.scu.association import associate, why_not_established
from node.study import Destination

log = structlog.get_logger()

_ACTION_TYPE_ID = 1  # request storage commitment, PS3.4 J.3.2
SAME_ASSOCIATION_SECONDS = 2.0  # the association stays open so long for peers that send the report on it

# statuses that remain if the request is repeated (PS3.7 10.1.4.1.10)
_REFUSALS = {
    0x0112: "no such SOP instance",
    0x0117: "invalid SOP instance",
    0x0118: "no such SOP class",
    0x0119: "class and instance conflict",
    0x0122: "SOP class not supported",
    0x0123: "no such action",
    0x0124: "not authorized",
    0x0211: "unrecognized operation",
}
_DUPLICATES = (0x0131, 0x0210)  # the peer has this request already: it was repeated after a restart


class CommitmentState(StrEnum):
    """The result of a request for storage commitment."""

    ASKED = "asked"  # accepted; the report is still to come
    REPORTED = "reported"  # the report came on the same association
    UNSUPPORTED = "unsupported"  # the peer does not offer storage commitment
    UNANSWERED = "unanswered"  # to be repeated


@dataclass(frozen=True, slots=True)
class CommitmentOutcome:
    """The state of a request; ``report`` if it came on the same association; ``reason`` if no report will come."""

    state: CommitmentState
    reason: str | None = None
    report: CommitmentReport | None = None


def request_commitment(
    destination: Destination,
    calling_ae_title: str,
    transaction_uid: str,
    instances: Sequence[Outgoing],
    timeout_seconds: float,
) -> CommitmentOutcome:
    """Ask ``destination`` to commit to ``instances``. Repeating a request under its Transaction UID is safe.

    A network error is a state of the outcome, never an exception.
    """
    reports: list[CommitmentReport] = []
    answered = threading.Event()
    asked = {each.sop_instance_uid for each in instances}

    def take_report(event: evt.Event) -> tuple[int, None]:
        if event.request.EventTypeID not in EVENT_TYPES:
            return 0x0113, None
        try:
            report = read_report(event.event_information)
        except CommitmentReportError:
            return 0x0115, None
        if report.transaction_uid != transaction_uid:
            return 0x0112, None
        if not report.instances <= asked:
            log.warning("commitment_report_refused", status="0x0115", reason="an instance was not asked for")
            return 0x0115, None
        reports.append(report)
        return 0x0000, None

    def set_when_answered(_event: evt.Event) -> None:
        # only now: the association must not be released before the response to the report is sent
        if reports:
            answered.set()

    handlers = [(evt.EVT_N_EVENT_REPORT, take_report), (evt.EVT_DATA_SENT, set_when_answered)]
    contexts = [build_context(StorageCommitmentPushModel)]
    try:
        with associate(destination, calling_ae_title, contexts, timeout_seconds, handlers) as association:
            outcome = _request(association, destination, _action_information(transaction_uid, instances))
            if outcome.state is CommitmentState.ASKED:
                answered.wait(SAME_ASSOCIATION_SECONDS)
    except DeliveryError as error:
        outcome = CommitmentOutcome(CommitmentState.UNANSWERED, str(error))
    return CommitmentOutcome(CommitmentState.REPORTED, report=reports[0]) if reports else outcome


def expected_report(destination: Destination, workflow_id: str, instances: Sequence[Outgoing]) -> CommitmentRequest:
    """What a report on ``instances`` must be like: from ``destination``, on them alone, for ``workflow_id``.

    The addresses are those that the config gives, or those of the destination's host at this moment.

    Raises:
        socket.gaierror: the host has no address now.
    """
    return CommitmentRequest(
        workflow_id=workflow_id,
        destination=destination.name,
        ae_title=destination.commitment_ae_title or destination.ae_title,
        host=destination.host,
        port=destination.port,
        addresses=destination.commitment_addresses or _addresses(destination.host),
        is_encrypted=destination.tls is not None,
        instances=tuple(each.sop_instance_uid for each in instances),
    )


def _addresses(host: str) -> tuple[str, ...]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(sorted({str(address[0]).partition("%")[0] for *_, address in found}))


def _action_information(transaction_uid: str, instances: Sequence[Outgoing]) -> Dataset:
    """The Action Information of the request (PS3.4 Table J.3-1)."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = []
    for instance in instances:
        item = Dataset()
        item.ReferencedSOPClassUID = instance.sop_class_uid
        item.ReferencedSOPInstanceUID = instance.sop_instance_uid
        information.ReferencedSOPSequence.append(item)
    return information


def _request(association: Association, destination: Destination, information: Dataset) -> CommitmentOutcome:
    if not association.is_established:
        is_refused = bool(association.rejected_contexts) and not association.is_rejected
        state = CommitmentState.UNSUPPORTED if is_refused else CommitmentState.UNANSWERED
        reason = "does not offer storage commitment" if is_refused else why_not_established(association, destination)
        return CommitmentOutcome(state, reason)
    try:
        answer, _ = association.send_n_action(
            information, _ACTION_TYPE_ID, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
    except RuntimeError:
        # pynetdicom raises it if the association has ended, which may happen at any moment
        return CommitmentOutcome(CommitmentState.UNANSWERED, f"{destination.ae_title} ended the association")
    if "Status" not in answer:
        return CommitmentOutcome(CommitmentState.UNANSWERED, f"{destination.ae_title} aborted or did not answer")
    status = answer.Status
    if status in (0x0000, 0x0001, 0x0107, 0x0116, *_DUPLICATES) or status >> 12 == 0xB:
        return CommitmentOutcome(CommitmentState.ASKED)
    if status in _REFUSALS:
        reason = f"refuses storage commitment: 0x{status:04X} {_REFUSALS[status]}"
        return CommitmentOutcome(CommitmentState.UNSUPPORTED, reason)
    reason = f"{destination.ae_title} answered 0x{status:04X} to the request for storage commitment"
    return CommitmentOutcome(CommitmentState.UNANSWERED, reason)
