"""What cannot be processed is refused with its reason: by ``glionode process``, and by the running node."""

from __future__ import annotations

import json
import shutil
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import run_glionode
from faults import wait_until
from instances import PATIENT_ID, PATIENT_NAME, data_set_bytes, encode_instance, make_instance, write_instance_file
from lab import needs, run_program
from node_process import NodeProcess, running_node, write_config
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from small_study import make_small_study, study_instance_uid, write_small_study

from node.dicom.uids import derived_uid
from node.scp.spool import Spool
from node.scu.store import echo, send_instances

SmallStudy = dict[str, list[Dataset]]


def without_flair(study: SmallStudy) -> None:
    """No FLAIR series."""
    del study["FLAIR"]


def of_two_frames(study: SmallStudy) -> None:
    """The T2 series lies in a frame of reference of its own."""
    for instance in study["T2"]:
        instance.FrameOfReferenceUID = derived_uid("test", "another frame of reference")


def without_pixels(study: SmallStudy) -> None:
    """Zero-length pixel data in one instance."""
    study["T1"][3].PixelData = b""


def cut_short(study: SmallStudy) -> None:
    """Half of the pixel data in one instance, as Rows and Columns count it."""
    study["T1c"][5].PixelData = study["T1c"][5].PixelData[:16]


def all_cut_short(study: SmallStudy) -> None:
    """Every instance incomplete."""
    for series in study.values():
        for instance in series:
            instance.PixelData = instance.PixelData[:16]


def without_pixel_spacing(study: SmallStudy) -> None:
    """One instance lacks Pixel Spacing."""
    del study["FLAIR"][4].PixelSpacing


@dataclass(frozen=True, slots=True)
class BadStudy:
    """What is wrong with a study, and the reason it must be refused for."""

    spoil: Callable[[SmallStudy], None]
    reason: str
    needs_model: bool = False

    @property
    def name(self) -> str:
        """Names the case."""
        return self.spoil.__name__

    def make(self) -> SmallStudy:
        """The spoilt study; UIDs of its own."""
        study = make_small_study(self.name)
        self.spoil(study)
        return study


BAD_STUDIES = (
    BadStudy(without_flair, "no FLAIR: of 3 MR series none reads as FLAIR"),
    BadStudy(of_two_frames, "two frames of reference: T2 series 3 'T2 TSE tra' and T1c series 2"),
    BadStudy(without_pixels, "pixel data holds 0 bytes, but Rows x Columns x Samples per Pixel x Number of Frames of"),
    BadStudy(cut_short, "pixel data holds 16 bytes, but Rows x Columns x Samples per Pixel x Number of Frames of"),
    BadStudy(all_cut_short, "the folder holds no readable DICOM instance"),
    BadStudy(
        without_pixel_spacing,
        "no FLAIR: series 4 'FLAIR tra': Pixel Spacing (0028,0030) is missing or malformed in 1 of 12 images",
        needs_model=True,
    ),
)
BAD_STUDY = pytest.mark.parametrize(
    "bad",
    [pytest.param(bad, id=bad.name, marks=[pytest.mark.slow] if bad.needs_model else []) for bad in BAD_STUDIES],
)


def expected_reason(bad: BadStudy, study: SmallStudy) -> str:
    """The reason, with the UID of the instance that lacks something."""
    return bad.reason.format(uid=study["FLAIR"][4].SOPInstanceUID if bad.needs_model else "")


def write_unchecked(file: Path, instance: Dataset, keyword: str, value: str) -> None:
    """Write ``instance`` with a value that pydicom would warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        setattr(instance, keyword, value)
        instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
        file.write_bytes(encode_instance(instance))


# ---- glionode process ------------------------------------------------------------------------------------------


def refused_result(folder: Path, out: Path, config_file: Path) -> str:
    """Process ``folder``, which must be refused with exit code 3 and leave one file; the reason in it."""
    result = run_glionode("process", folder, "--out", out, "--config", config_file)
    assert result.exit_code == 3, result.output
    assert result.stderr.startswith("refused: ")
    assert [file.name for file in out.iterdir()] == ["result.json"]
    written = json.loads((out / "result.json").read_text("utf-8"))
    assert written["state"] == "refused"
    assert result.stderr == f"refused: {written['reason']}\n"
    return str(written["reason"])


@pytest.mark.slow
@BAD_STUDY
def test_process_refuses(bad: BadStudy, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A study that cannot be processed ends in exit code 3 and a result.json, both with the reason."""
    models = {"models": {"folder": str(request.getfixturevalue("models_folder"))}} if bad.needs_model else {}
    study = bad.make()
    folder = write_small_study(tmp_path / "study", study)
    reason = refused_result(folder, tmp_path / "out", write_config(tmp_path, **models))
    assert expected_reason(bad, study) in reason


