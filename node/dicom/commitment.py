"""Storage commitment (PS3.4 J): reads reports, and records requests as files. Only scp and scu use the network."""

from __future__ import annotations

import ipaddress
import json
import os
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydicom import Dataset

from node.dicom.uids import digest, is_valid_uid
from node.errors import CommitmentReportError

EVENT_TYPES = {1: "all instances are committed", 2: "some instances are not committed"}
"""The two event types of a report (PS3.4 J.3.3.1)."""

FAILURE_REASONS = {
    0x0110: "processing failure",
    0x0112: "no such object instance",
    0x0119: "class and instance conflict",
    0x0122: "referenced SOP class not supported",
    0x0131: "duplicate transaction UID",
    0x0213: "resource limitation",
}
"""Why an instance is not committed (PS3.3 C.14.1.1)."""

PERMANENT_REASONS = frozenset({0x0119, 0x0122})
"""Failure reasons that remain if the same instance is sent again."""


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """The report on one transaction: the committed instances, and the failed instances with their failure reasons."""

    transaction_uid: str
    committed: tuple[str, ...]
    failed: Mapping[str, int]

    @property
    def instances(self) -> frozenset[str]:
        """The SOP Instance UIDs that the report names."""
        return frozenset(self.committed) | frozenset(self.failed)

    @property
    def digest(self) -> str:
        """Tells this report from every other one, and is the same when it is repeated."""
        failed = (f"{uid}={reason}" for uid, reason in sorted(self.failed.items()))
        return digest([self.transaction_uid, *sorted(self.committed), "failed", *failed])

    def as_message(self) -> dict[str, Any]:
        """The report as plain JSON values, which are sent to the workflow and recorded."""
        return {
            "transaction_uid": self.transaction_uid,
            "committed": list(self.committed),
            "failed": dict(self.failed),
        }


def read_report(information: Dataset) -> CommitmentReport:
    """Read the Event Information of an N-EVENT-REPORT (PS3.4 Table J.3-2).

    Raises:
        CommitmentReportError: the Transaction UID, or the UID of an instance, is missing or invalid.
    """
    try:
        transaction_uid = str(information.get("TransactionUID", ""))
        if not is_valid_uid(transaction_uid):
            raise CommitmentReportError("(0008,1195) Transaction UID is missing or not a valid UID")
        committed = [_instance(item) for item in information.get("ReferencedSOPSequence") or ()]
        failed = {_instance(item): _failure_reason(item) for item in information.get("FailedSOPSequence") or ()}
    except (AttributeError, EOFError, LookupError, TypeError, ValueError, struct.error) as error:
        # pydicom converts a value only when it is read
        raise CommitmentReportError(f"a value cannot be read ({type(error).__name__})") from None
    return CommitmentReport(transaction_uid, tuple(uid for uid in committed if uid not in failed), failed)


def _instance(item: Dataset) -> str:
    uid = str(item.get("ReferencedSOPInstanceUID", ""))
    if not is_valid_uid(uid):
        raise CommitmentReportError("(0008,1155) Referenced SOP Instance UID is missing or not a valid UID")
    return uid


def _failure_reason(item: Dataset) -> int:
    reason = item.get("FailureReason", 0x0110)
    return reason if isinstance(reason, int) else 0x0110


def describe_failure(reason: int) -> str:
    """The code and the meaning of a failure reason."""
    return f"0x{reason:04X} {FAILURE_REASONS.get(reason, 'not committed')}"


@dataclass(frozen=True, slots=True)
class CommitmentRequest:
    """What was asked for under one Transaction UID, and of whom: only a report from there, on that, counts.

    Attributes:
        workflow_id: the workflow that awaits the report.
        destination: the destination's name in the config.
        ae_title: the calling AE title under which the destination reports.
        host: the destination's host, which its certificate names if the association of the report is encrypted.
        port: the destination's port.
        addresses: IP addresses or networks from which the destination reports.
        is_encrypted: the destination was asked over TLS, so that it must report over TLS, too.
        instances: the SOP Instance UIDs asked for.
    """

    workflow_id: str
    destination: str
    ae_title: str
    host: str
    port: int
    addresses: tuple[str, ...]
    is_encrypted: bool
    instances: tuple[str, ...]

    def comes_from(self, address: str) -> bool:
        """True if ``address``, of the peer of an association, is one of the destination's."""
        peer = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return any(peer in ipaddress.ip_network(each) for each in self.addresses)


_REQUEST = TypeAdapter(CommitmentRequest)


class Commitments:
    """The requests whose reports are awaited: one file per Transaction UID, for all processes with the folder.

    Whoever knows a Transaction UID could try to report on it: the folder is the owner's alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def expect(self, transaction_uid: str, request: CommitmentRequest) -> None:
        """Record that the report on ``request`` is awaited; when this returns, the record survives a power cut."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._file(transaction_uid)
        # a unique name: a worker that was suspended may write at the same time as the worker that took over
        aside = file.with_suffix(f".{uuid.uuid4().hex}.part")
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(json.dumps(_REQUEST.dump_python(request, mode="json")) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(file)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def request_of(self, transaction_uid: str) -> CommitmentRequest | None:
        """The request under this Transaction UID; None if no report on it can count.

        It is None, too, for a record that is damaged, and for one of glionode 0.1.0, which does not say of whom it was
        asked: its delivery queries the destination in the end.

        Raises:
            OSError: the folder cannot be read.
        """
        try:
            request = _REQUEST.validate_json(self._file(transaction_uid).read_bytes())
            for each in request.addresses:
                ipaddress.ip_network(each)
        except (FileNotFoundError, ValidationError, ValueError):
            return None
        return request

    def workflow_of(self, transaction_uid: str) -> str | None:
        """The workflow that awaits the report on this transaction, also by glionode 0.1.0; None if there is none.

        Raises:
            OSError: the folder cannot be read.
            ValueError, LookupError: the record is damaged.
        """
        try:
            record = json.loads(self._file(transaction_uid).read_text("utf-8"))
        except FileNotFoundError:
            return None
        if not isinstance(record, dict):
            raise ValueError("not a record of storage commitment")
        return str(record["workflow_id"])

    def forget(self, transaction_uid: str) -> None:
        """Delete the record: no workflow awaits the report any more."""
        self._file(transaction_uid).unlink(missing_ok=True)

    def _file(self, transaction_uid: str) -> Path:
        if not is_valid_uid(transaction_uid):
            raise ValueError("not a valid UID")
        return self._folder / f"{transaction_uid}.json"
