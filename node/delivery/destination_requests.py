"""The steps of one delivery: each reads the results and makes one request to the destination. Each may run twice."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import structlog

from node.audit.auditor import Auditor
from node.config import Config
from node.delivery.audited import audit_query, audited_send
from node.delivery.records import Answer, Plan, PlannedInstance
from node.dicom.commitment import Commitments
from node.dicom.outgoing import Outgoing, read_outgoing
from node.errors import DeliveryError, InstanceRefused
from node.scu.commitment import CommitmentOutcome, CommitmentState, expected_report, request_commitment
from node.scu.query import QueryOutcome, QueryState, find_instances
from node.scu.send import send_results
from node.study import Destination, WebDestination

log = structlog.get_logger()


class DestinationRequests:
    """Requests to the destination ``name`` about the results in ``folder``.

    An error of the disk or of the shared folder is treated like an error of the network: it may pass, and the workflow
    tries again. Only a result file that is missing or is no DICOM file ends the delivery.

    Args:
        folder: the results' folder.
        name: the destination's name in the config.
        auditor: is told of transfers and queries; None: the config wants no audit trail.
    """

    def __init__(self, config: Config, folder: str, name: str, auditor: Auditor | None = None) -> None:
        self._auditor = auditor
        self._config = config
        self._folder = Path(folder)
        self._name = name

    @cached_property
    def _destination(self) -> Destination | WebDestination:
        # Looked up in the first step that needs it, never outside a step: if the destination is no longer in the
        # config, the step's error is recorded, and a restarted workflow repeats its recorded steps even if the config
        # has changed since.
        found = [each for each in self._config.destinations() if each.name == self._name]
        if not found:
            raise DeliveryError(f"destination {self._name} is no longer in the config")
        return found[0]

    @property
    def _dicom_destination(self) -> Destination:
        if not isinstance(self._destination, Destination):
            raise DeliveryError(f"{self._name}: a DICOMweb destination cannot be asked to commit")
        return self._destination

    def plan(self, files: Sequence[str]) -> Plan:
        """Which instances are to be sent, and whether to request storage commitment for them.

        Raises:
            DeliveryError: the destination is not in the config, or a result file is missing or is no DICOM file.
        """
        destination = self._destination
        is_to_be_committed = isinstance(destination, Destination) and destination.commitment
        try:
            read = self._read(files)
        except OSError as error:
            return Plan(trouble=_passing(error))
        instances = [PlannedInstance(each.path.name, each.sop_instance_uid) for each in read]
        return Plan(is_to_be_committed, instances, secret=uuid.uuid4().hex)

    def send(self, files: Sequence[str]) -> list[Answer]:
        """One attempt to store ``files``, byte for byte; returns one answer per file, in the order of ``files``.

        Raises:
            DeliveryError: see `plan`.
        """
        destination, section = self._destination, self._config.delivery
        try:
            read = self._read(files)
            attempt = (destination, self._config.scp.ae_title, [each.path for each in read], section.timeout_seconds)
            answers = audited_send(self._auditor, destination, read, lambda: send_results(*attempt))
        except OSError as error:
            return [Answer(None, is_delivered=False, is_permanent=False, reason=_passing(error)) for _ in files]
        return [Answer(each.status, each.is_delivered, each.is_permanent, each.reason) for each in answers]

    def commit(self, files: Sequence[str], transaction_uid: str, workflow_id: str) -> CommitmentOutcome:
        """Request storage commitment for ``files``.

        First records who awaits the report, and from whom, since it may arrive at once, in another process.

        Raises:
            DeliveryError: see `plan`; or it is a DICOMweb destination.
        """
        destination, section = self._dicom_destination, self._config.delivery
        try:
            read = self._read(files)
            expected = expected_report(destination, workflow_id, read)
            Commitments(self._config.commitments_folder).expect(transaction_uid, expected)
            return request_commitment(
                destination, self._config.scp.ae_title, transaction_uid, read, section.timeout_seconds
            )
        except socket.gaierror as error:
            return CommitmentOutcome(CommitmentState.UNANSWERED, f"{destination.host}: {error.strerror}")
        except OSError as error:
            return CommitmentOutcome(CommitmentState.UNANSWERED, _passing(error))

    def query(self, files: Sequence[str]) -> QueryOutcome:
        """Query which of ``files`` the destination holds.

        Raises:
            DeliveryError: see `plan`; or it is a DICOMweb destination.
        """
        destination = self._dicom_destination
        try:
            read = self._read(files)
        except OSError as error:
            return QueryOutcome(QueryState.UNANSWERED, reason=_passing(error))
        timeout_seconds = self._config.delivery.timeout_seconds
        outcome = find_instances(destination, self._config.scp.ae_title, read, timeout_seconds)
        audit_query(self._auditor, destination, read, outcome)
        return outcome

    def forget(self, transactions: Sequence[str]) -> None:
        """Delete the records of ``transactions``: no report on them is awaited any more."""
        try:
            for transaction_uid in transactions:
                Commitments(self._config.commitments_folder).forget(transaction_uid)
        except OSError as error:  # retention deletes the records later
            log.warning("commitment_not_forgotten", reason=_passing(error))

    def _read(self, files: Sequence[str]) -> list[Outgoing]:
        """The Part 10 files that are to be sent.

        Raises:
            DeliveryError: a result file is missing, or is no DICOM file.
            OSError: a file cannot be read now.
        """
        try:
            return [read_outgoing(self._folder / file) for file in files]
        except (FileNotFoundError, InstanceRefused) as error:
            text = error.strerror if isinstance(error, FileNotFoundError) else str(error)
            raise DeliveryError(f"{self._name}: a result cannot be read: {text}") from None


def _passing(error: OSError) -> str:
    """The reason for an error that may pass; it names no path, since a path may name a study."""
    return f"a file cannot be read or written now: {error.strerror or type(error).__name__}"
