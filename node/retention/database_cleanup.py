"""Deletes the database records of studies whose inputs and results are deleted, so that the database stays bounded.

If such a study is sent again, the node processes it again. Its results get the same UIDs as before if they are made of
the same instances; of corrected ones, they get UIDs of their own (`node.processing.deleted_results`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import datetime
from pathlib import Path

import structlog

from node.config import Config
from node.processing.study_status import StudyStatus
from node.scp.removal import is_held
from node.scp.withdrawals import remove_withdrawals
from node.workflow.client import WorkflowClient
from node.workflow.engine import ACTIVE
from node.workflow.states import StudyState

log = structlog.get_logger()

_OVER = (
    StudyState.REFUSED,
    StudyState.REPORTED,
    StudyState.DELIVERED,
    StudyState.PRESENT,
    StudyState.COMMITTED,
    StudyState.CANCELLED,
)


def delete_study_records(
    config: Config, lines: Iterable[StudyStatus], is_past: Callable[[datetime], bool]
) -> list[str]:
    """Delete the records of finished studies without inputs and results, once the days that results are kept are over.

    Returns the UIDs of these studies. ``is_past``: whether the days that results are kept have passed since a moment.

    Raises:
        EngineError: the database does not answer.
        OSError: the folder of results cannot be read.
    """
    current = {line.folder: line for line in lines if line.folder}
    due = {
        line.study_instance_uid
        for name, line in current.items()
        if line.state in _OVER and is_past(line.since) and not (config.work_folder / name).exists()
    }
    if not due or not config.work_folder.is_dir():
        return []
    due -= {_study_of(folder) for folder in config.work_folder.glob("[!.]*") if folder.name not in current}
    forgotten = []
    with closing(WorkflowClient(config, creates=False)) as client:
        workflows, active = defaultdict(list), set()
        for record in (each for name in ("process", "deliver", "notice") for each in client.workflows(name)):
            uid = record.attributes.get("study_instance_uid", "")
            workflows[uid].append(record.workflow_id)
            if record.engine_status in ACTIVE:
                active.add(uid)
        for uid in sorted(due - active):
            if not is_held(config.spool_folder, uid):
                client.delete(workflows[uid])
                remove_withdrawals(config.spool_folder, uid)
                forgotten.append(uid)
                log.info("study_records_deleted", study_instance_uid=uid)
    return forgotten


def _study_of(folder: Path) -> str:
    """The study of superseded results, which must be deleted before the study's records; empty: unknown."""
    try:
        return str(json.loads((folder / "result.json").read_text("utf-8")).get("study_instance_uid"))
    except FileNotFoundError:
        return ""
