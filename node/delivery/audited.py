"""Requests to a destination that the audit trail tells of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

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
    auditor.sending(destination, _transfer(results))
    try:
        answers = send()
    except OSError as error:
        auditor.sent(destination, _transfer(results), error.strerror or type(error).__name__)
        raise
    # PS3.15 A.5.2: what succeeded and what failed are told in separate messages
    stored = [result for result, answer in zip(results, answers, strict=True) if answer.is_delivered]
    if stored:
        auditor.sent(destination, _transfer(stored), None)
    failed = [(result, answer) for result, answer in zip(results, answers, strict=True) if not answer.is_delivered]
    if failed:
        auditor.sent(destination, _transfer([result for result, _ in failed]), failed[0][1].reason)
    return answers


def audit_query(
    auditor: Auditor | None, destination: Destination, results: Sequence[Outgoing], outcome: QueryOutcome
) -> None:
    """Tell the trail of the queries for ``results``."""
    if auditor is not None:
        reason = None if outcome.state is QueryState.ANSWERED else (outcome.reason or "not answered")
        for result in results:
            auditor.queried(destination, MODEL, encoded_identifier(result), reason)


def _transfer(results: Sequence[Outgoing]) -> Transfer:
    first = results[0]
    counts = Counter(result.sop_class_uid for result in results)
    return Transfer(first.study_instance_uid, read_patient_id(first.path), dict(counts))
