from __future__ import annotations

import json
import multiprocessing
from datetime import date
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from node.errors import ConfigError
from node.series import unknown
from node.series.classify import classify_text
from node.series.headers import read_study
from node.series.patient import holds_patient_data
from node.series.unknown import UnknownDescription, collect, proposed_rule, read_unknown
from node.series.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()
DAY = date(2024, 5, 6)
FLAIR_TIMING = {"EchoTime": 110, "RepetitionTime": 9000, "InversionTime": 2500, "ScanningSequence": "SE"}


@pytest.fixture
def study_of(write, tmp_path):
    """Makes a study of one series of one instance."""
    count = 0

    def make(description, **attributes):
        nonlocal count
        count += 1
        folder = tmp_path / f"study{count}"
        write(folder / "a.dcm", SeriesDescription=description, **attributes)
        return read_study(folder)

    return make


def entries(file):
    return {one.description: (one.count, one.first_seen, one.last_seen, one.physics) for one in read_unknown(file)}


def test_descriptions_without_a_known_word_are_kept(study_of, tmp_path):
    """Each counts its series, with the days first and last seen and the contrast that the timing suggests."""
    file = tmp_path / "var" / "unknown.json"
    assert collect(file, study_of("Wasserdunkel tra", **FLAIR_TIMING), VOCABULARY, DAY) == 1
    assert collect(file, study_of("Wasserdunkel tra"), VOCABULARY, date(2024, 6, 1)) == 1
    assert collect(file, study_of("Haus 7"), VOCABULARY, DAY) == 1
    assert entries(file) == {
        "Wasserdunkel tra": (2, "2024-05-06", "2024-06-01", "FLAIR"),
        "Haus 7": (1, "2024-05-06", "2024-05-06", None),
    }
    assert read_unknown(file)[0].description == "Wasserdunkel tra"


@pytest.mark.parametrize(
    ("description", "attributes"),
    [
        ("T1 SE", {}),
        ("localizer", {}),
        ("Haus", {"ProtocolName": "FLAIR tra"}),
        ("Haus", {"ImageType": ["DERIVED", "PRIMARY", "MPR"]}),
        ("Haus", {"BodyPartExamined": "KNEE"}),
        ("Haus", {"Modality": "CT"}),
        ("", {}),
        ("...", {}),
    ],
)
def test_what_is_decided_is_not_kept(study_of, tmp_path, description, attributes):
    """A word, a protocol name or the header that decides, another body part or modality: nothing to learn."""
    assert collect(tmp_path / "u.json", study_of(description, **attributes), VOCABULARY, DAY) == 0
    assert not (tmp_path / "u.json").exists()


@pytest.mark.parametrize(
    ("description", "attributes"),
    [
        ("Haus Müller", {"PatientName": "MULLER^Anna"}),
        ("Haus Mueller", {"PatientName": "Müller^Anna", "SpecificCharacterSet": "ISO_IR 192"}),
        ("Haus anna", {"PatientName": "Muller^Anna"}),
        ("annamullerhaus", {"PatientName": "Muller^Anna"}),
        ("Haus Lee", {"PatientName": "Lee^X"}),
        ("haus PAT-4711", {"PatientID": "PAT-4711"}),
        ("haus pat4711", {"PatientID": "PAT-4711"}),
        ("haus 01.02.1970", {"PatientBirthDate": "19700201"}),
        ("haus 1970", {"PatientBirthDate": "19700201"}),
        ("haus 山田", {"PatientName": "Yamada^Tarou=山田^太郎", "SpecificCharacterSet": "ISO_IR 192"}),
        ("haus Иванов", {"PatientName": "Иванов^Иван", "SpecificCharacterSet": "ISO_IR 192"}),
        ("haus Drmeier", {"ReferringPhysicianName": "Meier^Eva"}),
    ],
)
def test_no_patient_data_is_kept(study_of, tmp_path, description, attributes):
    """A description that holds a word of the name, ID or birth date, however written, is not stored."""
    file = tmp_path / "u.json"
    assert collect(file, study_of(description, **attributes), VOCABULARY, DAY) == 0
    assert collect(file, study_of("haus", **attributes), VOCABULARY, DAY) == 1
    assert list(entries(file)) == ["haus"]


def test_long_numbers_are_masked(study_of, tmp_path):
    """Runs of five and more digits may be an identity; shorter ones stay."""
    collect(tmp_path / "u.json", study_of("haus 1234 12345 99887766"), VOCABULARY, DAY)
    assert list(entries(tmp_path / "u.json")) == ["haus 1234 # #"]


