"""The request to process one study: its selection, and the digest that names it. Headers only; no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, Field, TypeAdapter, ValidationError

from node.config import Config
from node.dicom import uids
from node.errors import RefusedError, SelectionRefused, SelectionUndecided, UnreadableRecordError
from node.processing.input_state import InputState, chosen_versions, read_state, without_withdrawn
from node.processing.method_choice import chosen_method, pack_identity
from node.series.by_images import Compare
from node.series.headers import read_study
from node.series.select import Choice
from node.series.subject import with_subject
from node.study import Contrast, Selection, Series, Study
from node.workflow.serialization import why_invalid

WhyUnusable = Callable[[Series], str | None]
"""Why a series cannot become a volume, as its pixels show; None if it can."""

METHOD_VERSION = "1"
"""Increased when the method gives other results; an upgrade that leaves it unchanged processes no study again."""


@dataclass(frozen=True, slots=True)
class ProcessingRequest:
    """One study to be processed: its selection, or the reason why there is none.

    Attributes:
        workflow_id: digest of the selected instances, the model, the settings and the method's version. It names the
            workflow of the first attempt and the results' folder, and the results' UIDs are derived from it.
        study_instance_uid: empty for a folder that holds no study, or several.
        created: when the request was first made.
        model: the pack that is to run.
        folder: where the study's instances lie.
        is_undecided: only images can decide which T1 series is after contrast; the worker compares them.
        use: series chosen by hand.
        considered: the verdict on every series of a study whose selection was refused.
        earlier: digests of the study's requests before this one, newest first; this request's report replaces that of
            the latest one that has a report.
        instances: digest of all instances of the study that were read, chosen or not.
        regions_of: digest of the earlier request of the same series and settings, whose regions are used again, because
            only the words of the report differ; empty: none.
        force: an admin requested the study again: it is processed even if its results exist.
        versions: digest of the versions of the chosen instances that are in use; empty: none was corrected.
        images: of a request with ``versions``: what names its images whatever identity they have; requests of equal
            ``images`` have the same regions.
        revision: digest of all corrections and withdrawals of the study; empty: there are none.
        keeps_expired: what an archive's retention policy withdrew is input, since the study was reported before.
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
    force: Annotated[bool, Field(validation_alias=AliasChoices("force", "is_by_hand"))] = False  # 0.1.0's name
    use: dict[Contrast, str] = field(default_factory=dict)
    considered: Selection | None = None
    regions_of: str = ""
    versions: str = ""
    images: str = ""
    revision: str = ""
    keeps_expired: bool = False

    def as_json(self) -> str:
        """The request as JSON for the engine's database; later versions of glionode must be able to read it."""
        return _REQUESTS.dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> ProcessingRequest:
        """The request that ``as_json`` of this or an earlier version wrote; unknown keys are ignored.

        Raises:
            UnreadableRecordError: it is no request.
        """
        try:
            return _REQUESTS.validate_json(text)
        except ValidationError as error:
            raise UnreadableRecordError(why_invalid(error)) from None


_REQUESTS = TypeAdapter(ProcessingRequest)


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """How a request differs from the automatic one.

    Attributes:
        study_instance_uid: the study's UID in case none of its files can be read.
        series: Series Instance UIDs to be considered; None: all.
        use: contrast to the series (UID or number) that is taken for it, whatever its description says.
        keeps_expired: as `ProcessingRequest.keeps_expired`.
        surgery_seen: what the images show of surgery, one sentence each.
    """

    study_instance_uid: str = ""
    series: frozenset[str] | None = None
    use: Mapping[Contrast, str] = field(default_factory=dict)
    keeps_expired: bool = False
    surgery_seen: tuple[str, ...] = ()


