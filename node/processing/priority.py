"""Which study is processed first: the rules of ``[[priority]]`` in the config, or what an admin gave by hand.

The rules are judged by the headers of one instance of each series in the spool. The calling AE title stands there, too:
the receiver writes it into each file's meta information, as Sending Application Entity Title (0002,0017) (PS3.10 7.1).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from pydicom import Dataset
from pydicom.filereader import dcmread
from pydicom.tag import BaseTag, Tag

from node.config import Config
from node.config_sections import PrioritySection
from node.dicom.character_sets import use_own_table
from node.errors import StudyError
from node.processing.request_sequence import workflows_of_study
from node.series.values import DICOM_UNREADABLE, text
from node.series.vocabulary import tokens
from node.workflow.client import WorkflowClient
from node.workflow.engine import ACTIVE
from node.workflow.priority_levels import BY_HAND, priority_of_level
from node.workflow.states import NORMAL_PRIORITY
from node.workflow.workflow_record import WorkflowRecord

log = structlog.get_logger()

_DESCRIPTIONS = ("StudyDescription", "SeriesDescription", "RequestedProcedureDescription")
_TAGS: list[BaseTag | int] = [
    Tag(keyword)
    for keyword in (*_DESCRIPTIONS, "RequestedProcedurePriority", "RequestAttributesSequence", "SpecificCharacterSet")
]


@dataclass(frozen=True, slots=True)
class PriorityFacts:
    """What the rules of the config ask for, as the instances of a study say it.

    Attributes:
        calling_ae_titles: the AE titles that sent instances.
        requested: values of Requested Procedure Priority (0040,1003).
        descriptions: the words of each description, in lower case and without accents.
    """

    calling_ae_titles: frozenset[str]
    requested: frozenset[str]
    descriptions: tuple[tuple[str, ...], ...]


def study_priority(config: Config, study_folder: Path, records: Sequence[WorkflowRecord]) -> int:
    """The priority of a new request: the one given by hand, else that of the first rule that matches, else normal."""
    given = [each.attributes[BY_HAND] for each in records if BY_HAND in each.attributes]
    if given and given[-1].isdecimal():
        return int(given[-1])
    if not config.priority:
        return NORMAL_PRIORITY
    facts = read_priority_facts(study_folder)
    matching = (rule for rule in config.priority if is_matching(rule, facts))
    return next((priority_of_level(rule.level) for rule in matching), NORMAL_PRIORITY)


def is_matching(rule: PrioritySection, facts: PriorityFacts) -> bool:
    """True if every condition of the rule holds; a condition holds if one of its values does."""
    if rule.calling_ae_titles and not facts.calling_ae_titles & {each.strip() for each in rule.calling_ae_titles}:
        return False
    if rule.requested_procedure_priority and not facts.requested & set(rule.requested_procedure_priority):
        return False
    terms = [tuple(tokens(word)) for word in rule.words]
    return not terms or any(_holds(words, term) for words in facts.descriptions for term in terms)


def _holds(words: tuple[str, ...], term: tuple[str, ...]) -> bool:
    """True if ``term`` stands in ``words``, word for word."""
    return any(words[start : start + len(term)] == term for start in range(len(words) - len(term) + 1))


def read_priority_facts(study_folder: Path) -> PriorityFacts:
    """The facts of the study's series, each by its first instance. A header that cannot be read has none."""
    senders: set[str] = set()
    requested: set[str] = set()
    descriptions: dict[tuple[str, ...], None] = {}
    for file in _first_instances(study_folder):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dataset = dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
                use_own_table(dataset)
                senders.update(_texts([dataset.file_meta], ("SendingApplicationEntityTitle",)))
                holders = [dataset, *(dataset.get("RequestAttributesSequence") or ())]
                requested.update(_texts(holders, ("RequestedProcedurePriority",)))
                found = list(_texts(holders, _DESCRIPTIONS))
        except DICOM_UNREADABLE as error:  # selection reports such an instance; it is no reason to hold the study up
            log.warning("priority_header_unreadable", file=file.name, kind=type(error).__name__)
            continue
        descriptions.update({tuple(tokens(each)): None for each in found})
    return PriorityFacts(frozenset(senders), frozenset(requested), tuple(descriptions))


def _first_instances(study_folder: Path) -> Iterator[Path]:
    """One file of each series folder."""
    for folder in sorted(study_folder.glob("*/")):
        first = min(folder.glob("*.dcm"), default=None)
        if first is not None:
            yield first


def _texts(holders: Iterable[Dataset], keywords: Iterable[str]) -> Iterator[str]:
    """The non-empty values of the attributes."""
    for holder in holders:
        for keyword in keywords:
            value: Any = text(holder.get(keyword))
            if value is not None:
                yield value


def change_priority(client: WorkflowClient, study_instance_uid: str, level: str | int) -> list[str]:
    """Give the study's waiting workflows another priority; returns their ids.

    Raises:
        StudyError: the study is unknown, or none of its workflows waits.
        EngineError: the database does not answer.
    """
    priority = priority_of_level(level)
    records = workflows_of_study(client, study_instance_uid)
    if not records:
        raise StudyError(f"study {study_instance_uid}: no workflow of it is known")
    changed = [
        each.workflow_id
        for each in records
        if each.engine_status in ACTIVE and client.change_priority(each.workflow_id, priority)
    ]
    if not changed:
        raise StudyError(f"study {study_instance_uid} does not wait: a worker has begun it, or it is over")
    for workflow_id in changed:
        client.describe(workflow_id, {BY_HAND: str(priority)})
    return changed
