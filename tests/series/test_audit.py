from __future__ import annotations

import csv

from node.series.audit import COLUMNS, audit_folder
from node.series.classify import classify_csv
from node.series.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()


def rows_of(file):
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_series_of_every_study_becomes_a_row(write, tmp_path):
    """Several studies in one folder: one row per series with its tags, and what is predicted from words and tags."""
    folder, out = tmp_path / "in", tmp_path / "out.csv"
    secret = {"PatientName": "Secret^Patient", "PatientID": "PAT-4711", "PatientBirthDate": "19700101"}
    write(folder / "a" / "1", SeriesDescription="AX T1 +C", EchoTime=3.5, ImageType=["ORIGINAL", "PRIMARY"], **secret)
    write(folder / "a" / "2", SOPInstanceUID="1.2.3.1.2", SeriesDescription="AX T1 +C", **secret)
    write(folder / "b", StudyInstanceUID="1.2.4", SeriesInstanceUID="1.2.4.1", SOPInstanceUID="1.2.4.1.1", **secret)
    write(
        folder / "c", StudyInstanceUID="1.2.4", SeriesInstanceUID="1.2.4.2", SOPInstanceUID="1.2.4.2.1", Modality="CT"
    )
    (folder / "broken.dcm").write_bytes(b"no DICOM")
    audit = audit_folder(folder, out, VOCABULARY)
    assert audit.series_count == 3
    assert [file for file, _ in audit.unreadable] == ["broken.dcm"]
    rows = rows_of(out)
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["description"], row["Modality"], row["predicted"]) for row in rows] == [
        ("AX T1 +C", "MR", "T1c"),
        ("T1 SE", "MR", "T1"),
        ("T1 SE", "CT", "other"),
    ]
    assert (rows[0]["EchoTime"], rows[0]["ImageType"]) == ("3.5", "ORIGINAL\\PRIMARY")
    assert rows[0]["NumberOfSeriesRelatedInstances"] == "2"
    text = out.read_text("utf-8")
    assert not any(value in text for value in ("Secret", "PAT-4711", "19700101"))


def test_the_csv_can_be_classified_again(write, tmp_path):
    """The CSV of an audit is input for classify --csv, and gives the same predictions."""
    write(tmp_path / "in" / "1", SeriesDescription="SAG", EchoTime=100, RepetitionTime=5000, ScanningSequence="SE")
    write(tmp_path / "in" / "2", SeriesInstanceUID="1.2.3.2", SOPInstanceUID="1.2.3.2.1", SeriesDescription="FLAIR")
    audit_folder(tmp_path / "in", tmp_path / "one.csv", VOCABULARY)
    classify_csv(tmp_path / "one.csv", tmp_path / "two.csv", VOCABULARY)
    predicted = [row["predicted"] for row in rows_of(tmp_path / "one.csv")]
    assert predicted == ["T2", "FLAIR"]
    assert [row["predicted"] for row in rows_of(tmp_path / "two.csv")] == predicted


def test_an_empty_folder_gives_an_empty_csv(tmp_path):
    """Nothing to classify is no error."""
    assert audit_folder(tmp_path, tmp_path / "out.csv", VOCABULARY).series_count == 0
    assert rows_of(tmp_path / "out.csv") == []