def build_request(
    study_folder: Path,
    config: Config,
    options: RequestOptions | None = None,
    compare: Compare | None = None,
    why_unusable: WhyUnusable | None = None,
) -> ProcessingRequest:
    """Select the series of the study in ``study_folder``; equal input always gives an equal ``workflow_id``.

    A study that cannot be read or selected gives a request with ``refusal``.

    Args:
        compare: decides by images which of two series is after contrast; None: such a study stays undecided.
        why_unusable: reads the pixels of each chosen series; one that it refuses is replaced by the runner-up. None:
            headers alone decide.
    """
    options = options or RequestOptions()
    state = read_state(study_folder)
    known = state.lines
    state = state.without_expired() if options.keeps_expired else state
    draft = ProcessingRequest(
        "", options.study_instance_uid, None, None, datetime.now(UTC).astimezone(), config.segmentation.models[0],
        study_folder, use=dict(options.use), revision=state.revision, keeps_expired=options.keeps_expired,
    )  # fmt: skip
    try:
        study = _only(read_study(study_folder), options.series)
    except RefusedError as error:
        files = (path for path in study_folder.rglob("*") if path.is_file())
        every = sorted(f"{path.relative_to(study_folder)} {path.stat().st_size}" for path in files)
        digest = uids.digest(("unreadable", options.study_instance_uid, *every, *state.changes))
        draft = replace(draft, workflow_id=digest[:32], refusal=str(error))
        return replace(draft, instances=_digest_of_instances((*every, *known)))
    every = sorted(instance.sop_instance_uid for series in study.series for instance in series.instances)
    names = [name for name, _ in study.unreadable]
    looked_at = _digest_of_instances((*every, *names, *known))
    draft = replace(draft, study_instance_uid=study.study_instance_uid, instances=looked_at)
    by_hand = [f"{contrast}={options.use[contrast]}" for contrast in Contrast if contrast in options.use]
    try:
        left = without_withdrawn(study, state)
        selection, model = _usable_selection(left, config, options, compare, why_unusable)
    except RefusedError as error:
        digest = uids.digest(("refused", study.study_instance_uid, *every, *names, *by_hand, *state.changes))
        reason = "; ".join(filter(None, (str(error), state.withdrawn_text)))
        considered = error.considered if isinstance(error, SelectionRefused) else None
        is_undecided = isinstance(error, SelectionUndecided)
        refused = replace(draft, workflow_id=digest[:32], refusal=reason, considered=considered)
        return replace(refused, is_undecided=is_undecided)
    return _named(replace(draft, selection=selection, model=model), config, state)


def _named(request: ProcessingRequest, config: Config, state: InputState) -> ProcessingRequest:
    """``request`` with the digests that its selection and the versions of the chosen instances give."""
    assert request.selection is not None
    inputs = [
        " ".join((str(contrast), instance.sop_instance_uid, *map(str, instance.frames)))
        for contrast in Contrast
        if contrast in request.selection.chosen
        for instance in request.selection.chosen[contrast].instances
    ]
    pack = pack_identity(request.model, config.models_folder)
    settings = [pack, config.segmentation.mode, config.segmentation.precision, METHOD_VERSION]
    if config.clinical.postoperative == "refuse":  # else as before this setting existed
        settings.append("post-operative exams are refused")
    digest = uids.digest((*inputs, *settings))[:32]
    found = chosen_versions(request.selection, state)
    if not found.digest:
        return replace(request, workflow_id=digest)
    images = uids.digest((digest, "images", *found.images))[:32] if found.images else digest
    corrected = uids.digest((images, "corrected", *found.corrected))[:32]
    return replace(request, workflow_id=corrected, images=images, versions=found.digest)


def instances_by_name(study_folder: Path) -> str:
    """``ProcessingRequest.instances`` of a study in the spool, from its file names; valid if every file can be read.

    Raises:
        OSError: a folder cannot be listed.
    """
    names = sorted(path.stem for path in study_folder.glob("*/*.dcm"))
    return _digest_of_instances((*names, *read_state(study_folder).lines))


def _digest_of_instances(names: Iterable[str]) -> str:
    return uids.digest(names)[:32]


def _only(study: Study, series: frozenset[str] | None) -> Study:
    if series is None:
        return study
    return replace(study, series=tuple(each for each in study.series if each.series_instance_uid in series))


def _usable_selection(
    study: Study,
    config: Config,
    options: RequestOptions,
    compare: Compare | None,
    why_unusable: WhyUnusable | None,
) -> tuple[Selection, str]:
    """`chosen_method`, again without the series that ``why_unusable`` refuses, until it refuses none."""
    unusable: dict[tuple[str, str], str] = {}
    while True:
        choice = Choice(use=options.use, shortfall=config.series.shortfall, unusable=unusable)
        selection, model = chosen_method(study, config, choice, compare, options.surgery_seen)
        reasons = {series.key: why_unusable(series) for series in selection.chosen.values()} if why_unusable else {}
        refused = {key: reason for key, reason in reasons.items() if reason is not None}
        if not refused:
            return with_subject(selection), model
        unusable |= refused


def with_first_creation_time(request: ProcessingRequest, folder: Path) -> ProcessingRequest:
    """``request`` with the creation time from ``folder/result.json`` if that file is its result.

    Processing it again then gives byte-identical SEG and SR under the same UIDs.
    """
    try:
        result = json.loads((folder / "result.json").read_text("utf-8"))
    except FileNotFoundError:
        return request
    if result.get("workflow_id") != request.workflow_id:
        return request
    return replace(request, created=datetime.fromisoformat(result["created"]))
