"""The digests that decide "processed already", against those that version 0.1.0 computed.

A change of any of them makes the node process every study of its spool again: raise METHOD_VERSION if that is meant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cards import know_cards, make_card
from small_study import make_small_study, write_small_study

from node.config import Config, build_config
from node.dicom.uids import derived_uid
from node.processing.request import RequestOptions, build_request, instances_by_name
from node.study import Contrast

ALL_INSTANCES, WITHOUT_FLAIR = "c4635a9848eaf801178c8288e12ea6e5", "33e63af9f25a55449412ef6c90b628e2"


def config_with(**segmentation: Any) -> Config:
    """A config with these keys of [segmentation]."""
    return build_config({"node": {"folder": "/nowhere"}, "segmentation": segmentation})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("segmentation", "digest"),
    [
        ({}, "2d9435755b7c6265e7e1301d276f3592"),
        ({"mode": "published"}, "b376e4def8d1396acaf825e72ffc465f"),
        ({"precision": "bfloat16"}, "2028fee43aa861b3e0ea0d66861bd4b5"),
        ({"device": "cpu", "threads": 1}, "2d9435755b7c6265e7e1301d276f3592"),
    ],
)
def test_digest_of_a_selection(segmentation: dict[str, Any], digest: str, tmp_path: Path) -> None:
    """The selected instances, the model, its mode and its precision name a request; the device does not."""
    request = build_request(write_small_study(tmp_path, make_small_study()), config_with(**segmentation))
    assert (request.workflow_id, request.instances) == (digest, ALL_INSTANCES)


@pytest.mark.parametrize(
    ("segmentation", "use", "digest"),
    [
        ({}, {}, "536e51c4fa3713ae6bf2bcc93efb735b"),
        ({}, {Contrast.T2: "3"}, "2e1df5676ba14b61c778b9eabd241489"),
        ({"models": ["p"]}, {}, "b9affb1055d0dc6ff7ca4232672f4415"),
    ],
    ids=["refused", "refused with a series chosen by hand", "T1c only"],
)
def test_digest_without_flair(
    segmentation: dict[str, Any],
    use: dict[Contrast, str],
    digest: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All instances and the series chosen by hand name a refused request; a method for T1c names its own."""
    know_cards(monkeypatch, make_card("p", needed=(Contrast.T1C,)))
    study = make_small_study()
    del study["FLAIR"]
    folder = write_small_study(tmp_path, study)
    request = build_request(folder, config_with(**segmentation), RequestOptions(use=use))
    assert (request.workflow_id, request.instances) == (digest, WITHOUT_FLAIR)


def test_digest_of_a_study_that_cannot_be_read(tmp_path: Path) -> None:
    """Names and sizes of the files name the request of a study without a readable file."""
    (tmp_path / "x.dcm").write_bytes(b"no DICOM")
    request = build_request(tmp_path, config_with(), RequestOptions("1.2.3"))
    expected = ("82c12075cbc2ad391b5886adf482ca8e", "a82731cddebd0eee8196853008fe1b86")
    assert (request.workflow_id, request.instances) == expected


def test_file_names_of_the_spool_give_the_digest_of_the_instances(tmp_path: Path) -> None:
    """Whether a study in the spool was judged already is decided by its file names alone."""
    write_small_study(tmp_path / "any series", make_small_study())
    assert instances_by_name(tmp_path) == ALL_INSTANCES


def test_uids_of_results() -> None:
    """SEG and SR get the UIDs that version 0.1.0 gave them, so that a study processed again replaces nothing."""
    digest = "925edd8d094e9d8c9e20e969545e2d1c"
    assert derived_uid(digest, "seg") == "2.25.59440692498503782931698963704161274600"
    assert derived_uid(digest, "sr") == "2.25.161076924257850616415831806204039342576"
