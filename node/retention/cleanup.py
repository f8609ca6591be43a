"""Deletes inputs, results and unanswered requests for storage commitment that may be deleted.

``retention_status.py`` decides why inputs are held; ``scp/removal.py`` deletes a study's folder. The inputs of a study
are deleted before its results. In case of doubt, nothing is deleted. A study that cannot be judged or deleted is
logged, and the others are still deleted.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from node.config import Config
from node.dicom.commitment import Commitments
from node.dicom.uids import is_valid_uid
from node.processing.deleted_results import note_deletion
from node.processing.request_records import INPUTS_DELETED, study_of
from node.processing.study_ledger import open_ledger
from node.processing.study_status import StudyStatus, read_study_statuses
from node.retention.database_cleanup import delete_study_records
from node.retention.retention_status import (
    RetentionStatus,
    has_results,
    is_clock_behind,
    retention_statuses,
    why_undelivered,
)
from node.scp.removal import Contents, is_held, remove_folder, remove_rest, remove_study, take_up_leftovers
from node.workflow.engine import ACTIVE
from node.workflow.workflow_id import WorkflowId

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RetentionSnapshot:
    """Database and spool at one moment. ``unfinished``: ids of the workflows that have not ended."""

    now: datetime
    lines: list[StudyStatus]
    held: list[RetentionStatus]
    unfinished: frozenset[str]


@dataclass(frozen=True, slots=True)
class CleanupResult:
    """The deleted items: Study Instance UIDs of inputs, names of results' folders, number of commitment requests."""

    studies: list[str]
    results: list[str]
    commitments: int


def take_snapshot(config: Config) -> RetentionSnapshot:
    """Read database and spool, and determine the retention status of every study.

    Raises:
        EngineError: the database does not answer, or is missing although there are studies or results.
    """
    with open_ledger(config) as client:
        if client is None:
            return RetentionSnapshot(datetime.now(UTC), [], [], frozenset())
        requests = [each for each in client.workflows("process") if each.engine_status in ACTIVE]
        deliveries = [each for each in client.workflows("deliver") if each.engine_status in ACTIVE]
        lines = read_study_statuses(config, client)
    processing = frozenset(study_of(each) for each in requests)
    now = datetime.now(UTC)
    unfinished = frozenset(each.workflow_id for each in (*requests, *deliveries))
    return RetentionSnapshot(now, lines, retention_statuses(config, lines, now, processing), unfinished)


def clean(
    config: Config, held: list[RetentionStatus], dry_run: bool, is_needed: Callable[[str], bool] = lambda _: False
) -> list[str]:
    """Delete the inputs that may be deleted; return their Study Instance UIDs. ``dry_run``: only list them.

    Deletions that a crash interrupted are finished or undone first. A study that cannot be deleted from the disk is
    logged and kept. A study is also kept if ``is_needed`` says that it was requested since ``held`` was determined.
    """
    deletable = [each for each in held if each.held_because is None]
    if dry_run:
        return [each.study_instance_uid for each in deletable]
    gone = []
    with _alone(config):
        _settle(take_up_leftovers, config.spool_folder)
        for each in deletable:
            expected = Contents(each.instances, each.bytes, each.arrived, None)
            try:
                is_gone = remove_study(config.spool_folder, each.study_instance_uid, expected, is_needed)
            except OSError as error:
                log.error("input_not_deleted", study_instance_uid=each.study_instance_uid, reason=error.strerror)
                continue
            if is_gone:
                gone.append(each.study_instance_uid)
                facts = {"instances": each.instances, "bytes": each.bytes}
                log.info("input_deleted", study_instance_uid=each.study_instance_uid, **facts)
    return gone


