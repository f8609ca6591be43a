"""Requests to a destination that the audit trail tells of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from node.audit.auditor import Auditor
from node.dicom.outgoing import Outgoing
from node.dicom.patient_id import read_patient_id
from node.scu.query import MODEL, QueryOutcome, QueryState, encoded_identifier
from node.study import Destination, InstanceDelivery, Transfer, WebDestination


def audited_send(
    auditor: Auditor | None,
    destination: Destination | WebDestination,
    results: Sequence[Outgoing],
    send: Callable[[], list[InstanceDelivery]],
) -> list[InstanceDelivery]:
    """The answers of ``send()``, one for each of ``results``; the trail tells of its beginning and of its end.

    Raises:
        OSError: raised by ``send``; the trail tells of it, too.
    """
    if auditor is None:
        return send()
    for transfer in _transfers(results):
        auditor.sending(destination, transfer)
    try:
        answers = send()
    except OSError as error:
        for transfer in _transfers(results):
            auditor.sent(destination, transfer, error.strerror or type(error).__name__)
        raise
    # PS3.15 A.5.2: what succeeded and what failed are told in separate messages
    answered = list(zip(results, answers, strict=True))
    for transfer in _transfers([result for result, answer in answered if answer.is_delivered]):
        auditor.sent(destination, transfer, None)
    reasons = [answer.reason for answer in answers if not answer.is_delivered]
    for transfer in _transfers([result for result, answer in answered if not answer.is_delivered]):
        auditor.sent(destination, transfer, reasons[0])
    return answers


def audit_query(
    auditor: Auditor | None, destination: Destination, results: Sequence[Outgoing], outcome: QueryOutcome
) -> None:
    """Tell the trail of the queries for ``results``."""
    if auditor is not None:
        reason = None if outcome.state is QueryState.ANSWERED else (outcome.reason or "not answered")
        for result in results:
            auditor.queried(destination, MODEL, encoded_identifier(result), reason)


def _transfers(results: Sequence[Outgoing]) -> Iterator[Transfer]:
    """One for each study of ``results``, since a message concerns one study."""
    for study in dict.fromkeys(result.study_instance_uid for result in results):
        group = [result for result in results if result.study_instance_uid == study]
        counts = Counter(result.sop_class_uid for result in group)
        yield Transfer(study, read_patient_id(group[0].path), dict(counts))
