"""What is ordered: one study, its selection, and the workflow id that both give. Headers only; no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from node.config import Config
from node.dicom import uids
from node.errors import RefusedError, SelectionRefused, SelectionUndecided
from node.series.headers import read_study
from node.series.select import Choice, select
from node.series.vocabulary import load_vocabulary
from node.study import Comparison, Contrast, Selection, Series, Study

Compare = Callable[[Series, Series], Comparison]

METHOD_VERSION = "1"
"""Raised when the method would answer otherwise. An upgrade that changes nothing about it runs no study again."""


@dataclass(frozen=True, slots=True)
class ProcessingRequest:
    """One study to be processed: its selection, or the reason why there is none.

    Attributes:
        workflow_id: digest of what is to be done; also names the results' folder and gives their UIDs.
        study_instance_uid: empty for a folder that holds no study, or several.
        created: when it was first ordered.
        model: the pack that is to run.
        folder: where the study's instances lie.
        is_undecided: only images can tell which T1 series is after contrast; the worker compares them.
        use: series chosen by hand.
        considered: the verdict on every series of a study whose selection was refused.
        earlier: ids of the study's orders before this one, newest first: the latest of them with a report is replaced.
        instances: digest of all instances that were looked at, chosen or not.
        force: a human asked for it again: it runs, be its result known or not.
    """

    workflow_id: str
    study_instance_uid: str
    selection: Selection | None
    refusal: str | None
    created: datetime
    model: str = ""
    folder: Path = Path()
    is_undecided: bool = False
    earlier: tuple[str, ...] = ()
    instances: str = ""
    force: bool = False
    use: dict[Contrast, str] = field(default_factory=dict)
    considered: Selection | None = None

    def as_json(self) -> str:
        """Plain text for the engine's database, which the next version of glionode can read, too."""
        return _ORDERS.dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> ProcessingRequest:
        """What ``as_json`` gave."""
        return _ORDERS.validate_json(text)


_ORDERS = TypeAdapter(ProcessingRequest)


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What the orderer asks for beyond the study itself.

    Attributes:
        study_instance_uid: what the study is called should none of its files be readable.
        series: Series Instance UIDs to look at; None: all.
        use: which series (UID or number) is to be taken for a contrast, whatever its words say.
    """

    study_instance_uid: str = ""
    series: frozenset[str] | None = None
    use: Mapping[Contrast, str] = field(default_factory=dict)


def build_request(
    study_folder: Path, config: Config, options: RequestOptions | None = None, compare: Compare | None = None
) -> ProcessingRequest:
    """Select the series of the study in ``study_folder``; the same input always gives the same workflow id.

    ``compare``: tells by images which of two series is after contrast; without it such a study stays undecided.
    """
    options = options or RequestOptions()
    created = datetime.now(UTC).astimezone()  # dates in SEG and SR are the place's, as the study's are
    model = config.segmentation.model
    try:
        study = _only(read_study(study_folder), options.series)
    except RefusedError as error:
        files = (path for path in study_folder.rglob("*") if path.is_file())
        every = sorted(f"{path.relative_to(study_folder)} {path.stat().st_size}" for path in files)
        digest = uids.digest(("unreadable", options.study_instance_uid, *every))
        unread = ProcessingRequest(
            digest[:32], options.study_instance_uid, None, str(error), created, model, study_folder
        )
        return replace(unread, instances=_digest_of_instances(every))
    every = sorted(instance.sop_instance_uid for series in study.series for instance in series.instances)
    names = [name for name, _ in study.unreadable]
    looked_at = _digest_of_instances((*every, *names))
    by_hand = [f"{contrast}={options.use[contrast]}" for contrast in Contrast if contrast in options.use]
    try:
        selection, model = _selected(study, config, options, compare)
    except RefusedError as error:
        digest = uids.digest(("refused", study.study_instance_uid, *every, *names, *by_hand))
        refused = ProcessingRequest(
            digest[:32], study.study_instance_uid, None, str(error), created, model, study_folder
        )
        considered = error.considered if isinstance(error, SelectionRefused) else None
        is_undecided = isinstance(error, SelectionUndecided)
        refused = replace(refused, is_undecided=is_undecided, use=dict(options.use), considered=considered)
        return replace(refused, instances=looked_at)
    inputs = [
        f"{contrast} {instance.sop_instance_uid}"
        for contrast in Contrast
        if contrast in selection.chosen
        for instance in selection.chosen[contrast].instances
    ]
    settings = (model, config.segmentation.mode, config.segmentation.precision, METHOD_VERSION)
    digest = uids.digest((*inputs, *settings))
    request = ProcessingRequest(digest[:32], study.study_instance_uid, selection, None, created, model, study_folder)
    return replace(request, instances=looked_at)


def instances_by_name(study_folder: Path) -> str:
    """``ProcessingRequest.instances`` of a study in the spool, from its files' names; right if every file can be read.

    Raises:
        OSError: a folder cannot be listed.
    """
    return _digest_of_instances(sorted(path.stem for path in study_folder.glob("*/*.dcm")))


def _digest_of_instances(names: Iterable[str]) -> str:
    return uids.digest(names)[:32]


def _only(study: Study, series: frozenset[str] | None) -> Study:
    if series is None:
        return study
    return replace(study, series=tuple(each for each in study.series if each.series_instance_uid in series))


def _selected(study: Study, config: Config, options: RequestOptions, compare: Compare | None) -> tuple[Selection, str]:
    """The selection and the pack it is for: that of all four contrasts, else the one that needs T1c only."""
    section, vocabulary = config.series, load_vocabulary(dict(config.series.rules))
    choice = Choice(use=options.use, shortfall=section.shortfall)
    try:
        return select(study, vocabulary, choice, compare), config.segmentation.model
    except SelectionUndecided as error:
        if section.compare_images:
            raise
        raise SelectionRefused(str(error), error.considered) from None
    except SelectionRefused as error:
        if not config.segmentation.t1c_only_model:
            raise
        try:
            found = select(study, vocabulary, replace(choice, needed=(Contrast.T1C,)), compare)
        except SelectionUndecided:
            if section.compare_images:
                raise
            raise error from None
        except SelectionRefused:
            raise error from None
        caution = f"the T1c-only model was used, for the four contrasts are not all there: {error}"
        only = {Contrast.T1C: found.chosen[Contrast.T1C]}
        return replace(found, chosen=only, cautions=(caution, *found.cautions)), config.segmentation.t1c_only_model


def with_first_creation_time(request: ProcessingRequest, folder: Path) -> ProcessingRequest:
    """``order`` as it was first made, if ``folder`` holds its result: doing it again then gives equal bytes."""
    file = folder / "result.json"
    if not file.is_file():
        return request
    result = json.loads(file.read_text("utf-8"))
    if result.get("workflow_id") != request.workflow_id:
        return request
    return replace(request, created=datetime.fromisoformat(result["created"]))


def attempt_of(workflow_id: str) -> int:
    """Which attempt at its study the workflow called so is: ``<digest>`` is the first, ``<digest>.2`` the second."""
    return int(workflow_id.partition(".")[2] or 1)


def order_of(workflow_id: str) -> str:
    """The order that the workflow called so, or a delivery of its results, is an attempt at."""
    return workflow_id.partition("-")[0].partition(".")[0]


def attempt_id(request_workflow_id: str, attempt: int) -> str:
    """The id that the engine knows an attempt by; its results keep the order's."""
    return request_workflow_id if attempt == 1 else f"{request_workflow_id}.{attempt}"