@contextmanager
def _alone(config: Config) -> Iterator[None]:
    """Lock: only one process deletes at a time, a worker or the command line."""
    with (config.folder / "retention.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def clean_results(config: Config, snapshot: RetentionSnapshot, gone: Collection[str], dry_run: bool) -> list[str]:
    """Delete results that are old enough; return their folders' names. ``gone``: studies with inputs just deleted."""
    if is_clock_behind(snapshot.lines, snapshot.now):
        return []
    by_folder = {line.folder: line for line in snapshot.lines if line.folder}
    studies = {line.study_instance_uid for line in snapshot.lines}
    busy = {WorkflowId.parse(workflow_id).digest for workflow_id in snapshot.unfinished}
    deleted = []
    with _alone(config):
        if not dry_run:
            _settle(remove_rest, config.work_folder)
        for folder in sorted(config.work_folder.glob("[!.]*")):
            try:
                since = _results_since(config, folder, by_folder.get(folder.name), studies)
                if since is None or folder.name in busy or not _is_past(config, since[1], snapshot.now):
                    continue
                if since[0] in gone or not is_held(config.spool_folder, since[0]):
                    if not dry_run:
                        note_deletion(folder)
                        remove_folder(folder)
                    deleted.append(folder.name)
            except (OSError, ValueError) as error:  # an error of the disk, or an invalid result.json
                log.error("results_not_deleted", folder=folder.name, kind=type(error).__name__)
    return deleted


def _settle(leftovers: Callable[[Path], object], folder: Path) -> None:
    try:
        leftovers(folder)
    except OSError as error:
        log.error("leftovers_not_removed", reason=error.strerror)


def _is_past(config: Config, moment: datetime, now: datetime) -> bool:
    return moment <= now and now - moment >= timedelta(days=min(config.retention.result_days, 36500))


def _results_since(
    config: Config, folder: Path, line: StudyStatus | None, studies: Collection[str]
) -> tuple[str, datetime] | None:
    """The study of these results, and the moment from which their days are counted; None: the results are kept."""
    if line is not None:
        is_over = line.state == "refused" or (has_results(config, line) and not why_undelivered(config, line))
        return (line.study_instance_uid, line.since) if is_over else None
    file = folder / "result.json"
    try:
        result, written = json.loads(file.read_text("utf-8")), file.stat().st_mtime
    except FileNotFoundError:
        return None
    uid = str(result.get("study_instance_uid") if isinstance(result, dict) else None)
    # the study's latest workflow has another folder: these results are superseded
    return (uid, datetime.fromtimestamp(written, UTC)) if uid in studies else None


def clean_commitments(config: Config, snapshot: RetentionSnapshot) -> int:
    """Delete unanswered requests for storage commitment that no workflow waits for; return their number."""
    commitments, count = Commitments(config.commitments_folder), 0
    for file in sorted(config.commitments_folder.glob("*.json")):
        try:
            if not is_valid_uid(file.stem) or commitments.workflow_of(file.stem) in snapshot.unfinished:
                continue
            if _is_past(config, datetime.fromtimestamp(file.stat().st_mtime, UTC), snapshot.now):
                commitments.forget(file.stem)
                count += 1
        except FileNotFoundError:  # answered in the meantime
            continue
        except (OSError, ValueError, LookupError) as error:
            log.error("commitment_not_deleted", kind=type(error).__name__)
    return count


def clean_all(config: Config, snapshot: RetentionSnapshot, dry_run: bool) -> CleanupResult:
    """Delete all that may be deleted (``dry_run``: only list it).

    Raises:
        EngineError: the database does not answer, or is missing although there are studies or results.
    """
    with open_ledger(config) as client:
        if client is None:
            return CleanupResult([], [], 0)

        def is_needed(uid: str) -> bool:
            requests = client.workflows("process", attributes={"study_instance_uid": uid})
            if any(each.engine_status in ACTIVE for each in requests):
                return True
            if requests:
                client.describe(requests[-1].workflow_id, {INPUTS_DELETED: "yes"})
            return False

        studies = clean(config, snapshot.held, dry_run, is_needed)
    results = clean_results(config, snapshot, studies, dry_run)
    return CleanupResult(studies, results, 0 if dry_run else clean_commitments(config, snapshot))


def retention_round(config: Config) -> dict[str, int]:
    """Delete all that may be deleted, if retention is enabled; return counts. May run twice, and while the node runs.

    Logs every exception, because no caller does.

    Raises:
        EngineError: the database does not answer.
        OSError: spool or work folder cannot be listed.
    """
    if not config.retention.enabled:
        return {}
    with ExitStack() as stack:
        stack.push(_tell_failure)
        return _round(config)


def _tell_failure(kind: type[BaseException] | None, *_: object) -> None:
    if kind is not None:
        log.error("retention_round_failed", kind=kind.__name__)


def _round(config: Config) -> dict[str, int]:
    snapshot = take_snapshot(config)
    sizes = {each.study_instance_uid: each.bytes for each in snapshot.held}
    cleaned = clean_all(config, snapshot, dry_run=False)
    delete_study_records(config, snapshot.lines, lambda moment: _is_past(config, moment, snapshot.now))
    counts = {
        "studies": len(cleaned.studies),
        "bytes": sum(sizes[uid] for uid in cleaned.studies),
        "studies_held": len(snapshot.held) - len(cleaned.studies),
        "results": len(cleaned.results),
        "commitments": cleaned.commitments,
    }
    log.info("retention_round", **counts)
    return counts
