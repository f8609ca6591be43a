"""The series that an administrator chose by hand, when the study is processed again by itself.

The choice belongs to the study's latest workflow, as an attribute of it, and goes over to the next one, whatever made
the node process the study again. An order of the administrator that names no series ends it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from node.errors import RefusedError, UnreadableRecordError
from node.processing.input_state import InputState, without_withdrawn
from node.processing.request import ProcessingRequest
from node.processing.request_records import CHOICE_LOST
from node.series.headers import read_study
from node.study import Contrast
from node.workflow.serialization import why_invalid
from node.workflow.workflow_record import WorkflowRecord

BY_HAND = "by-hand"
"""Attribute of a workflow: the series that were chosen by hand, as JSON; absent where none was."""

_CHOICES = TypeAdapter(dict[Contrast, str])


@dataclass(frozen=True, slots=True)
class EarlierChoice:
    """What is left of a choice by hand. ``lost``: a sentence about what is not; empty: nothing is lost."""

    use: Mapping[Contrast, str] = field(default_factory=dict)
    lost: str = ""


def choice_attributes(request: ProcessingRequest, lost: str = "") -> dict[str, str]:
    """The attributes of the request's workflow that tell its choice by hand, and what was lost of an earlier one."""
    use = {contrast: _by_uid(request, contrast, name) for contrast, name in request.use.items()}
    told = {BY_HAND: _CHOICES.dump_json(use).decode() if use else "", CHOICE_LOST: lost}
    return {name: value for name, value in told.items() if value}


def _by_uid(request: ProcessingRequest, contrast: Contrast, name: str) -> str:
    """The chosen series by its UID, since a correction may give it another number."""
    chosen = request.selection.chosen.get(contrast) if request.selection else None
    whole, slash, part = name.strip().partition("/")
    return f"{chosen.series_instance_uid if chosen else whole}{slash}{part}"


def earlier_choice(records: Sequence[WorkflowRecord], study_folder: Path, state: InputState) -> EarlierChoice:
    """What is left of the choice that the study's latest workflow was ordered with.

    Raises:
        UnreadableRecordError: the workflow's record of it is damaged.
        OSError: a file cannot be read.
    """
    text = records[-1].attributes.get(BY_HAND, "") if records else ""
    if not text:
        return EarlierChoice()
    try:
        use = _CHOICES.validate_json(text)
    except ValidationError as error:
        raise UnreadableRecordError(why_invalid(error)) from None
    try:
        left = without_withdrawn(read_study(study_folder), state)
    except RefusedError:  # the request is refused for the same reason, and the choice is that of the next one
        return EarlierChoice(use)
    names = {
        str(name) for each in left.series if each.instances for name in (each.series_instance_uid, each.series_number)
    }
    kept = {contrast: name for contrast, name in use.items() if name.partition("/")[0] in names}
    gone = [f"{contrast} series {name[:70]}" for contrast, name in use.items() if contrast not in kept]
    why = f"no longer input: {', '.join(gone)}; chosen by hand before, and now by the rules" if gone else ""
    return EarlierChoice(kept, why)
