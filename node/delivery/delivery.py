"""A study's results on their way to one destination: sent until it took them, then committed to.

::

    sending  ->  delivered  ->  committing  ->  committed
       ^                            |
       +---- what is not held ------+

*Delivered* is what the destination answered for each instance. *Committed* is what its report of storage commitment
says (PS3.4 J) or, if none comes, what it lists when asked (C-FIND). What steps return is recorded, as plain JSON values
that a later version can read.

Trouble of the own disk or the shared folder is an outcome like trouble on the network: it may pass, and is tried again.
Final is only what waiting cannot mend: a result that is gone, or is no DICOM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from node.config import Config
from node.delivery.progress import DeliveryProgress
from node.dicom.commitment import PERMANENT_REASONS, Commitments, describe_failure
from node.dicom.outgoing import Outgoing, read_outgoing
from node.dicom.uids import derived_uid
from node.errors import DeliveryError, InstanceRefused
from node.log import study_context
from node.notify.notices import notify_humans
from node.scu.commitment import CommitmentState, request_commitment
from node.scu.query import QueryState, find_instances
from node.scu.send import send_results
from node.study import Destination, WebDestination
from node.workflow.steps import Steps

log = structlog.get_logger()

RESULT_FILES = ("seg.dcm", "sr.dcm")
COMMITMENT_TOPIC = "commitment"
"""A report of storage commitment is sent under it to the workflow that awaits it."""


class Delivery:
    """The workflow ``deliver`` and its steps. Steps may run twice: instances are sent again under their own UIDs."""

    def __init__(self, config: Config) -> None:
        self._config = config

    # ---- the workflow: no effects outside steps ------------------------------------------------------------------

    def deliver(
        self,
        steps: Steps,
        study_instance_uid: str,
        folder: str,
        name: str,
        files: Sequence[str] = RESULT_FILES,
    ) -> dict[str, Any]:
        """Send ``files`` of ``folder`` to destination ``name`` until it took them all, and have it commit if it shall.

        Returns state (delivered, committed), reason (None unless there is more to say), attempts, and per instance:
        file, sop_instance_uid, status, is_delivered, is_committed, reason, attempts.

        Raises:
            DeliveryError: refused for good, or given up. The text says which instance; humans are told.
        """
        with study_context(study_instance_uid, destination=name):
            steps.tell("sending")
            progress = DeliveryProgress(self._config.delivery, steps, folder, name)
            try:
                return self._delivered(steps, progress, list(files))
            except DeliveryError as error:
                notify_humans(self._config, steps, "failed", study_instance_uid, str(error))
                log.error("results_not_delivered", reason=str(error), attempts=progress.attempts)
                raise

    def _delivered(self, steps: Steps, progress: DeliveryProgress, files: list[str]) -> dict[str, Any]:
        plan = steps.step("plan", self.plan, progress.folder, progress.name, files)
        while trouble := plan.get("trouble"):
            log.warning("delivery_failed", reason=trouble, attempts=progress.attempts)
            progress.wait(trouble)
            plan = steps.step("plan", self.plan, progress.folder, progress.name, files)
        progress.begin(plan["instances"])
        self._send_all(steps, progress)
        if not plan["is_to_be_committed"]:
            return progress.result("delivered", None)
        steps.tell("delivered")
        log.info("results_delivered", attempts=progress.attempts, reason=None)
        progress.start_counting()
        return self._commit(steps, progress)

    def _send_all(self, steps: Steps, progress: DeliveryProgress) -> None:
        while pending := [file for file in progress.files("is_delivered") if file not in progress.refused]:
            progress.attempts += 1
            progress.take_answers(steps.step("send", self.send, progress.folder, progress.name, pending))
            if not set(progress.files("is_delivered")) - progress.refused:
                break
            log.warning("delivery_failed", reason=progress.describe(), attempts=progress.attempts)
            progress.wait(progress.describe())
        if progress.refused:
            raise DeliveryError(f"{progress.name}: {progress.describe()}")

    def _commit(self, steps: Steps, progress: DeliveryProgress) -> dict[str, Any]:
        steps.tell("committing")
        transactions: list[str] = []
        try:
            state, reason = self._commit_in_rounds(steps, progress, transactions)
        except DeliveryError:
            steps.step("forget", self.forget, transactions)
            raise
        steps.step("forget", self.forget, transactions)
        return progress.result(state, reason)

    def _commit_in_rounds(
        self, steps: Steps, progress: DeliveryProgress, transactions: list[str]
    ) -> tuple[str, str | None]:
        """State and reason in the end. Each round asks under its own Transaction UID, added to ``transactions``."""
        while True:
            transactions.append(derived_uid("storage commitment", steps.workflow_id, str(len(transactions))))
            failed, silence = self._report(steps, progress, transactions[-1])
            reason = silence or "; ".join(sorted({describe_failure(each) for each in failed.values()}))
            is_final = any(each in PERMANENT_REASONS for each in failed.values())
            note = None
            if progress.files("is_committed") and (silence or is_final):
                query = self._query(steps, progress)
                if query["state"] != QueryState.ANSWERED:
                    reason = f"{reason}; {query['reason']}"
                    if silence:
                        return "delivered", f"not committed: {reason}"
                progress.take_commitment(query["held"])
                note = f"found by query: {reason}"
            if not progress.files("is_committed"):
                return "committed", note
            log.warning("commitment_failed", reason=reason)
            if is_final or progress.is_over:
                raise DeliveryError(
                    f"{progress.name}: {', '.join(progress.files('is_committed'))} not committed: {reason}"
                )
            steps.tell(f"retrying: not committed: {reason}")
            steps.sleep(progress.next_pause_seconds())
            self._send_again(steps, progress)

    def _send_again(self, steps: Steps, progress: DeliveryProgress) -> None:
        for each in progress.instances:
            each["is_delivered"] = each["is_committed"]
        self._send_all(steps, progress)
        steps.tell("committing")

    def _report(
        self, steps: Steps, progress: DeliveryProgress, transaction_uid: str
    ) -> tuple[dict[str, int], str | None]:
        """The failures of the destination's report; or why there is no report."""
        while True:
            files = progress.files("is_committed")
            answer = steps.step(
                "commit", self.commit, progress.folder, progress.name, files, transaction_uid, steps.workflow_id
            )
            message = answer["report"]
            if message is not None:
                progress.take_commitment(message["committed"])
                return message["failed"], None
            if answer["state"] == CommitmentState.UNSUPPORTED:
                return {}, answer["reason"]
            is_asked = answer["state"] == CommitmentState.ASKED
            wait = self._config.delivery.commitment_wait_seconds if is_asked else progress.next_pause_seconds()
            message = self._awaited(steps, progress, transaction_uid, wait)
            if message is not None:
                return message["failed"], None
            if is_asked:
                progress.count_waited(wait)
                return {}, f"no report within {wait:g} s"
            if progress.is_over:
                return {}, answer["reason"]

    def _awaited(
        self, steps: Steps, progress: DeliveryProgress, transaction_uid: str, wait: float
    ) -> dict[str, Any] | None:
        """The report on this transaction. One on an earlier transaction may come late, and counts as well."""
        while (message := steps.receive(COMMITMENT_TOPIC, wait)) is not None:
            progress.take_commitment(message["committed"])
            if message["transaction_uid"] == transaction_uid or not progress.files("is_committed"):
                return dict(message)
        return None

    def _query(self, steps: Steps, progress: DeliveryProgress) -> dict[str, Any]:
        while True:
            files = progress.files("is_committed")
            answer: dict[str, Any] = steps.step("query", self.query, progress.folder, progress.name, files)
            if answer["state"] != QueryState.UNANSWERED or progress.is_over:
                return answer
            steps.sleep(progress.next_pause_seconds())

    # ---- steps: each may run twice -------------------------------------------------------------------------------

    def plan(self, folder: str, name: str, files: list[str]) -> dict[str, Any]:
        """Which instances are to be sent, and whether the destination is to commit to them; or the trouble."""
        destination = self._destination(name)
        is_to_be_committed = isinstance(destination, Destination) and destination.commitment
        try:
            read = self._read(folder, name, files)
        except OSError as error:
            return {"trouble": _told(error)}
        instances = [{"file": each.path.name, "sop_instance_uid": each.sop_instance_uid} for each in read]
        return {"is_to_be_committed": is_to_be_committed, "instances": instances}

    def send(self, folder: str, name: str, files: list[str]) -> list[dict[str, Any]]:
        """One attempt to store ``files``, byte for byte."""
        destination, calling = self._destination(name), self._config.scp.ae_title
        try:
            paths = [each.path for each in self._read(folder, name, files)]
            deliveries = send_results(destination, calling, paths, self._config.delivery.timeout_seconds)
        except OSError as error:
            answer = {"status": None, "is_delivered": False, "is_permanent": False, "reason": _told(error)}
            return [{"file": file, **answer} for file in files]
        return [asdict(delivery) for delivery in deliveries]

    def commit(
        self, folder: str, name: str, files: list[str], transaction_uid: str, workflow_id: str
    ) -> dict[str, Any]:
        """Ask the destination to commit. Noted first who awaits the report: it may come at once, to another process."""
        destination = self._dicom_destination(name)
        try:
            Commitments(self._config.commitments_folder).expect(transaction_uid, workflow_id)
            outcome = request_commitment(
                destination,
                self._config.scp.ae_title,
                transaction_uid,
                self._read(folder, name, files),
                self._config.delivery.timeout_seconds,
            )
        except OSError as error:
            return {"state": CommitmentState.UNANSWERED.value, "reason": _told(error), "report": None}
        report = outcome.report.as_message() if outcome.report else None
        return {"state": outcome.state.value, "reason": outcome.reason, "report": report}

    def query(self, folder: str, name: str, files: list[str]) -> dict[str, Any]:
        """Ask the destination which instances it holds."""
        destination = self._dicom_destination(name)
        try:
            read = self._read(folder, name, files)
        except OSError as error:
            return {"state": QueryState.UNANSWERED.value, "held": [], "reason": _told(error)}
        timeout_seconds = self._config.delivery.timeout_seconds
        outcome = find_instances(destination, self._config.scp.ae_title, read, timeout_seconds)
        return {"state": outcome.state.value, "held": sorted(outcome.held), "reason": outcome.reason}

    def forget(self, transactions: list[str]) -> None:
        """Await no report any more."""
        try:
            for transaction_uid in transactions:
                Commitments(self._config.commitments_folder).forget(transaction_uid)
        except OSError as error:  # retention does it later
            log.warning("commitment_not_forgotten", reason=_told(error))

    # ---- what the steps share ------------------------------------------------------------------------------------

    def _destination(self, name: str) -> Destination | WebDestination:
        found = [each for each in self._config.destinations() if each.name == name]
        if not found:
            raise DeliveryError(f"destination {name} is no longer in the config")
        return found[0]

    def _dicom_destination(self, name: str) -> Destination:
        destination = self._destination(name)
        if not isinstance(destination, Destination):
            raise DeliveryError(f"{name}: a DICOMweb destination cannot be asked to commit")
        return destination

    def _read(self, folder: str, name: str, files: list[str]) -> list[Outgoing]:
        """What is to be sent.

        Raises:
            DeliveryError: a result is gone, or is no DICOM file.
            OSError: it cannot be read now.
        """
        try:
            return [read_outgoing(Path(folder) / file) for file in files]
        except (FileNotFoundError, InstanceRefused) as error:
            text = error.strerror if isinstance(error, FileNotFoundError) else str(error)
            raise DeliveryError(f"{name}: a result cannot be read: {text}") from None


def _told(error: OSError) -> str:
    """Trouble that may pass, in words; no path, for it may name a study."""
    return f"a file cannot be read or written now: {error.strerror or type(error).__name__}"
