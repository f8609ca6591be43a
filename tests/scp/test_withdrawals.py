"""Rejection notes (IHE IOCM): which instances they withdraw, for how long, and what other documents do."""

from __future__ import annotations

import tracemalloc
import warnings

import pytest
from instances import SERIES, STUDY, encode_instance, make_instance, sop_instance_uid, write_instance_file
from pydicom.dataset import Dataset
from receiver_node import ReceiverNode
from rejection_notes import key_object_selection

from node.scp.limits import DOCUMENT_ITEMS
from node.scp.rejection_note import REJECTIONS, read_rejection_note
from node.scp.withdrawals import Withdrawals, withdrawals_of
from node.scu.store import send_instances

SOP = sop_instance_uid(1)
OF_INTEREST = "113000"


@pytest.fixture
def node(tmp_path):
    """A running receiver."""
    with (node := ReceiverNode(tmp_path / "spool")).receiver:
        yield node


def send(node, tmp_path, *data_sets: Dataset) -> list[int | None]:
    """The statuses of the node's answers."""
    files = [write_instance_file(tmp_path, each) for each in data_sets]
    return [each.status for each in send_instances(node.destination, "PACS", files, 10.0)]


def withdrawn(node) -> dict[str, str]:
    """SOP Instance UID to the reason."""
    return {sop: each.reason for sop, each in withdrawals_of(node.spool.folder, STUDY).items()}


@pytest.mark.parametrize("code", REJECTIONS)
def test_note_withdraws_what_it_references(node, tmp_path, code):
    """The note is answered Success, its instances are withdrawn, come or not, and the study is reported once more."""
    note = key_object_selection(code, [make_instance(1), make_instance(2)])
    assert send(node, tmp_path, make_instance(1), make_instance(3), note) == [0x0000] * 3
    assert withdrawn(node) == {SOP: code, sop_instance_uid(2): code}
    assert node.path(1).exists()
    assert node.stored == [(STUDY, SERIES)] * 3
    assert node.spool.studies() == [STUDY]
    assert [path.name for path in node.spool.series_folders(STUDY)] == [SERIES]
    assert send(node, tmp_path, note) == [0x0000]
    assert len(list((node.spool.folder / ".withdrawn").rglob("*.json"))) == 1


@pytest.mark.parametrize(
    ("code", "again", "corrected"),
    [("113001", True, True), ("113037", True, True), ("113038", True, False), ("113039", False, False)],
)
def test_instance_that_arrives_after_the_note(node, tmp_path, code, again, corrected):
    """It stays withdrawn, unless the note announced a correction and this is one, or its archive only deleted it."""
    send(node, tmp_path, make_instance(1), key_object_selection(code, [make_instance(1), make_instance(2)]))
    send(node, tmp_path, make_instance(1), make_instance(2))
    assert ({SOP, sop_instance_uid(2)} == set(withdrawn(node))) is again
    right = make_instance(1)
    right.PatientID = "RIGHT-1"
    assert send(node, tmp_path, right) == [0x0000]
    assert (SOP in withdrawn(node)) is corrected


def test_weaker_note_restores_nothing(node, tmp_path):
    """What one note withdraws for good, another one does not let in."""
    notes = [key_object_selection(code, [make_instance(1)]) for code in ("113037", "113039", "113038")]
    send(node, tmp_path, make_instance(1), *notes, make_instance(1))
    assert withdrawn(node) == {SOP: "113037"}


def test_of_a_note_only_what_it_rejects_is_held_in_memory(tmp_path):
    """Whatever else a peer puts into the document is skipped."""
    note = key_object_selection("113001", [make_instance(1)])
    note.add_new(0x00711010, "OB", bytes(1 << 20))
    file = write_instance_file(tmp_path, note)
    tracemalloc.start()
    try:
        found = read_rejection_note(file)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found is not None
    assert found.instances == {STUDY: {SOP: SERIES}}
    assert peak_bytes < 4 << 20


def test_note_of_too_many_items_is_refused_before_they_become_objects(node, tmp_path):
    """Items without content take eight bytes each on the wire, and hundreds as objects."""
    note = key_object_selection("113001", [make_instance(1)])
    note.ContentSequence = [Dataset() for _ in range(DOCUMENT_ITEMS + 1)]
    assert send(node, tmp_path, note) == [0xC000]
    assert withdrawn(node) == {}


