"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# before anything imports torch, as node.__main__ does: waiting threads sleep instead of spinning
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from node.demo.mr_writer import WrittenStudy, write_study
from node.demo.patient import SyntheticPatient, make_patient
from node.errors import ModelPackError
from node.segmentation.packs import pull

MODEL = "anisotropic_nets_brats17"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: a plain mistake shows within seconds."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the published pack is installed; from GLIONODE_MODEL_MIRROR, or a folder of packs beside the checkout."""
    mirror = os.environ.get("GLIONODE_MODEL_MIRROR", "")
    beside = Path(__file__).parents[2] / "shared" / "models"
    if not mirror and beside.is_dir():
        mirror = str(beside)
    folder = tmp_path_factory.mktemp("models")
    try:
        pull(MODEL, folder, mirror)
    except ModelPackError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"the published weights are not at hand: {error}")
    return folder


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real examinations, which are not part of the repository."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GLIONODE_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no test data: set GLIONODE_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def synthetic_patient() -> SyntheticPatient:
    """The synthetic patient (seed 0)."""
    return make_patient()


@pytest.fixture(scope="session")
def synthetic_exam(tmp_path_factory: pytest.TempPathFactory, synthetic_patient: SyntheticPatient) -> WrittenStudy:
    """The synthetic patient's exam as DICOM files (not to be changed: copy what a test changes)."""
    return write_study(tmp_path_factory.mktemp("exam"), synthetic_patient)
