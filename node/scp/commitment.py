"""The response to a storage commitment report (N-EVENT-REPORT, PS3.4 J.3.3).

A PACS sends the report on an association of its own, often hours after the request. A report counts only if it comes
from the destination that was asked, and only on the instances asked for; any other one changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from pynetdicom import evt
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from node.dicom.commitment import EVENT_TYPES, Commitments, read_report
from node.errors import CommitmentReportError, GlionodeError
from node.metrics import Metrics
from node.scp.report_origin import reporting_peer, why_not_from
from node.scp.status import Status

log = structlog.get_logger()

RECORDED = Status(0x0000, "Success", "the report is recorded for the delivery that awaits it")
PROCESSING_FAILURE = Status(0x0110, "Processing failure", "it could not be recorded: to be sent again")
NO_SUCH_INSTANCE = Status(
    0x0112, "No such SOP instance", "no delivery awaits a report under this Transaction UID from this peer"
)
NO_SUCH_EVENT_TYPE = Status(0x0113, "No such event type", "the Event Type ID is neither 1 nor 2")
INVALID_ARGUMENT = Status(
    0x0115, "Invalid argument value", "a UID is missing or none by PS3.5 9.1, or an instance was not asked for"
)
NO_SUCH_SOP_CLASS = Status(0x0118, "No such SOP class", "the SOP class is not Storage Commitment Push Model")

REPORT_STATUSES = (
    RECORDED,
    PROCESSING_FAILURE,
    NO_SUCH_INSTANCE,
    NO_SUCH_EVENT_TYPE,
    INVALID_ARGUMENT,
    NO_SUCH_SOP_CLASS,
)
"""The statuses of the response to a report (PS3.7 10.1.1.1.8)."""


def commitment_context() -> PresentationContext:
    """The presentation context for reports, for which the peer proposes itself as the SCP (PS3.4 J.2.1.1)."""
    context = build_context(StorageCommitmentPushModel)
    context.scu_role = context.scp_role = True
    return context


class CommitmentHandler:
    """Passes each report to the workflow that awaits it.

    ``on_report(workflow_id, message, key)`` records ``message`` (plain JSON values) for the workflow, once for each
    ``key``; when it returns, the message survives a power cut. It raises GlionodeError or OSError if it fails.
    """

    def __init__(
        self, commitments: Commitments, metrics: Metrics, on_report: Callable[[str, dict[str, Any], str], None]
    ) -> None:
        self._commitments = commitments
        self._metrics = metrics
        self._on_report = on_report

    def handle_event_report(self, event: evt.Event) -> tuple[int, None]:
        """N-EVENT-REPORT: Success only once the report is recorded."""
        status, reason = self._handle(event)
        self._metrics.commitment_reports.labels(f"0x{status.code:04X}").inc()
        if reason:
            requestor = event.assoc.requestor
            facts = {"calling_ae_title": requestor.ae_title, "address": requestor.address}
            log.warning("commitment_report_refused", status=f"0x{status.code:04X}", reason=reason, **facts)
        return status.code, None

    def _handle(self, event: evt.Event) -> tuple[Status, str | None]:
        request = event.request
        if request.AffectedSOPClassUID != StorageCommitmentPushModel:
            return NO_SUCH_SOP_CLASS, "(0000,0002) is not Storage Commitment Push Model"
        if request.AffectedSOPInstanceUID != StorageCommitmentPushModelInstance:
            return NO_SUCH_INSTANCE, "(0000,1000) is not the instance of Storage Commitment Push Model"
        if request.EventTypeID not in EVENT_TYPES:
            return NO_SUCH_EVENT_TYPE, "(0000,1002) Event Type ID is neither 1 nor 2"
        try:
            return self._record(event)
        except CommitmentReportError as error:
            return INVALID_ARGUMENT, str(error)
        except (GlionodeError, OSError) as error:
            text = str(error) if isinstance(error, GlionodeError) else error.strerror
            return PROCESSING_FAILURE, text or type(error).__name__

    def _record(self, event: evt.Event) -> tuple[Status, str | None]:
        report = read_report(event.event_information)
        request = self._commitments.request_of(report.transaction_uid)
        if request is None:
            return NO_SUCH_INSTANCE, "nothing was asked for under this Transaction UID"
        foreign = why_not_from(request, reporting_peer(event.assoc))
        if foreign is not None:  # the same answer as to an invented Transaction UID: it tells the peer nothing
            return NO_SUCH_INSTANCE, f"destination {request.destination}: {foreign}"
        if not report.instances <= set(request.instances):
            return INVALID_ARGUMENT, f"destination {request.destination}: an instance was not asked for"
        self._on_report(request.workflow_id, report.as_message(), f"commitment-{report.digest}")
        log.info("commitment_reported", committed=len(report.committed), failed=len(report.failed))
        return RECORDED, None
