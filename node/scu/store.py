"""The sender: C-STORE and C-ECHO to a destination, every answer read and classified.

Trouble on the network is an outcome here, never an exception: the pipeline decides when to try again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from pynetdicom import _config
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

from node.dicom.outgoing import Outgoing, read_outgoing
from node.errors import DeliveryError
from node.scu.association import associate, why_not_established
from node.study import Destination, InstanceDelivery

log = structlog.get_logger()

_SLOWEST_LINK_BYTES_PER_SECOND = 125_000  # 1 Mbit/s: what a large instance adds to the time-out of its response


@dataclass(frozen=True, slots=True)
class _Answers:
    """A range of DIMSE statuses, and what they mean for a result."""

    first: int
    last: int
    is_delivered: bool
    is_permanent: bool
    meaning: str


# The first that fits counts. PS3.4 B.2.3, and PS3.7 Annex C: a status of class Warning means that it was stored.
# Permanent is what the same bytes will meet with again. What is not listed may pass: tried again.
_ANSWERS = (
    _Answers(0x0000, 0x0000, True, False, "stored"),
    _Answers(0xB000, 0xB000, True, False, "stored, data elements coerced"),
    _Answers(0xB006, 0xB006, True, False, "stored, elements discarded"),
    _Answers(0xB007, 0xB007, True, False, "stored, data set does not match its SOP class"),
    _Answers(0x0001, 0x0001, True, False, "stored, with a warning"),
    _Answers(0x0107, 0x0107, True, False, "stored, with a warning about attributes"),
    _Answers(0x0116, 0x0116, True, False, "stored, with a warning about a value"),
    _Answers(0xB001, 0xBFFF, True, False, "stored, with a warning"),
    _Answers(0x0111, 0x0111, True, False, "stored before"),
    _Answers(0x0106, 0x0106, False, True, "invalid attribute value"),
    _Answers(0x0117, 0x0117, False, True, "invalid SOP instance"),
    _Answers(0x0118, 0x0118, False, True, "no such SOP class"),
    _Answers(0x0119, 0x0119, False, True, "class and instance conflict"),
    _Answers(0x0120, 0x0120, False, True, "missing attribute"),
    _Answers(0x0121, 0x0121, False, True, "missing attribute value"),
    _Answers(0x0122, 0x0122, False, True, "SOP class not supported"),
    _Answers(0x0211, 0x0211, False, True, "unrecognized operation"),
    _Answers(0x0212, 0x0212, False, True, "mistyped argument"),
    _Answers(0x0110, 0x0110, False, False, "processing failure"),
    _Answers(0x0124, 0x0124, False, False, "not authorized"),
    _Answers(0x0210, 0x0210, False, False, "duplicate invocation"),
    _Answers(0x0213, 0x0213, False, False, "resource limitation"),
    _Answers(0xA700, 0xA7FF, False, False, "out of resources"),
    _Answers(0xA900, 0xA9FF, False, True, "data set does not match its SOP class"),
    _Answers(0xC000, 0xCFFF, False, True, "cannot understand"),
)


def classify_status(sop_instance_uid: str, status: int) -> InstanceDelivery:
    """What an answered C-STORE ``status`` means for the instance."""
    for answers in _ANSWERS:
        if answers.first <= status <= answers.last:
            reason = f"0x{status:04X} {answers.meaning}"
            return InstanceDelivery(sop_instance_uid, status, answers.is_delivered, answers.is_permanent, reason)
    return InstanceDelivery(sop_instance_uid, status, False, False, f"0x{status:04X} refused")


def _unanswered(sop_instance_uid: str, reason: str) -> InstanceDelivery:
    return InstanceDelivery(sop_instance_uid, None, is_delivered=False, is_permanent=False, reason=reason)


def send_instances(
    destination: Destination, calling_ae_title: str, files: Sequence[Path], timeout_seconds: float
) -> list[InstanceDelivery]:
    """Send ``files`` on one association, their data sets byte for byte, one after the other.

    Returns one delivery per file, in the order of ``files``. No answer, an abort or a rejected association leaves this
    instance and those after it retryable. A rejected presentation context is permanent.

    Raises:
        InstanceRefused: a file has no file meta that names its SOP class, SOP instance and transfer syntax.
    """
    outgoing = [read_outgoing(path) for path in files]
    # read by send_c_store: files are sent as they are instead of decoded and encoded again
    _config.STORE_SEND_CHUNKED_DATASET = True
    proposed = dict.fromkeys((item.sop_class_uid, item.transfer_syntax_uid) for item in outgoing)
    contexts = [build_context(sop_class, transfer_syntax) for sop_class, transfer_syntax in proposed]
    try:
        with associate(destination, calling_ae_title, contexts, timeout_seconds) as association:
            deliveries = [_send(association, destination, item, timeout_seconds) for item in outgoing]
    except DeliveryError as error:
        deliveries = [_unanswered(item.sop_instance_uid, str(error)) for item in outgoing]
    for delivery in deliveries:
        if not delivery.is_delivered:
            log.warning(
                "instance_not_delivered",
                destination=destination.name,
                sop_instance_uid=delivery.sop_instance_uid,
                reason=delivery.reason,
            )
    return deliveries


def _send(
    association: Association, destination: Destination, item: Outgoing, timeout_seconds: float
) -> InstanceDelivery:
    accepted = {(context.abstract_syntax, context.transfer_syntax[0]) for context in association.accepted_contexts}
    if association.rejected_contexts and (item.sop_class_uid, item.transfer_syntax_uid) not in accepted:
        reason = f"presentation context rejected: SOP class {item.sop_class_uid} in {item.transfer_syntax_uid}"
        return InstanceDelivery(item.sop_instance_uid, None, is_delivered=False, is_permanent=True, reason=reason)
    if not (association.is_established or association.accepted_contexts):
        return _unanswered(item.sop_instance_uid, why_not_established(association, destination))
    # the time-out runs from the first byte queued, not from the last one sent
    transfer_seconds = item.path.stat().st_size / _SLOWEST_LINK_BYTES_PER_SECOND
    association.dimse_timeout = timeout_seconds + transfer_seconds
    try:
        answer = association.send_c_store(item.path)
    except RuntimeError:
        # what pynetdicom raises if the association is over, which may happen at any moment
        return _unanswered(item.sop_instance_uid, f"{destination.ae_title} ended the association")
    if "Status" not in answer:
        return _unanswered(item.sop_instance_uid, f"{destination.ae_title} aborted or did not answer")
    return classify_status(item.sop_instance_uid, answer.Status)


def echo(destination: Destination, calling_ae_title: str, timeout_seconds: float) -> str | None:
    """C-ECHO (PS3.4 A). None if all is well, else the reason in words."""
    try:
        with associate(destination, calling_ae_title, [build_context(Verification)], timeout_seconds) as association:
            if not association.is_established:
                return why_not_established(association, destination)
            try:
                answer = association.send_c_echo()
            except RuntimeError:
                return f"{destination.ae_title} ended the association"
    except DeliveryError as error:
        return str(error)
    if "Status" not in answer:
        return f"{destination.ae_title} aborted or did not answer"
    return None if answer.Status == 0 else f"{destination.ae_title} answered 0x{answer.Status:04X}"
