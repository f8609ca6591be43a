"""Which method an exam gets, with which contrasts, and what the report says of it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cards import OTHERS, know_cards, make_card, make_pulled_card
from node_process import write_config
from small_study import make_small_study, study_instance_uid, write_small_study

from node.config import Config, build_config, load_config
from node.metrics import Metrics
from node.processing.dispatcher import StudyDispatcher
from node.processing.request import ProcessingRequest, build_request
from node.study import Contrast
from node.workflow.client import WorkflowClient

CASCADE = "anisotropic_nets_brats17"


def config_with(tmp_path: Path, *models: str, **series: Any) -> Config:
    """A config with this list of models; the folder of packs is empty."""
    values = {"node": {"folder": str(tmp_path / "node")}, "segmentation": {"models": models}, "series": series}
    return build_config(values)


def requested(tmp_path: Path, config: Config, *missing: str) -> ProcessingRequest:
    """The request for the small study without the ``missing`` contrasts."""
    study = make_small_study()
    for contrast in missing:
        del study[contrast]
    return build_request(write_small_study(tmp_path / "study", study), config)


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = {"T1, T1c, T2": {"whole_tumour": 12.34, "tumour_core": 3.0}}
    know_cards(
        monkeypatch,
        make_card("any_t1c", optional=OTHERS, cost=cost),
        make_card("core", outputs=("tumour_core",)),
        make_card("t1_too", needed=(Contrast.T1, Contrast.T1C)),
        make_pulled_card("not_there"),
    )


@pytest.mark.parametrize("missing", OTHERS)
def test_exam_without_one_contrast_is_taken_with_the_three(missing: Contrast, tmp_path: Path) -> None:
    """A method that takes subsets gets what is there, and the first caution says what is missing and why."""
    request = requested(tmp_path, config_with(tmp_path, CASCADE, "any_t1c"), missing)
    assert request.selection is not None
    assert request.model == "any_t1c"
    assert set(request.selection.chosen) == set(Contrast) - {missing}
    caution = request.selection.cautions[0]
    assert caution.startswith("any_t1c was used with ")
    assert f"no {missing}" in caution


def test_exam_with_t1c_alone_is_taken(tmp_path: Path) -> None:
    """T1c is enough for a method that needs no more."""
    request = requested(tmp_path, config_with(tmp_path, CASCADE, "any_t1c"), *OTHERS)
    assert request.selection is not None
    assert (request.model, list(request.selection.chosen)) == ("any_t1c", [Contrast.T1C])
    assert request.selection.cautions[0].startswith("any_t1c was used with T1c alone, for the four contrasts")


def test_exam_without_t1c_is_refused(tmp_path: Path) -> None:
    """No method runs without T1c; the reason is that of the first method."""
    request = requested(tmp_path, config_with(tmp_path, CASCADE, "any_t1c"), "T1c")
    assert request.selection is None
    assert "no T1c" in (request.refusal or "")


@pytest.mark.parametrize(
    ("models", "missing", "model"),
    [
        (("any_t1c", "core"), (), "any_t1c"),
        (("core", "any_t1c"), (), "core"),
        (("t1_too", "core"), ("FLAIR",), "t1_too"),
        (("t1_too", "core"), ("T1",), "core"),
        (("not_there", "core"), ("T1",), "core"),
        (("not_there",), (), "not_there"),
        ((CASCADE,), (), CASCADE),
    ],
)
def test_first_that_is_installed_and_fits_runs(
    models: tuple[str, ...], missing: tuple[str, ...], model: str, tmp_path: Path
) -> None:
    """The list's order decides among the methods that fit; one that is not installed runs only if no other is."""
    assert requested(tmp_path, config_with(tmp_path, *models), *missing).model == model


def test_all_four_contrasts_give_no_word_on_the_method(tmp_path: Path) -> None:
    """A complete exam and a method that takes all of it need no caution."""
    request = requested(tmp_path, config_with(tmp_path, "any_t1c"))
    assert request.selection is not None
    assert len(request.selection.chosen) == len(Contrast)
    assert not [text for text in request.selection.cautions if "any_t1c" in text]


def test_method_for_t1c_alone_takes_nothing_else(tmp_path: Path) -> None:
    """Series that the method does not take are not chosen, and each says why; regions not given are named."""
    request = requested(tmp_path, config_with(tmp_path, "core"))
    assert request.selection is not None
    assert list(request.selection.chosen) == [Contrast.T1C]
    unused = [each for each in request.selection.verdicts if not each.chosen]
    assert {each.note for each in unused} == {"not used: core does not take this contrast"}
    assert len(unused) == 3
    assert request.selection.cautions[:2] == (
        "core was used with T1c alone: the method takes no others",
        "core does not outline whole tumour and enhancing tumour",
    )


def test_cost_of_what_is_missing_is_told_where_it_was_measured(tmp_path: Path) -> None:
    """The card's mean volume differences for the contrasts at hand are told in mL."""
    request = requested(tmp_path, config_with(tmp_path, "any_t1c"), "FLAIR")
    assert request.selection is not None
    expected = "with these contrasts, volumes differ from an expert's on average by: whole tumour 12.3 mL, tumour core"
    assert request.selection.cautions[1].startswith(expected)


def test_exam_without_flair_is_refused_where_only_the_cascade_is(tmp_path: Path) -> None:
    """With the default list such a study is refused as before."""
    request = requested(tmp_path, config_with(tmp_path, CASCADE), "FLAIR")
    assert request.selection is None
    assert "no FLAIR" in (request.refusal or "")


@pytest.mark.parametrize(("missing", "is_complete"), [((), True), (("FLAIR",), False), (("T1", "T2", "FLAIR"), False)])
def test_study_with_fewer_contrasts_waits_for_the_others(
    missing: tuple[str, ...], is_complete: bool, tmp_path: Path
) -> None:
    """Whatever methods there are, only all four contrasts end the waiting early; else the quiet time decides."""
    study = make_small_study()
    quiet = frozenset(str(study[each][0].SeriesInstanceUID) for each in study if each not in missing)
    config = load_config(write_config(tmp_path / "node", segmentation={"models": ["any_t1c"]}))
    uid = study_instance_uid(study)
    write_small_study(config.spool_folder / uid / "1.2.3", study)
    with closing(WorkflowClient(config)) as client:
        assert StudyDispatcher(config, client, Metrics()).is_complete(uid, quiet) is is_complete
