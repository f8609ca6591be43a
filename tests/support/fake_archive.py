"""A PACS that commits to what it stored (storage commitment) and answers queries, well or badly, on demand."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from faults import FakePacs, StoredInstance, wait_until
from pydicom import Dataset
from pydicom.uid import MRImageStorage
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context, build_role
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
)

from node.scu.association import keep_responses


@dataclass(frozen=True, slots=True)
class Reaction:
    """What follows one N-ACTION: its status, and where the report goes (``times`` times): "new" association, the
    "same" one, or "nowhere". ``failed``: SOP Instance UID to failure reason. ``omitted``: what the report does not
    name; ``added``: what it names beside what was asked for.
    """

    where: str = "new"
    failed: dict[str, int] = field(default_factory=dict)
    times: int = 1
    status: int = 0x0000
    omitted: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def report_data_set(transaction_uid: str, committed: Sequence[str], failed: dict[str, int]) -> Dataset:
    """The Event Information of a report."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    if committed:
        information.ReferencedSOPSequence = [_item(uid) for uid in committed]
    if failed:
        information.FailedSOPSequence = [_item(uid, reason) for uid, reason in failed.items()]
    return information


def _item(sop_instance_uid: str, failure_reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = MRImageStorage, sop_instance_uid
    if failure_reason is not None:
        item.FailureReason = failure_reason
    return item


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who brings a report: calling AE title, address of its end of the connection, and its TLS context, if any."""

    ae_title: str = "PACS"
    address: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None


def send_report(
    port: int,
    called: str,
    information: Dataset,
    reporter: Reporter = Reporter(),
    *,
    has_role: bool = True,
    event_type: int = 0,
) -> int:
    """N-EVENT-REPORT on an association of its own, as a PACS brings it; the status answered (-1: none)."""
    ae = AE(reporter.ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20.0
    association = ae.associate(
        "127.0.0.1",
        port,
        [build_context(StorageCommitmentPushModel)],
        called,
        ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)] if has_role else [],
        bind_address=(reporter.address, 0),
        tls_args=(reporter.tls, "127.0.0.1") if reporter.tls else None,
    )
    assert association.is_established
    try:
        return _report(association, information, event_type)
    finally:
        association.release()
        association.join()


def _report(association: Association, information: Dataset, event_type: int = 0) -> int:
    keep_responses(association)
    event_type = event_type or (2 if "FailedSOPSequence" in information else 1)
    answer, _ = association.send_n_event_report(
        information, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    return int(answer.get("Status", -1))


class FakeArchive(FakePacs):
    """`FakePacs` for MR that also commits and answers C-FIND.

    The n-th N-ACTION is followed by the n-th entry of ``reactions``; after them, by a good report. ``reactions`` None:
    it does not commit. ``lost``: instances that it stored and then lost, until they are sent again. ``find_status``:
    what ends each query; None: it answers no queries.
    """

    def __init__(
        self,
        plan: Sequence[Any] = (),
        *,
        node: tuple[str, int] = ("GLIONODE", 0),
        reactions: Sequence[Reaction] | None = (),
        lost: Sequence[str] = (),
        find_status: int | None = 0x0000,
        transfer_syntaxes: Sequence[str] = ALL_TRANSFER_SYNTAXES,
    ) -> None:
        super().__init__(plan, sop_classes=[MRImageStorage], transfer_syntaxes=transfer_syntaxes)
        self.node = node
        self.transactions: list[str] = []
        self.asked: list[list[str]] = []
        self.report_answers: list[int] = []
        self.find_status = find_status
        self.found: dict[str, str] = {}  # keyword to value that its answers to queries have instead of what was asked
        self.report_transaction: str | None = None  # what reports name instead of the transaction asked for
        self._reactions = None if reactions is None else list(reactions)
        self._lost = list(lost)
        self._threads: list[threading.Thread] = []
        if reactions is not None:
            self._ae.add_supported_context(StorageCommitmentPushModel)
        if find_status is not None:
            self._ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)

    def __exit__(self, *arguments: Any) -> None:
        for thread in self._threads:
            thread.join(20.0)
        super().__exit__(*arguments)

    def _handlers(self) -> list[Any]:
        return [*super()._handlers(), (evt.EVT_N_ACTION, self._act), (evt.EVT_C_FIND, self._find)]

    def held(self) -> set[str]:
        """What it would find again: of a lost instance, the second copy."""
        uids = [each.sop_instance_uid for each in self.received]
        return {uid for uid in uids if uids.count(uid) > self._lost.count(uid)}

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        uid = event.identifier.SOPInstanceUID
        assert event.identifier.QueryRetrieveLevel == "IMAGE"
        assert event.identifier.StudyInstanceUID
        if self.find_status == 0x0000 and uid in self.held():
            match = event.identifier
            for keyword, value in self.found.items():
                setattr(match, keyword, value)
            yield 0xFF00, match
        yield self.find_status or 0x0000, None

    def _act(self, event: evt.Event) -> tuple[int, Dataset | None]:
        information = event.action_information
        self.transactions.append(information.TransactionUID)
        uids = [item.ReferencedSOPInstanceUID for item in information.ReferencedSOPSequence]
        self.asked.append(uids)
        reaction = self._reactions.pop(0) if self._reactions else Reaction()
        if reaction.where != "nowhere" and reaction.status == 0x0000:
            named = [*(uid for uid in uids if uid not in reaction.omitted), *reaction.added]
            committed = [uid for uid in named if uid not in reaction.failed]
            transaction_uid = self.report_transaction or information.TransactionUID
            report = report_data_set(transaction_uid, committed, reaction.failed)
            thread = threading.Thread(target=self._bring, args=(event.assoc, report, reaction))
            self._threads.append(thread)
            thread.start()
        return reaction.status, None

    def _bring(self, association: Association, report: Dataset, reaction: Reaction) -> None:
        # the response to the N-ACTION goes first: the reactor is back in its loop
        wait_until(lambda: not association.is_established or not association._is_paused)
        for _ in range(reaction.times):
            if reaction.where == "same":
                self.report_answers.append(_report(association, report))
            else:
                self.report_answers.append(send_report(self.node[1], self.node[0], report))


def uids_of(received: Sequence[StoredInstance]) -> list[str]:
    """SOP Instance UIDs in the order of arrival."""
    return [each.sop_instance_uid for each in received]
