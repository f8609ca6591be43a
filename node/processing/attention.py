"""What the administrator should know of a study beside its state: corrections, conflicts, withdrawals.

All of it is read from the spool; the texts hold UIDs and counts, never a value of a header.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from node.config import Config
from node.dicom import uids
from node.processing.input_state import InputState
from node.scp.aside import CONFLICTS, SUPERSEDED, versions
from node.scp.corrections import Corrections
from node.scp.withdrawals import WITHDRAWN, withdrawals_of
from node.workflow.client import WorkflowClient
from node.workflow.engine import NOTICE_QUEUE
from node.workflow.workflow_id import WorkflowId

HELD = "held"
"""Attribute of a workflow: why the study is not done anew although its inputs changed; empty: it is not held."""

CONFLICT, CORRECTED, IS_WITHDRAWN = "conflict", "corrected", "withdrawn"
"""What notices tell beside states of a study (``notify.states``)."""


def attention_of_studies(spool_folder: Path, studies: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Study Instance UID to sentences about its corrections, conflicts and withdrawals; only of ``studies`` with some.

    Nothing is read of other studies: an archive may reject instances of studies that this node never had.

    Raises:
        OSError: a folder or record cannot be read.
    """
    found: dict[str, list[str]] = {}
    for uid, count in _counts(spool_folder / CONFLICTS, studies):
        text = f"{count} instances are in conflict, and wait for a decision: `glionode conflicts {uid}`"
        found.setdefault(uid, []).append(text)
    for uid, count in _counts(spool_folder / SUPERSEDED, studies):
        found.setdefault(uid, []).append(f"{count} instances were corrected")
    for uid in _held_in(spool_folder / WITHDRAWN, studies):
        reasons = Counter(each.text for each in withdrawals_of(spool_folder, uid).values())
        texts = [f"{count} instances are withdrawn: {reason}" for reason, count in sorted(reasons.items())]
        if texts:
            found.setdefault(uid, []).extend(texts)
    return {uid: tuple(texts) for uid, texts in found.items()}


def _held_in(folder: Path, studies: Collection[str]) -> list[str]:
    try:
        return sorted(each.name for each in folder.iterdir() if each.name in studies)
    except FileNotFoundError:
        return []


def _counts(folder: Path, studies: Collection[str]) -> Iterator[tuple[str, int]]:
    """Study Instance UID and number of its instances with versions in ``folder``."""
    for uid in _held_in(folder, studies):
        instances = {each.sop_instance_uid for each in versions(folder, uid)}
        if instances:
            yield uid, len(instances)


def held_text(attributes: Mapping[str, str]) -> tuple[str, ...]:
    """The sentence that a study waits for the administrator; none if it does not."""
    why = attributes.get(HELD)
    if not why:
        return ()
    return (f"{why} since its report, and not done anew by itself (assembly.corrections): `glionode retry`",)


def history_of_inputs(spool_folder: Path, study_instance_uid: str) -> Iterator[tuple[datetime, str]]:
    """Corrections, conflicts and withdrawals of a study with their times, one event for each series and kind.

    Raises:
        OSError: a file cannot be read.
    """
    corrections = Corrections(spool_folder)
    events: dict[str, list[datetime]] = {}
    for each in corrections.corrections(study_instance_uid):
        series, differs = each.version.series_instance_uid, ", ".join(each.differs) or "nothing any more"
        text = f"corrected in series {series}; in use differs by {differs}"
        events.setdefault(text, []).append(each.replaced or each.arrived)
    for conflict in corrections.open_conflicts(study_instance_uid):
        series, differs = conflict.version.series_instance_uid, ", ".join(conflict.differs)
        text = f"in conflict with series {series}; differs by {differs}"
        events.setdefault(text, []).append(conflict.arrived)
    for withdrawal in withdrawals_of(spool_folder, study_instance_uid).values():
        text = f"withdrawn of series {withdrawal.series_instance_uid}: {withdrawal.text}"
        events.setdefault(text, []).append(withdrawal.since)
    for text, moments in events.items():
        yield max(moments), f"{len(moments)} instances {text}"


def notify_of_inputs(config: Config, client: WorkflowClient, study_instance_uid: str, state: InputState) -> None:
    """Enqueue a notice for each kind of change of the study's inputs, once for each set of changes.

    Raises:
        EngineError: the database does not answer.
    """
    hint = f"`glionode conflicts {study_instance_uid}`" if not config.log.hide_uids else "`glionode conflicts`"
    told = {
        CONFLICT: (state.conflicts, f"{len(state.conflicts)} versions of instances wait for a decision: {hint}"),
        CORRECTED: (
            [line for line in state.changes if line.startswith("superseded")],
            f"{len(state.superseded)} instances were corrected",
        ),
        IS_WITHDRAWN: ([line for line in state.changes if line.startswith("withdrawn")], state.withdrawn_text),
    }
    for name, (lines, text) in told.items():
        if config.notify.urls and name in config.notify.states and lines:
            digest = uids.digest((study_instance_uid, name, *lines))[:32]
            arguments = (name, study_instance_uid, text)
            attributes = {"study_instance_uid": study_instance_uid}
            notice = WorkflowId(digest).notice_of(name)
            client.enqueue(NOTICE_QUEUE, "notice", str(notice), *arguments, attributes=attributes)
