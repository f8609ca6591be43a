"""What is ordered: one study, its selection, and the workflow id that both give. Headers only; no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from node import uids
from node.config import Config
from node.errors import RefusedError
from node.series.headers import read_study
from node.series.select import select
from node.series.vocabulary import load_vocabulary
from node.study import Contrast, Selection

METHOD_VERSION = "1"
"""Raised when the method would answer otherwise. An upgrade that changes nothing about it runs no study again."""


@dataclass(frozen=True, slots=True)
class Order:
    """One study to be processed: its selection, or the reason why there is none.

    ``study_instance_uid`` is empty for a folder that holds no study, or several.
    """

    workflow_id: str
    study_instance_uid: str
    selection: Selection | None
    refusal: str | None
    created: datetime


def order_study(study_folder: Path, config: Config, study_instance_uid: str = "") -> Order:
    """Select the series of the study in ``study_folder``; the same input always gives the same workflow id.

    ``study_instance_uid``: what the study is called should none of its files be readable.
    """
    created = datetime.now(UTC).astimezone()  # dates in SEG and SR are the place's, as the study's are
    try:
        study = read_study(study_folder)
    except RefusedError as error:
        files = (path for path in study_folder.rglob("*") if path.is_file())
        every = sorted(f"{path.relative_to(study_folder)} {path.stat().st_size}" for path in files)
        digest = uids.digest(("unreadable", study_instance_uid, *every))
        return Order(digest[:32], study_instance_uid, None, str(error), created)
    section = config.segmentation
    settings = (section.model, section.mode, section.precision, METHOD_VERSION)
    try:
        selection = select(study, load_vocabulary(dict(config.series.rules)))
    except RefusedError as error:
        every = sorted(instance.sop_instance_uid for series in study.series for instance in series.instances)
        digest = uids.digest(("refused", study.study_instance_uid, *every, *(name for name, _ in study.unreadable)))
        return Order(digest[:32], study.study_instance_uid, None, str(error), created)
    inputs = [
        f"{contrast} {instance.sop_instance_uid}"
        for contrast in Contrast
        if contrast in selection.chosen
        for instance in selection.chosen[contrast].instances
    ]
    return Order(uids.digest((*inputs, *settings))[:32], study.study_instance_uid, selection, None, created)


def with_earlier_moment(order: Order, folder: Path) -> Order:
    """``order`` as it was first made, if ``folder`` holds its result: doing it again then gives equal bytes."""
    file = folder / "result.json"
    if not file.is_file():
        return order
    result = json.loads(file.read_text("utf-8"))
    if result.get("workflow_id") != order.workflow_id:
        return order
    return replace(order, created=datetime.fromisoformat(result["created"]))
