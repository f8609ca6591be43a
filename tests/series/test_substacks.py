"""A series that holds several volumes: which parts it is split into, and what is chosen of them."""

from __future__ import annotations

import copy

import pytest
from small_study import make_small_study, write_small_study

from node.dicom.uids import derived_uid
from node.errors import SelectionRefused
from node.segmentation.volume import read_volume
from node.series.by_hand import EVIDENCE
from node.series.explain import selection_as_dict
from node.series.headers import read_study
from node.series.select import Choice, select
from node.series.substacks import parts_of
from node.series.vocabulary import load_vocabulary
from node.study import Contrast


def again(instances, name, **attributes):
    """The same planes once more, under other UIDs, with other attributes and other pixels."""
    copies = []
    for number, instance in enumerate(instances):
        other = copy.deepcopy(instance)
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = derived_uid(name, str(number))
        other.InstanceNumber = number + 101
        other.PixelData = bytes(reversed(other.PixelData[:-1])) + b"\x07"
        for keyword, value in attributes.items():
            setattr(other, keyword, value)
        copies.append(other)
    return copies


def describe(instances, description):
    for instance in instances:
        instance.SeriesDescription = description


@pytest.fixture
def split(tmp_path):
    """Writes a study and splits its T2."""

    def parts(study):
        read = read_study(write_small_study(tmp_path / "study", study))
        (series,) = [one for one in read.series if one.series_number == 3]
        return [(part.series.part, len(part.series.instances)) for part in parts_of(series)]

    return parts


@pytest.fixture
def chosen(tmp_path):
    """Writes a study and selects."""

    def selection(study, **choice):
        return select(read_study(write_small_study(tmp_path / "study", study)), load_vocabulary(), Choice(**choice))

    return selection


SPLIT = {
    "echo times": ({"EchoTime": 15.0}, ["echo time 15 ms", "echo time 98 ms"]),
    "magnitude and phase": (
        {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P"]},
        [r"image type ORIGINAL\PRIMARY", r"image type ORIGINAL\PRIMARY\PHASE MAP\P"],
    ),
    "inversion times": ({"InversionTime": 400.0}, ["no inversion time", "inversion time 400 ms"]),
    "temporal positions": ({"TemporalPositionIdentifier": 2}, ["no temporal position", "temporal position 2"]),
    "acquisitions": ({"AcquisitionNumber": 2}, ["no acquisition", "acquisition 2"]),
    "b-values": ({"DiffusionBValue": 1000.0}, ["no b-value", "b-value 1000"]),
    "orientations": ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, ["coronal", "axial"]),
}


@pytest.mark.parametrize(("attributes", "parts"), SPLIT.values(), ids=SPLIT)
def test_series_of_two_volumes_is_split_by_what_tells_them_apart(split, attributes, parts):
    """Each volume is a part, named by the attribute's value; no image is lost."""
    study = make_small_study()
    other = again(study["T2"], "other", **attributes)
    if "ImageOrientationPatient" in attributes:
        for number, instance in enumerate(other):
            instance.ImagePositionPatient = [0, 10 * number, 0]
    study["T2"] += other
    assert sorted(split(study)) == sorted((name, 12) for name in parts)


@pytest.mark.parametrize("cosine", [0.005, 0.995, 0.0049999, 0.0150001])
def test_rounding_of_cosines_and_spacing_splits_no_volume(split, cosine):
    """Cosines and spacings of one plane that are rounded otherwise in some images are one value, wherever they lie."""
    study = make_small_study()
    study["T2"] += again(study["T2"], "first echo", EchoTime=15.0)
    for number, instance in enumerate(study["T2"]):
        sine = (1 - cosine**2) ** 0.5
        jitter = 4e-6 * (number % 3 - 1)
        instance.ImageOrientationPatient = [1, 0, 0, 0, round(sine, 6), round(cosine + jitter, 6)]
        instance.PixelSpacing = [1.0005, round(1.0005 + jitter, 7)]
        place = (number % 12) * 10.0
        instance.ImagePositionPatient = [0, round(-cosine * place, 6), round(sine * place, 6)]
    assert split(study) == [("echo time 15 ms", 12), ("echo time 98 ms", 12)]


