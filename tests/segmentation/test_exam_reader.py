"""Before the networks run, all instances used must name one patient."""

from __future__ import annotations

import pytest
import SimpleITK
from instances import write_instance_file
from small_study import make_small_study, write_small_study

from node.errors import InstanceRefused
from node.segmentation.exam_reader import ExamReader
from node.series.headers import read_study
from node.series.select import select
from node.series.vocabulary import load_vocabulary
from node.study import Contrast


@pytest.fixture
def taken(tmp_path):
    """Writes a study, selects its series and takes their volumes."""

    def volumes(study):
        selection = select(read_study(write_small_study(tmp_path / "study", study)), load_vocabulary())
        return ExamReader().take(selection)

    return volumes


def change(instances, **attributes):
    for instance in instances:
        for keyword, value in attributes.items():
            setattr(instance, keyword, value)


def test_series_of_two_patients_are_refused_naming_attributes_and_series(taken):
    """T1 and T2 of one patient, T1c and FLAIR of another: no result, and no value in the reason."""
    study = make_small_study()
    change([*study["T1c"], *study["FLAIR"]], PatientID="OTHER-1", PatientName="Other^Person")
    with pytest.raises(InstanceRefused) as refusal:
        taken(study)
    reason = str(refusal.value)
    assert "(0010,0020) Patient ID and (0010,0010) Patient's Name" in reason
    assert "series 2 'T1 SE tra post contrast' and series 1 'T1 SE tra' name two patients" in reason
    assert "OTHER" not in reason
    assert "Person" not in reason


@pytest.mark.parametrize("contrast", ["T1", "T1c", "T2", "FLAIR"])
def test_every_second_slice_of_another_patient_is_refused(taken, contrast):
    """Also within one series, whichever it is."""
    study = make_small_study()
    change(study[contrast][::2], PatientBirthDate="19500101")
    with pytest.raises(InstanceRefused, match=r"instances of series . .* name two patients, by \(0010,0030\)"):
        taken(study)


def test_two_series_that_differ_beside_a_t1c_without_identity_are_refused(taken):
    """An anonymised T1c hides no difference between the others."""
    study = make_small_study()
    change(study["T1c"], PatientID="", PatientName="")
    change(study["T2"], PatientID="OTHER-1")
    with pytest.raises(InstanceRefused, match=r"the series used name two patients, by \(0010,0020\) Patient ID"):
        taken(study)


def test_one_patient_written_otherwise_is_one(taken):
    """Case, blanks and empty values are no refusal."""
    study = make_small_study()
    name, patient_id = study["T1"][0].PatientName, study["T1"][0].PatientID
    change(study["T2"], PatientName=str(name).upper() + "^", PatientID=f" {patient_id.lower()} ")
    change(study["FLAIR"], PatientName="", PatientBirthDate="")
    assert set(taken(study)) == set(Contrast)


def test_volume_of_a_file_that_was_replaced_is_read_again(tmp_path):
    """What was read for one step is not used in the next if a correction took a file's place meanwhile."""
    study = make_small_study()
    folder = write_small_study(tmp_path / "study", study)
    selection, reader = select(read_study(folder), load_vocabulary()), ExamReader()
    source = selection.chosen[Contrast.T1C]
    assert reader.why_unusable(source) is None
    changed = study["T1c"][3]
    changed.PixelData = bytes([77, 0]) * 16
    write_instance_file(tmp_path, changed).replace(source.instances[0].path.with_name(f"{changed.SOPInstanceUID}.dcm"))
    taken = reader.take(selection)[Contrast.T1C]
    assert 77 in SimpleITK.GetArrayViewFromImage(taken.image)
