"""Storage commitment (PS3.4 J): reads reports, and records requests as files. Only scp and scu use the network."""

from __future__ import annotations

import json
import os
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset

from node.dicom.uids import is_valid_uid
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


class Commitments:
    """The workflow that awaits each transaction: one file per Transaction UID, for all processes with the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def expect(self, transaction_uid: str, workflow_id: str) -> None:
        """Record that ``workflow_id`` awaits the report; when this returns, the record survives a power cut."""
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._file(transaction_uid)
        # a unique name: a worker that was suspended may write at the same time as the worker that took over
        aside = file.with_suffix(f".{uuid.uuid4().hex}.part")
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(json.dumps({"workflow_id": workflow_id}) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(file)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def workflow_of(self, transaction_uid: str) -> str | None:
        """The workflow that awaits the report on this transaction; None if there is none.

        Raises:
            OSError: the folder cannot be read.
        """
        try:
            return str(json.loads(self._file(transaction_uid).read_text("utf-8"))["workflow_id"])
        except FileNotFoundError:
            return None

    def forget(self, transaction_uid: str) -> None:
        """Delete the record: no workflow awaits the report any more."""
        self._file(transaction_uid).unlink(missing_ok=True)

    def _file(self, transaction_uid: str) -> Path:
        if not is_valid_uid(transaction_uid):
            raise ValueError("not a valid UID")
        return self._folder / f"{transaction_uid}.json"