def test_process_refuses_a_truncated_file(tmp_path: Path) -> None:
    """A file that ends in the middle of its pixel data is named."""
    study = make_small_study()
    folder = write_small_study(tmp_path / "study", study)
    file = folder / f"{study['T2'][0].SOPInstanceUID}.dcm"
    file.write_bytes(file.read_bytes()[:-10])
    reason = refused_result(folder, tmp_path / "out", write_config(tmp_path))
    assert f"file {file.name} cannot be read: truncated: pixel data says 32 bytes, 22 are there" in reason


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_process_refuses_a_path_for_a_uid(keyword: str, tmp_path: Path) -> None:
    """A UID that is a way out of the folder is none; its keyword is named and nothing is written elsewhere."""
    study = make_small_study()
    folder = write_small_study(tmp_path / "study", study)
    spoilt = study["T1"][0]
    write_unchecked(folder / f"{spoilt.SOPInstanceUID}.dcm", spoilt, keyword, "../../1.2.3")
    reason = refused_result(folder, tmp_path / "out", write_config(tmp_path))
    assert f"{keyword} is no valid UID" in reason
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml", "out", "study"]


def test_process_refuses_an_empty_folder(tmp_path: Path) -> None:
    """A folder without a file is refused, and so is one without a DICOM file."""
    folder = tmp_path / "study"
    folder.mkdir()
    config_file = write_config(tmp_path)
    assert "holds no readable DICOM instance" in refused_result(folder, tmp_path / "out", config_file)
    (folder / "notes.txt").write_text("nothing here")
    assert "holds no readable DICOM instance" in refused_result(folder, tmp_path / "out", config_file)


def test_process_refuses_two_studies(tmp_path: Path) -> None:
    """A folder with two studies is refused by naming both; neither is guessed."""
    studies = [make_small_study(name) for name in ("first", "second")]
    for study in studies:
        write_small_study(tmp_path / "study", study)
    reason = refused_result(tmp_path / "study", tmp_path / "out", write_config(tmp_path))
    assert "the folder holds 2 studies" in reason
    assert all(study_instance_uid(study) in reason for study in studies)


def test_process_refuses_real_ct(tmp_path: Path, data_folder: Path) -> None:
    """A real CT study is refused as not brain MR."""
    folder = data_folder / "stress" / "compressed_and_negative" / "Database" / "Phenix"
    assert "not brain MR: the study holds no MR series (modality CT)" in refused_result(
        folder, tmp_path / "out", write_config(tmp_path)
    )


def test_refusal_leaves_no_result_of_before(tmp_path: Path) -> None:
    """A folder of results that held another study's objects does not hold them beside a refusal."""
    out = tmp_path / "out"
    out.mkdir()
    for name in ("seg.dcm", "sr.dcm", "label_map.nii.gz"):
        (out / name).write_bytes(b"of another study")
    study = BAD_STUDIES[0].make()
    refused_result(write_small_study(tmp_path / "study", study), out, write_config(tmp_path))


# ---- the running node ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refusing:
    """A node that was sent every bad study, and has refused each."""

    node: NodeProcess
    sent: dict[str, SmallStudy]


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory, models_folder: Path) -> Iterator[Refusing]:
    """Send every bad study, each on an association of its own, and wait until none is on its way."""
    folder = tmp_path_factory.mktemp("refusing")
    models = {"folder": str(models_folder)}
    sent = {bad.name: bad.make() for bad in BAD_STUDIES}
    with running_node(write_config(folder, models=models)) as node:
        for name, study in sent.items():
            files = sorted(write_small_study(folder / name, study).iterdir())
            deliveries = send_instances(node.destination, "SCANNER", files, 10.0)
            assert {delivery.status for delivery in deliveries} == {0x0000}
        uids = {study_instance_uid(study) for study in sent.values()}
        node.wait_until(lambda: {node.study(uid).get("state") for uid in uids} == {"refused"}, 200)
        yield Refusing(node, sent)


@pytest.mark.slow
@pytest.mark.parametrize("bad", BAD_STUDIES, ids=lambda bad: bad.name)
def test_node_lists_the_refusal(refusing: Refusing, bad: BadStudy) -> None:
    """The study is listed as refused, with its reason, by command line and status page; result.json says the same."""
    study = refusing.sent[bad.name]
    line = refusing.node.study(study_instance_uid(study))
    assert expected_reason(bad, study) in line["reason"]
    listed = json.loads(refusing.node.command("studies", "--json").stdout)
    assert line in listed
    result = json.loads((refusing.node.config.work_folder / line["workflow_id"] / "result.json").read_text("utf-8"))
    assert (result["state"], result["reason"]) == ("refused", line["reason"])
    assert result["study_instance_uid"] == study_instance_uid(study)