def test_key_object_selection_that_rejects_nothing_is_kept_and_changes_nothing(node, tmp_path):
    """A selection of interesting images is answered Success and kept, but is no series and withdraws nothing."""
    document = key_object_selection(OF_INTEREST, [make_instance(1)])
    assert send(node, tmp_path, document) == [0x0000]
    assert node.spool.studies() == []
    assert withdrawn(node) == {}
    assert node.stored == []
    (kept,) = (node.spool.folder / ".withdrawn").rglob("*.dcm")
    assert kept.name.startswith(document.SOPInstanceUID)


def test_note_during_a_check_of_retention_is_told_when_the_study_is_back(node, tmp_path):
    """The study is moved away for a moment only: its assembly must hear of the note, or nobody judges it again."""
    send(node, tmp_path, make_instance(1))
    (node.spool.folder / ".deleting").mkdir()
    (node.spool.folder / STUDY).rename(node.spool.folder / ".deleting" / STUDY)
    node.stored.clear()
    assert send(node, tmp_path, key_object_selection("113001", [make_instance(1)])) == [0x0000]
    assert node.stored == [(STUDY, SERIES)]


def test_note_of_another_scheme_rejects_nothing(node, tmp_path):
    """A private code that reads like one of the scheme DCM is none."""
    document = key_object_selection("113001", [make_instance(1)])
    document.ConceptNameCodeSequence[0].CodingSchemeDesignator = "99X"
    assert send(node, tmp_path, document) == [0x0000]
    assert withdrawn(node) == {}


@pytest.mark.parametrize("uid", ["../../x", ""])
def test_note_with_an_impossible_reference_is_refused(node, tmp_path, uid):
    """A UID from the wire never becomes a path, and nothing is withdrawn."""
    document = key_object_selection("113001", [make_instance(1)])
    with warnings.catch_warnings(action="ignore"):
        document.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID = uid
        assert send(node, tmp_path, document) == [0xC000]
    assert not list((node.spool.folder).rglob("*.json"))


def test_note_without_references_is_refused(node, tmp_path):
    """A note that names no instance is no note."""
    document = key_object_selection("113001", [make_instance(1)])
    del document.CurrentRequestedProcedureEvidenceSequence
    assert send(node, tmp_path, document) == [0xC000]


def test_record_survives_a_kill_or_is_made_by_the_next_try(tmp_path, monkeypatch):
    """If the process ends before the record has its name, nothing was acknowledged, and the second try makes it."""
    spool = tmp_path / "spool"
    spool.mkdir()
    note = tmp_path / "note.dcm"
    note.write_bytes(encode_instance(key_object_selection("113001", [make_instance(1)])))
    rejected = ReceiverNode(spool).spool
    calls = []

    def killed(*arguments):
        calls.append(arguments)
        raise KeyboardInterrupt

    from node.scp.rejection_note import read_rejection_note

    found = read_rejection_note(note)
    with monkeypatch.context() as patch:
        patch.setattr("node.scp.withdrawals.os.fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            Withdrawals(spool).keep_document(note, (STUDY, "1.2.9"), "0" * 64, found)
    assert calls
    assert withdrawals_of(spool, STUDY) == {}
    rejected.withdrawals.keep_document(note, (STUDY, "1.2.9"), "0" * 64, found)
    assert set(withdrawals_of(spool, STUDY)) == {SOP}


def test_correction_whose_restoring_was_interrupted_is_input_when_it_is_sent_again(node, tmp_path, monkeypatch):
    """The disk refuses after the correction is in use: nothing was acknowledged, and the second try lets it in."""
    right, note = make_instance(1), key_object_selection("113038", [make_instance(1)])
    right.PatientID = "RIGHT-1"
    assert send(node, tmp_path, make_instance(1), note) == [0x0000] * 2
    with monkeypatch.context() as patch:
        patch.setattr(Withdrawals, "_restore", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        assert send(node, tmp_path, right) == [0xA700]
    assert withdrawn(node) == {SOP: "113038"}
    assert send(node, tmp_path, right) == [0x0000]
    assert withdrawn(node) == {}


def test_instance_corrected_before_its_note_stays_withdrawn(node, tmp_path):
    """The note came after the correction, and says that this, too, is wrong: sent once more, it stays out."""
    right = make_instance(1)
    right.PatientID = "RIGHT-1"
    send(node, tmp_path, make_instance(1), right, key_object_selection("113038", [right]), right)
    assert withdrawn(node) == {SOP: "113038"}
