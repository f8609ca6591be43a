"""The sender: C-STORE and C-ECHO to a destination, every answer read and classified.

Trouble on the network is an outcome here, never an exception: the pipeline decides when to try again.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import Verification

from node.errors import DeliveryError, InstanceRefused
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


# PS3.4 B.2.3 and PS3.7 Annex C. What is not listed may pass: tried again.
_ANSWERS = (
    _Answers(0x0000, 0x0000, True, False, "stored"),
    _Answers(0xB000, 0xB000, True, False, "stored, data elements coerced"),
    _Answers(0xB006, 0xB006, True, False, "stored, elements discarded"),
    _Answers(0xB007, 0xB007, True, False, "stored, data set does not match its SOP class"),
    _Answers(0x0111, 0x0111, True, False, "stored before"),
    _Answers(0x0117, 0x0117, False, True, "invalid SOP instance"),
    _Answers(0x0122, 0x0122, False, True, "SOP class not supported"),
    _Answers(0x0124, 0x0124, False, False, "not authorized"),
    _Answers(0xA700, 0xA7FF, False, False, "out of resources"),
    _Answers(0xA900, 0xA9FF, False, True, "data set does not match its SOP class"),
    _Answers(0xC000, 0xCFFF, False, True, "cannot understand"),
)


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """One file to be sent, as its file meta (PS3.10 7.1) describes it."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


def classify_status(sop_instance_uid: str, status: int) -> InstanceDelivery:
    """What an answered C-STORE ``status`` means for the instance."""
    for answers in _ANSWERS:
        if answers.first <= status <= answers.last:
            reason = f"0x{status:04X} {answers.meaning}"
            return InstanceDelivery(sop_instance_uid, status, answers.is_delivered, answers.is_permanent, reason)
    return InstanceDelivery(sop_instance_uid, status, False, False, f"0x{status:04X} refused")


def _unanswered(sop_instance_uid: str, reason: str) -> InstanceDelivery:
    return InstanceDelivery(sop_instance_uid, None, is_delivered=False, is_permanent=False, reason=reason)


def _read_outgoing(path: Path) -> _Outgoing:
    try:
        meta = read_file_meta_info(path)
        return _Outgoing(
            path,
            str(meta.MediaStorageSOPClassUID),
            str(meta.MediaStorageSOPInstanceUID),
            str(meta.TransferSyntaxUID),
        )
    except (InvalidDicomError, EOFError, AttributeError) as error:
        raise InstanceRefused(f"{path.name} has no complete file meta: {error}") from None


def _give_stolen_responses_back(association: Association) -> None:
    """Work around a race of pynetdicom 3.0.4, which `pyproject.toml` pins for this reason.

    Its reactor thread says that it is paused before it is: it may still take one message off the queue, and a response
    taken so is dropped as "unexpected" while the sender waits for it until the time-out. Here such a response goes back
    to the queue. The reactor, now really paused, takes no second one.
    """
    serve_request = association._serve_request

    def serve(message: Any, context_id: int) -> None:
        if getattr(message, "MessageIDBeingRespondedTo", None) is None:
            serve_request(message, context_id)
        else:
            association.dimse.msg_queue.put((context_id, message))

    association._serve_request = serve


@contextlib.contextmanager
def _associate(
    destination: Destination, calling_ae_title: str, contexts: list[PresentationContext], timeout_seconds: float
) -> Iterator[Association]:
    """An association, established or not; released and its socket closed on leaving.

    Raises:
        DeliveryError: the host has no address.
    """
    connections: list[socket.socket] = []

    def keep_socket(event: evt.Event) -> None:
        # before the connection is tried: if it fails, pynetdicom forgets to close the socket
        if not connections:
            connections.append(event.assoc.dul.socket.socket)

    def set_up_socket(event: evt.Event) -> None:
        connection = event.assoc.dul.socket.socket
        # without it a peer that stops reading blocks pynetdicom's sender for ever
        connection.settimeout(timeout_seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    ae = AE(calling_ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = timeout_seconds
    try:
        association = ae.associate(
            destination.host,
            destination.port,
            contexts=contexts,
            ae_title=destination.ae_title,
            evt_handlers=[(evt.EVT_ACSE_SENT, keep_socket), (evt.EVT_CONN_OPEN, set_up_socket)],
        )
    except OSError as error:
        raise DeliveryError(f"{destination.host}: {error.strerror}") from None
    try:
        _give_stolen_responses_back(association)
        yield association
    finally:
        if association.is_established:
            association.release()
        if association.ident is not None:
            association.join()
        for connection in connections:
            connection.close()


def _why_not_established(association: Association, destination: Destination) -> str:
    where = f"{destination.ae_title} at {destination.host}:{destination.port}"
    if association.is_rejected:
        return f"{where} rejected the association: {association.acceptor.primitive.reason_str}"
    if association.rejected_contexts:
        return f"{where} accepted no presentation context"
    return f"{where} cannot be reached or does not answer"


def send_instances(
    destination: Destination, calling_ae_title: str, files: Sequence[Path], timeout_seconds: float
) -> list[InstanceDelivery]:
    """Send ``files`` on one association, their data sets byte for byte, one after the other.

    Returns one delivery per file, in the order of ``files``. No answer, an abort or a rejected association leaves this
    instance and those after it retryable. A rejected presentation context is permanent.

    Raises:
        InstanceRefused: a file has no file meta that names its SOP class, SOP instance and transfer syntax.
    """
    outgoing = [_read_outgoing(path) for path in files]
    # read by send_c_store: files are sent as they are instead of decoded and encoded again
    _config.STORE_SEND_CHUNKED_DATASET = True
    proposed = dict.fromkeys((item.sop_class_uid, item.transfer_syntax_uid) for item in outgoing)
    contexts = [build_context(sop_class, transfer_syntax) for sop_class, transfer_syntax in proposed]
    try:
        with _associate(destination, calling_ae_title, contexts, timeout_seconds) as association:
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
    association: Association, destination: Destination, item: _Outgoing, timeout_seconds: float
) -> InstanceDelivery:
    accepted = {(context.abstract_syntax, context.transfer_syntax[0]) for context in association.accepted_contexts}
    if association.rejected_contexts and (item.sop_class_uid, item.transfer_syntax_uid) not in accepted:
        reason = f"presentation context rejected: SOP class {item.sop_class_uid} in {item.transfer_syntax_uid}"
        return InstanceDelivery(item.sop_instance_uid, None, is_delivered=False, is_permanent=True, reason=reason)
    if not (association.is_established or association.accepted_contexts):
        return _unanswered(item.sop_instance_uid, _why_not_established(association, destination))
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
        with _associate(destination, calling_ae_title, [build_context(Verification)], timeout_seconds) as association:
            if not association.is_established:
                return _why_not_established(association, destination)
            try:
                answer = association.send_c_echo()
            except RuntimeError:
                return f"{destination.ae_title} ended the association"
    except DeliveryError as error:
        return str(error)
    if "Status" not in answer:
        return f"{destination.ae_title} aborted or did not answer"
    return None if answer.Status == 0 else f"{destination.ae_title} answered 0x{answer.Status:04X}"