@pytest.mark.slow
@pytest.mark.parametrize("bad", BAD_STUDIES, ids=lambda bad: bad.name)
def test_node_loses_nothing(refusing: Refusing, bad: BadStudy) -> None:
    """Every instance of a refused study lies in the spool, its data set byte for byte as sent."""
    study = refusing.sent[bad.name]
    folder = refusing.node.config.spool_folder / study_instance_uid(study)
    kept = {path.stem: data_set_bytes(path.read_bytes()) for path in folder.rglob("*.dcm")}
    sent = {
        str(instance.SOPInstanceUID): data_set_bytes(encode_instance(instance))
        for series in study.values()
        for instance in series
    }
    assert kept == sent


@pytest.mark.slow
def test_node_goes_on(refusing: Refusing, tmp_path: Path) -> None:
    """After all refusals the node answers C-ECHO, its worker has not died, and it takes and judges the next study."""
    node = refusing.node
    assert echo(node.destination, "SCANNER", 5.0) is None
    assert node.events("worker_died") == []
    study = make_small_study("next")
    del study["T1"]
    files = sorted(write_small_study(tmp_path / "next", study).iterdir())
    assert all(delivery.is_delivered for delivery in send_instances(node.destination, "SCANNER", files, 10.0))
    node.wait_until(lambda: node.study(study_instance_uid(study)).get("state") == "refused")


@pytest.mark.slow
def test_node_takes_no_ct(refusing: Refusing, tmp_path: Path) -> None:
    """A CT instance is refused when the association is negotiated: the sender learns it, and nothing is kept."""
    instance = make_instance(study_instance_uid=derived_uid("test", "ct"))
    instance.SOPClassUID = instance.file_meta.MediaStorageSOPClassUID = CTImageStorage
    (delivery,) = send_instances(refusing.node.destination, "SCANNER", [write_instance_file(tmp_path, instance)], 10.0)
    assert delivery.is_permanent
    assert instance.StudyInstanceUID not in Spool(refusing.node.config.spool_folder).studies()


@pytest.mark.slow
@needs("storescu")
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_node_takes_no_path_for_a_uid(refusing: Refusing, keyword: str, tmp_path: Path) -> None:
    """A UID that is a way out of the spool is answered with a failure, and nothing is written anywhere."""
    node = refusing.node
    instance = make_instance(study_instance_uid=derived_uid("test", "path"))
    file = tmp_path / "path.dcm"
    write_unchecked(file, instance, keyword, "../../1.2.3")
    before = sorted(node.config.folder.rglob("1.2.3*"))
    refusals = len(node.events("instance_refused"))
    section = node.config.scp
    address = ("-aet", "SCANNER", "-aec", section.ae_title, section.host, str(section.port))
    done = run_program("storescu", "-v", *address, file)
    assert "Store Response (Error: CannotUnderstand)" in done.stdout
    wait_until(lambda: len(node.events("instance_refused")) == refusals + 1)
    assert node.events("instance_refused")[-1]["status"] == "0xC011"
    assert sorted(node.config.folder.rglob("1.2.3*")) == before == []
    arriving = (file for file in (node.config.spool_folder / ".incoming").rglob("*") if file.is_file())
    assert [file for file in arriving if file.name != "lock"] == []


@pytest.mark.slow
def test_no_patient_is_named(refusing: Refusing) -> None:
    """Neither log nor status page nor metrics nor result.json of refused studies names the patient."""
    node = refusing.node
    texts = [node.log(), *(node.get(path) for path in ("/", "/studies.json", "/metrics"))]
    texts += [file.read_text("utf-8") for file in node.config.work_folder.rglob("result.json")]
    assert len(texts) >= len(BAD_STUDIES) + 4
    for secret in (PATIENT_ID, *PATIENT_NAME.split("^")):
        assert not any(secret in text for text in texts)


@pytest.mark.slow
def test_restart_judges_nothing_twice(refusing: Refusing, tmp_path: Path) -> None:
    """A node started on the same folder knows every study in the spool, by its names or once it has looked at it."""
    folder = tmp_path / "again"
    shutil.copytree(refusing.node.config.folder, folder / "var", ignore=shutil.ignore_patterns("*.sqlite*"))
    database = "glionode.sqlite"
    with (
        closing(sqlite3.connect(refusing.node.config.folder / database)) as source,
        closing(sqlite3.connect(folder / "var" / database)) as target,
    ):
        source.backup(target)
    studies = Spool(folder / "var" / "spool").studies()
    with running_node(write_config(folder), role="receive") as node:
        node.wait_until(lambda: node.events("studies_resumed") != [])
        judged = node.events("studies_resumed")[0]["judged"]
        assert judged >= 1
        node.wait_until(lambda: len(node.events("study_unchanged")) == len(studies) - judged)
        assert node.events("study_started") == []
