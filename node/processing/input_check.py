"""Checks of a request's instances when its results are made: unchanged since, and of one patient and one study."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import pydicom

from node.dicom.character_sets import use_own_table
from node.dicom.patient_match import differing_attributes, identity_of_patient
from node.errors import InputsChanged, InstanceRefused
from node.processing.input_state import chosen_instances, chosen_versions, read_state
from node.processing.request import ProcessingRequest
from node.series.values import DICOM_UNREADABLE

_STUDY_IDENTITY = {
    "AccessionNumber": "(0008,0050) Accession Number",
    "StudyID": "(0020,0010) Study ID",
    "StudyDate": "(0008,0020) Study Date",
}


def check_inputs(request: ProcessingRequest) -> None:
    """Check that the chosen instances are still those that the request was made for, and name one patient and study.

    The second only for a study with corrections or with regions used again: all others are checked when their volumes
    are read.

    Raises:
        InputsChanged: an instance was corrected or withdrawn since.
        InstanceRefused: the instances name two patients or studies, for example while only a part is corrected.
        OSError: a file cannot be read.
    """
    if request.selection is None:
        return
    state = read_state(request.folder)
    state = state.without_expired() if request.keeps_expired else state
    withdrawn = [each for each in chosen_instances(request.selection) if each.sop_instance_uid in state.withdrawn]
    if withdrawn or chosen_versions(request.selection, state).digest != request.versions:
        what = "withdrawn" if withdrawn else "corrected"
        raise InputsChanged(f"instances were {what} since the study was ordered; it is ordered again when it is stable")
    if not request.versions and not request.regions_of:
        return
    from node.segmentation.exam_reader import check_patient

    chosen = [each.path for each in chosen_instances(request.selection)]
    corrected = sum(path in state.superseded for path in chosen)
    try:
        check_patient(request.selection)
        if 0 < corrected < len(chosen):
            _check_study(chosen)
    except InstanceRefused as error:
        if not 0 < corrected < len(chosen):
            raise
        partly = f"only {corrected} of the {len(chosen)} instances used are corrected so far"
        raise InstanceRefused(f"{error}; {partly}, and the study is judged again when others arrive") from None


def _check_study(paths: Iterable[Path]) -> None:
    """Check that the instances of a study corrected in part name one study.

    Raises:
        InstanceRefused: they do not; the text names the attributes.
    """
    found: dict[str, set[str]] = {keyword: set() for keyword in _STUDY_IDENTITY}
    for path in paths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, specific_tags=list(found), stop_before_pixels=True)
        for keyword, values in found.items():
            values |= {str(header.get(keyword) or "").strip()} - {""}
    differing = [_STUDY_IDENTITY[keyword] for keyword, values in found.items() if len(values) > 1]
    if differing:
        raise InstanceRefused(f"the instances used differ in {' and '.join(differing)}")


def any_header(request: ProcessingRequest) -> pydicom.Dataset | None:
    """The header of the first readable instance of the study, for the patient and study modules.

    None, if the instances name two patients, say while only a part is corrected: nothing is sent under either name.
    What is withdrawn does not count, for the name in it may be what was wrong.

    Raises:
        OSError: a record of withdrawals cannot be read.
    """
    withdrawn = read_state(request.folder).withdrawn
    found: pydicom.Dataset | None = None
    identities = []
    for file in sorted(path for path in request.folder.rglob("*") if path.is_file()):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
            use_own_table(header)
            identity = identity_of_patient(header)
        except DICOM_UNREADABLE:
            continue
        if header.get("SOPInstanceUID") in withdrawn:
            continue
        if header.get("StudyInstanceUID") == request.study_instance_uid:
            found = found or header
            identities.append(identity)
    return None if differing_attributes(identities) else found