@given(st.text(min_size=2, max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_a_name_is_found_wherever_it_stands(name, before, behind):
    """Whatever surrounds a name of letters as a word of its own, it is found."""
    letters = "".join(letter for letter in name if letter.isalpha() and letter.isascii())
    if len(letters) > 1:
        assert holds_patient_data(f"{before} {letters} {behind}", (f"{letters}^X",))


def test_the_number_of_entries_is_bounded(study_of, tmp_path, monkeypatch):
    """When the file is full, the rarest and longest unseen descriptions go."""
    monkeypatch.setattr(unknown, "MOST_ENTRIES", 3)
    file = tmp_path / "u.json"
    for day, text in enumerate(["haus", "haus", "garten", "keller", "dachboden"], start=1):
        collect(file, study_of(text), VOCABULARY, date(2024, 1, day))
    assert set(entries(file)) == {"haus", "keller", "dachboden"}


@pytest.mark.parametrize("content", ["", "[]", '{"haus": 3}', '{"haus": {"count": 1}}', "\udcff"])
def test_a_broken_file_is_left_alone_and_told(study_of, tmp_path, content):
    """What is no file of ours is neither overwritten nor an error for the receiver; listing it names the file."""
    file = tmp_path / "u.json"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with structlog.testing.capture_logs() as events:
        assert collect(file, study_of("haus"), VOCABULARY, DAY) == 0
    assert [event["event"] for event in events] == ["unknown_descriptions_not_kept"]
    with pytest.raises(ConfigError, match=r"u\.json"):
        read_unknown(file)


def test_a_folder_that_cannot_be_written_is_no_error(study_of, tmp_path):
    """A disk fault while collecting is logged and costs nothing else."""
    (tmp_path / "var").write_text("a file, not a folder")
    with structlog.testing.capture_logs() as events:
        assert collect(tmp_path / "var" / "u.json", study_of("haus"), VOCABULARY, DAY) == 0
    assert [event["event"] for event in events] == ["unknown_descriptions_not_kept"]


def test_a_series_that_is_gone_is_no_error(study_of, tmp_path):
    """A study deleted meanwhile teaches nothing."""
    study = study_of("haus")
    study.series[0].instances[0].path.unlink()
    assert collect(tmp_path / "u.json", study, VOCABULARY, DAY) == 0


def _collect_often(file: Path, folder: Path) -> None:
    study, vocabulary = read_study(folder), load_vocabulary()
    for _ in range(20):
        collect(file, study, vocabulary, DAY)


@pytest.mark.slow
def test_processes_may_collect_at_once(study_of, tmp_path):
    """Two processes lose no count, and the file is whole at any moment."""
    folder = study_of("haus").series[0].instances[0].path.parent
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_collect_often, args=(tmp_path / "u.json", folder)) for _ in range(2)]
    for process in both:
        process.start()
    while any(process.is_alive() for process in both):
        read_unknown(tmp_path / "u.json")
    assert [process.exitcode for process in both] == [0, 0]
    assert entries(tmp_path / "u.json")["haus"][0] == 40
    assert json.loads((tmp_path / "u.json").read_text("utf-8"))["haus"]["count"] == 40


@pytest.mark.parametrize(
    ("description", "physics", "rule"),
    [
        ("Wasserdunkel tra", "FLAIR", 'FLAIR = ["wasserdunkel"]'),
        ("ax haus am see 3d", "T1", 'T1 = ["haus am see"]'),
        ("sag Haus07", "T2", 'T2 = ["haus*"]'),
        ("haus", None, '? = ["haus"]'),
        ("水黒 tra", "FLAIR", 'FLAIR = ["水黒"]'),
        ("3d sag", "T1", None),
        ("ax # 12", None, None),
    ],
)
def test_the_proposed_rule_holds_the_unknown_words(description, physics, rule):
    """The words that no term knows become one term, for the contrast that the timing suggests."""
    assert proposed_rule(UnknownDescription(description, 1, "", "", physics), VOCABULARY) == rule


@pytest.mark.slow
@given(st.lists(st.sampled_from(["haus", "garten7", "tra", "3d", "gd", "see", "水黒", "xy"]), min_size=1).map(" ".join))
def test_a_proposed_rule_decides(description):
    """A proposed line, put into the config, makes the description what it says."""
    rule = proposed_rule(UnknownDescription(description, 1, "", "", "FLAIR"), VOCABULARY)
    if rule is not None:
        terms = json.loads(rule.removeprefix("FLAIR = "))
        assert classify_text(description, {}, load_vocabulary({"FLAIR": tuple(terms)})) == "FLAIR"
