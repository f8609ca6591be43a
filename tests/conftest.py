"""What all tests share: their order, what a test run builds once, and the folders of models and data."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# before anything imports torch, as node.__main__ does: waiting threads sleep instead of spinning
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from shared_run import Demo, SharedFolder, run_whole_demo, saved_patient, stored_patient

from node.demo.mr_writer import WrittenStudy, write_study
from node.demo.patient import SyntheticPatient
from node.errors import ModelPackError
from node.methods.packs import pull

MODEL = "anisotropic_nets_brats17"
MOST_WORKERS = 8
"""A worker that segments takes up to 3 GiB."""


ONE_WORKER = {  # node id: the group whose tests one worker runs, since they share something costly
    r"demo/test_demo\.py|end_to_end/test_round_trip\.py": "whole cascade",
    r"(end_to_end/test_bad_input\.py|end_to_end/test_delivered_to_pacs\.py)": r"\1",
    r"segmentation/test_enhancement\.py::test_real_(?:twins_are_told_apart\[|exam_without)": "real twins",
    r"segmentation/(test_seg_writer\.py)::\w+(\[.+\])": r"\1 \2",
}


class GroupScheduling(LoadScopeScheduling):
    """Tests of a group go to one worker; any other test goes to the next worker that is free.

    The marker ``xdist_group`` would say the same, but xdist 3.8 does not see it under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        for pattern, group in ONE_WORKER.items():
            if found := re.search(pattern, nodeid):
                return found.expand(group)
        return nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling:
    """Replaces ``--dist``."""
    return GroupScheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """``-n auto``: a worker for each core; twice as many where slow tests run, about half of whose time is waiting."""
    cores = len(os.sched_getaffinity(0))
    return cores if config.option.markexpr == "not slow" else min(2 * cores, MOST_WORKERS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort the tests; tests of equal rank keep the random order of pytest-randomly.

    In one process, fast tests run first: a plain mistake shows within seconds. Where several workers share the tests,
    the longest start first, or one of them runs alone at the end.
    """
    is_shared = hasattr(config, "workerinput")
    items.sort(key=_seconds_descending if is_shared else _is_slow)


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


def _seconds_descending(item: pytest.Item) -> float:
    long = item.get_closest_marker("long")
    return -float(long.args[0]) if long else -float(_is_slow(item))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> SharedFolder:
    """A folder of resources that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return SharedFolder(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture(scope="session")
def models_folder(shared_folder: SharedFolder) -> Path:
    """Where the published pack is installed; from GLIONODE_MODEL_MIRROR, or a folder of packs beside the checkout."""
    mirror = os.environ.get("GLIONODE_MODEL_MIRROR", "")
    beside = Path(__file__).parents[2] / "shared" / "models"
    if not mirror and beside.is_dir():
        mirror = str(beside)
    try:
        return shared_folder.built("models", lambda folder: pull(MODEL, folder, mirror))
    except ModelPackError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"the published weights are not at hand: {error}")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real examinations, which are not part of the repository."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GLIONODE_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no test data: set GLIONODE_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def synthetic_patient(shared_folder: SharedFolder) -> SyntheticPatient:
    """The synthetic patient (seed 0); its arrays are read-only."""
    return stored_patient(shared_folder.built("patient", saved_patient))


@pytest.fixture(scope="session")
def synthetic_exam(shared_folder: SharedFolder, synthetic_patient: SyntheticPatient) -> WrittenStudy:
    """The synthetic patient's exam as DICOM files (not to be changed: copy what a test changes)."""

    def write(folder: Path) -> None:
        study = write_study(folder / "exam", synthetic_patient)
        (folder / "study.pickle").write_bytes(pickle.dumps(study))

    folder = shared_folder.built("synthetic-exam", write)
    study: WrittenStudy = pickle.loads((folder / "study.pickle").read_bytes())
    return study


@pytest.fixture(scope="session")
def whole_demo(tmp_path_factory: pytest.TempPathFactory, models_folder: Path) -> Demo:
    """``glionode demo`` with its own synthetic patient, networks included: the one whole cascade on a synthetic exam.

    The files that use it are one group (see `ONE_WORKER`), so that it runs once.
    """
    return run_whole_demo(tmp_path_factory.mktemp("demo") / "out", models_folder)
