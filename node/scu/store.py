"""The sender: C-STORE and C-ECHO to a destination; each response is classified.

A network error is a result here, never an exception: the pipeline decides when to retry.
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

from node.dicom.outgoing import Outgoing, read_in_implicit_vr, read_outgoing
from node.errors import DeliveryError, InstanceRefused
from node.scu.association import associate, may_accept_fewer_contexts, why_not_established
from node.study import Destination, InstanceDelivery

log = structlog.get_logger()

_SLOWEST_LINK_BYTES_PER_SECOND = 125_000  # 1 Mbit/s: the time-out of a response grows with the size of its instance


@dataclass(frozen=True, slots=True)
class _StatusRange:
    """A range of DIMSE statuses, and what they mean for the instance that was sent."""

    first: int
    last: int
    is_delivered: bool
    is_permanent: bool
    meaning: str


# The first range with the status counts. PS3.4 B.2.3, and PS3.7 Annex C: a status of class Warning means that the
# instance was stored. A permanent status remains if the same bytes are sent again. A status not listed is retried.
_STATUS_RANGES = (
    _StatusRange(0x0000, 0x0000, True, False, "stored"),
    _StatusRange(0xB000, 0xB000, True, False, "stored, data elements coerced"),
    _StatusRange(0xB006, 0xB006, True, False, "stored, elements discarded"),
    _StatusRange(0xB007, 0xB007, True, False, "stored, data set does not match its SOP class"),
    _StatusRange(0x0001, 0x0001, True, False, "stored, with a warning"),
    _StatusRange(0x0107, 0x0107, True, False, "stored, with a warning about attributes"),
    _StatusRange(0x0116, 0x0116, True, False, "stored, with a warning about a value"),
    _StatusRange(0xB001, 0xBFFF, True, False, "stored, with a warning"),
    _StatusRange(0x0111, 0x0111, True, False, "stored before"),
    _StatusRange(0x0106, 0x0106, False, True, "invalid attribute value"),
    _StatusRange(0x0117, 0x0117, False, True, "invalid SOP instance"),
    _StatusRange(0x0118, 0x0118, False, True, "no such SOP class"),
    _StatusRange(0x0119, 0x0119, False, True, "class and instance conflict"),
    _StatusRange(0x0120, 0x0120, False, True, "missing attribute"),
    _StatusRange(0x0121, 0x0121, False, True, "missing attribute value"),
    _StatusRange(0x0122, 0x0122, False, True, "SOP class not supported"),
    _StatusRange(0x0211, 0x0211, False, True, "unrecognized operation"),
    _StatusRange(0x0212, 0x0212, False, True, "mistyped argument"),
    _StatusRange(0x0110, 0x0110, False, False, "processing failure"),
    _StatusRange(0x0124, 0x0124, False, False, "not authorized"),
    _StatusRange(0x0210, 0x0210, False, False, "duplicate invocation"),
    _StatusRange(0x0213, 0x0213, False, False, "resource limitation"),
    _StatusRange(0xA700, 0xA7FF, False, False, "out of resources"),
    _StatusRange(0xA900, 0xA9FF, False, True, "data set does not match its SOP class"),
    _StatusRange(0xC000, 0xCFFF, False, True, "cannot understand"),
)


def classify_status(sop_instance_uid: str, status: int) -> InstanceDelivery:
    """What the ``status`` of a C-STORE response means for the instance."""
    for entry in _STATUS_RANGES:
        if entry.first <= status <= entry.last:
            reason = f"0x{status:04X} {entry.meaning}"
            return InstanceDelivery(sop_instance_uid, status, entry.is_delivered, entry.is_permanent, reason)
    return InstanceDelivery(sop_instance_uid, status, False, False, f"0x{status:04X} refused")


def _unanswered(sop_instance_uid: str, reason: str) -> InstanceDelivery:
    return InstanceDelivery(sop_instance_uid, None, is_delivered=False, is_permanent=False, reason=reason)


def send_instances(
    destination: Destination, calling_ae_title: str, files: Sequence[Path], timeout_seconds: float
) -> list[InstanceDelivery]:
    """Send ``files`` one after the other, on one association if the destination lets them.

    Each SOP class is proposed in the file's transfer syntax and, if that is uncompressed, in Implicit VR Little Endian
    (PS3.5 10.1), by one presentation context each. A data set goes byte for byte where the file's own is accepted. What
    was rejected beside others is proposed once more, one presentation context per association.

    Returns one delivery per file, in the order of ``files``. After a missing response, an abort or a rejected
    association, this instance and those after it are retryable. A rejected presentation context is permanent.

    Raises:
        InstanceRefused: the file meta of a file lacks the SOP class, the SOP instance or the transfer syntax.
        OSError: a file cannot be read.
    """
    attempt = _Attempt(destination, calling_ae_title, timeout_seconds, [read_outgoing(path) for path in files])
    deliveries = attempt.send()
    for delivery in deliveries:
        if not delivery.is_delivered:
            log.warning(
                "instance_not_delivered",
                destination=destination.name,
                sop_instance_uid=delivery.sop_instance_uid,
                reason=delivery.reason,
            )
    return deliveries


_Context = tuple[str, str]
"""SOP class and transfer syntax of a proposed presentation context."""


def _contexts(item: Outgoing) -> tuple[_Context, ...]:
    return tuple((item.sop_class_uid, transfer_syntax) for transfer_syntax in item.transfer_syntaxes)


class _Attempt:
    """One attempt to send ``outgoing``, whose instances are numbered from 0 in their order."""

    def __init__(
        self, destination: Destination, calling_ae_title: str, timeout_seconds: float, outgoing: Sequence[Outgoing]
    ) -> None:
        self._destination = destination
        self._calling_ae_title = calling_ae_title
        self._timeout_seconds = timeout_seconds
        self._outgoing = outgoing
        self._deliveries: dict[int, InstanceDelivery] = {}
        self._declined: set[int] = set()  # instances that no association had a presentation context for

    def send(self) -> list[InstanceDelivery]:
        """One delivery per instance, in their order."""
        # setting of send_c_store: files are sent as they are, without decoding and encoding
        _config.STORE_SEND_CHUNKED_DATASET = True
        proposed = dict.fromkeys(context for item in self._outgoing for context in _contexts(item))
        self._send(range(len(self._outgoing)), list(proposed))
        if self._declined and len(proposed) > 1:
            log.info("presentation_contexts_declined", destination=self._destination.name, proposed=len(proposed))
            self._send_separately()
        return [self._deliveries[number] for number in range(len(self._outgoing))]

    def _send_separately(self) -> None:
        """Send what was declined with one presentation context per association, until the destination is away."""
        groups: dict[tuple[_Context, ...], list[int]] = {}
        for number in sorted(self._declined):
            groups.setdefault(_contexts(self._outgoing[number]), []).append(number)
        for contexts, numbers in groups.items():
            for context in contexts:
                remaining = [number for number in numbers if number in self._declined]
                if remaining and not self._send(remaining, [context]):
                    return

    def _send(self, numbers: Sequence[int], contexts: Sequence[_Context]) -> bool:
        """Send instances on one association; False if the destination is away, whatever is proposed."""
        proposal = [build_context(sop_class, transfer_syntax) for sop_class, transfer_syntax in contexts]
        destination = self._destination
        try:
            with associate(destination, self._calling_ae_title, proposal, self._timeout_seconds) as association:
                if association.accepted_contexts or association.rejected_contexts:
                    for number in numbers:
                        self._send_one(association, number)
                    return True
                reason, is_away = (
                    why_not_established(association, destination),
                    not may_accept_fewer_contexts(association),
                )
        except DeliveryError as error:
            reason, is_away = str(error), True
        for number in numbers:
            self._not_established(number, reason, is_away)
        return not is_away

    def _not_established(self, number: int, reason: str, is_away: bool) -> None:
        """Note that there was no association. A presentation context that was rejected before stays rejected."""
        was_rejected = number in self._deliveries and self._deliveries[number].is_permanent
        if is_away:
            self._declined.discard(number)
        else:
            self._declined.add(number)
        if is_away or not was_rejected:
            self._deliveries[number] = _unanswered(self._outgoing[number].sop_instance_uid, reason)

    def _send_one(self, association: Association, number: int) -> None:
        item = self._outgoing[number]
        accepted = {(each.abstract_syntax, each.transfer_syntax[0]) for each in association.accepted_contexts}
        context = next((each for each in _contexts(item) if each in accepted), None)
        if context is None:
            self._declined.add(number)
            self._deliveries[number] = _context_rejected(item)
            return
        self._declined.discard(number)
        # the time-out starts when the first byte is queued, not when the last one is sent
        transfer_seconds = item.path.stat().st_size / _SLOWEST_LINK_BYTES_PER_SECOND
        association.dimse_timeout = self._timeout_seconds + transfer_seconds
        self._deliveries[number] = _store(association, self._destination, item, context[1])


def _context_rejected(item: Outgoing) -> InstanceDelivery:
    syntaxes = " or ".join(item.transfer_syntaxes)
    reason = f"presentation context rejected: SOP class {item.sop_class_uid} in {syntaxes}"
    return InstanceDelivery(item.sop_instance_uid, None, is_delivered=False, is_permanent=True, reason=reason)


def _store(
    association: Association, destination: Destination, item: Outgoing, transfer_syntax: str
) -> InstanceDelivery:
    """Send one instance in ``transfer_syntax``, which the destination accepted for its SOP class."""
    try:
        is_as_it_is = transfer_syntax == item.transfer_syntax_uid
        answer = association.send_c_store(item.path if is_as_it_is else read_in_implicit_vr(item.path))
    except InstanceRefused as error:
        return InstanceDelivery(item.sop_instance_uid, None, is_delivered=False, is_permanent=True, reason=str(error))
    except RuntimeError:
        # pynetdicom raises it if the association has ended, which may happen at any moment
        return _unanswered(item.sop_instance_uid, f"{destination.ae_title} ended the association")
    if "Status" not in answer:
        return _unanswered(item.sop_instance_uid, f"{destination.ae_title} aborted or did not answer")
    return classify_status(item.sop_instance_uid, answer.Status)


def echo(destination: Destination, calling_ae_title: str, timeout_seconds: float) -> str | None:
    """C-ECHO (PS3.4 A). None if the destination responded with Success, else the reason."""
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