def test_echoes_of_magnitude_and_phase_are_four_parts(split):
    """Two attributes that vary are both named."""
    study = make_small_study()
    phase = ["ORIGINAL", "PRIMARY", "P"]
    study["T2"] += [
        *again(study["T2"], "b", EchoTime=15.0),
        *again(study["T2"], "c", ImageType=phase),
        *again(study["T2"], "d", ImageType=phase, EchoTime=15.0),
    ]
    assert [count for _, count in split(study)] == [12] * 4
    assert all("echo time" in name and "image type" in name for name, _ in split(study))


ODD = {
    "without geometry": {
        "ImagePositionPatient": None,
        "ImageOrientationPatient": None,
        "ImageType": ["DERIVED", "SECONDARY"],
    },
    "of another orientation": {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
    "secondary capture": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
    "of another size": {"Rows": 2, "Columns": 8},
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_odd_image_is_put_aside(split, change):
    """A screen save without geometry, a plane of another orientation, or a secondary capture spoils no volume."""
    study = make_small_study()
    study["T2"] += again(study["T2"][3:4], "odd", **change)
    counts = dict(split(study))
    assert sorted(counts.values()) == [1, 12]
    assert counts["the other image"] == 1


def test_repeated_image_is_left_out(split):
    """The same pixels at the same place under another UID count once."""
    study = make_small_study()
    other = copy.deepcopy(study["T2"][3])
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = derived_uid("repeated")
    study["T2"].append(other)
    assert split(study) == [("without repeated images", 12), ("the other image", 1)]


def test_other_pixels_at_one_place_are_no_repetition(split):
    """Two images at one position that differ make no volume, and nothing tells which one counts."""
    study = make_small_study()
    study["T2"] += again(study["T2"][3:4], "other")
    assert split(study) == []


def test_missing_slice_is_not_hidden_by_a_split(split):
    """Of interleaved acquisitions with a slice missing, no half is taken for a volume of twice the step."""
    study = make_small_study()
    for number, instance in enumerate(study["T2"]):
        instance.AcquisitionNumber = number % 2 + 1
    del study["T2"][5]
    assert split(study) == []


@pytest.mark.parametrize("description", ["T2 TSE tra", "PD/T2 TSE tra", "AX PDT2", "DUAL ECHO", "T2 DOUBLE ECHO"])
def test_second_echo_of_a_dual_echo_is_the_t2(chosen, description):
    """It alone is chosen and read; verdicts name both parts, whatever of the two the description names."""
    study = make_small_study()
    study["T2"] += again(study["T2"], "first echo", EchoTime=15.0)
    describe(study["T2"], description)
    selection = chosen(study)
    t2 = selection.chosen[Contrast.T2]
    assert (t2.part, len(t2.instances), len(read_volume(t2).sources)) == ("echo time 98 ms", 12, 12)
    assert t2.label == f"series 3 '{description}', echo time 98 ms"
    verdicts = {verdict.part: verdict for verdict in selection.verdicts if verdict.series_number == 3}
    assert (verdicts["echo time 98 ms"].chosen, verdicts["echo time 15 ms"].chosen) == (True, False)
    listed = [each for each in selection_as_dict(selection)["series"] if each["series_number"] == 3]
    assert {each["part"] for each in listed} == {"echo time 98 ms", "echo time 15 ms"}


def test_part_is_chosen_by_hand(chosen):
    """By number and place of the part; without the place, the parts are named."""
    study = make_small_study()
    study["T2"] += again(study["T2"], "first echo", EchoTime=100.0)
    selection = chosen(study, use={Contrast.T2: "3/2"})
    assert selection.chosen[Contrast.T2].part == "echo time 100 ms"
    (verdict,) = [each for each in selection.verdicts if each.chosen and each.series_number == 3]
    assert verdict.note == EVIDENCE
    with pytest.raises(SelectionRefused, match="series 3 holds 2 parts; name one: 3/1 is echo time 98 ms, 3/2 is"):
        chosen(study, use={Contrast.T2: "3"})


def test_phase_of_a_dynamic_t1_is_not_chosen(chosen):
    """In a dynamic series, contrast agent arrives between the phases: none is T1 or T1c by itself."""
    study = make_small_study()
    study["T1c"] += again(study["T1c"], "later", TemporalPositionIdentifier=2)
    with pytest.raises(SelectionRefused, match=r"no T1c: .*one phase of a dynamic series"):
        chosen(study)


def test_ordinary_series_is_not_split(split):
    """One volume stays the series that it is."""
    assert split(make_small_study()) == []
