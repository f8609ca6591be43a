"""A study whose instances are corrected or withdrawn: whose name its results carry, and what is done when."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
import structlog
from memory_engine import MemoryNode
from node_process import write_config
from pydicom import Dataset
from rejection_notes import key_object_selection
from small_study import all_instances, make_small_study, study_instance_uid
from statuses import delivery_statuses

from node.config import load_config
from node.dicom.uids import derived_uid
from node.errors import EngineError, StorageError
from node.metrics import Metrics
from node.processing.dispatcher import StudyDispatcher
from node.processing.request import ProcessingRequest
from node.processing.request_records import INPUTS_DELETED
from node.retention.cleanup import RetentionSnapshot, clean_results
from node.retention.retention_status import retention_statuses
from node.scp.durable import DurableNames
from node.scp.rejection_note import EXPIRED, REJECTIONS, WRONG_WORKLIST_ENTRY
from node.scp.removal import contents, remove_study
from node.study import Contrast, Destination
from node.workflow.states import PublishedState

UID = study_instance_uid(make_small_study())
RIGHT = {"PatientID": "RIGHT-1", "PatientName": "Right^Name", "AccessionNumber": "A-1"}


@pytest.fixture
def node(tmp_path: Path) -> MemoryNode:
    """A node that does corrected studies anew."""
    return MemoryNode(load_config(write_config(tmp_path)))


@pytest.fixture
def holding(tmp_path: Path) -> MemoryNode:
    """A node that leaves it to the administrator."""
    return MemoryNode(load_config(write_config(tmp_path, assembly={"corrections": "hold"})))


def corrected(contrasts: Iterable[str] = ("T1", "T1c", "T2", "FLAIR"), **attributes: str) -> list[Dataset]:
    """The small study's instances with another identity."""
    study = make_small_study()
    instances = [instance for contrast in contrasts for instance in study[contrast]]
    for instance in instances:
        for keyword, value in (attributes or RIGHT).items():
            setattr(instance, keyword, value)
    return instances


def receive(node: MemoryNode, instances: Iterable[Dataset]) -> None:
    """Instances arrive, and the study is due."""
    node.receive(instances)
    node.dispatcher.start(UID)


def names(node: MemoryNode) -> list[str]:
    """The Patient ID of each report that was made."""
    return [report.PatientID for report in node.reports()]


def test_study_that_waits_is_ordered_anew_under_the_new_identity(node: MemoryNode) -> None:
    """Before its report, a correction replaces the order that waits; only the new name is reported."""
    receive(node, all_instances(make_small_study()))
    receive(node, corrected())
    assert node.run() == ["reported"]
    assert names(node) == ["RIGHT-1"]
    assert node.status(UID).attention == ("48 instances were corrected",)


def test_reported_study_is_reported_anew_of_the_same_regions(node: MemoryNode) -> None:
    """New UIDs, the new name, the predecessor named, and no network runs again; then nothing more happens."""
    receive(node, all_instances(make_small_study()))
    node.run()
    receive(node, corrected())
    assert node.run() == ["reported"]
    first, second = node.reports()
    assert [first.PatientID, second.PatientID] == ["PAT-4711", "RIGHT-1"]
    assert second.AccessionNumber == "A-1"
    assert first.SOPInstanceUID != second.SOPInstanceUID
    (study,) = second.PredecessorDocumentsSequence
    reference = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert study.ReferencedSeriesSequence[0].SeriesInstanceUID == first.SeriesInstanceUID
    assert reference.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in first
    assert len(node.pipeline.segmented) == 1
    folder = node.config.work_folder / str(node.status(UID).folder)
    (caution, *_) = json.loads((folder / "result.json").read_text("utf-8"))["cautions"]
    assert caution.endswith("instances were corrected since")
    receive(node, [*corrected(), *all_instances(make_small_study())])
    assert node.run() == []
    assert node.dispatcher.judged_before([UID]) == {UID}


def test_correction_that_was_cut_short_changes_nothing_until_it_is_sent_again(
    node: MemoryNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails, or the process ends, when the old version has its name aside, but is still in use: no report of
    the same instances under the same name is made once more.
    """

    def fail(_names: DurableNames, _file: Path, _final: Path) -> None:
        raise OSError(errno.EIO, "disk")

    receive(node, all_instances(make_small_study()))
    node.run()
    with monkeypatch.context() as patched:
        patched.setattr(DurableNames, "replace", fail)
        with pytest.raises(OSError, match="disk"):
            node.receive(corrected())
    assert list((node.config.spool_folder / ".superseded").rglob("*.dcm")) != []
    assert node.dispatcher.judged_before([UID]) == {UID}
    node.dispatcher.start(UID)
    assert node.run() == []
    receive(node, corrected())
    assert node.run() == ["reported"]
    assert names(node) == ["PAT-4711", "RIGHT-1"]


def start_delivery(node: MemoryNode, state: str) -> str:
    """A delivery of the latest results that a worker has begun; returns its id."""
    (_, request) = list(node.engine.records.values())[-1]
    workflow_id = f"{request.workflow_id}-pacs"
    node.engine.enqueue("deliver-pacs", "deliver", workflow_id, attributes=request.attributes)
    node.engine.change(workflow_id, engine_status="PENDING", state=PublishedState(state, None))
    return workflow_id


@pytest.mark.parametrize(
    ("state", "status"),
    [("sending", "CANCELLED"), ("retrying", "CANCELLED"), ("delivered", "PENDING"), ("committing", "PENDING")],
)
@pytest.mark.parametrize("how", ["redo", "hold"])
def test_old_identity_is_not_delivered_any_more(
    how: str, state: str, status: str, node: MemoryNode, holding: MemoryNode
) -> None:
    """A delivery that waits for its destination ends at the correction; what the destination has stays there."""
    node = node if how == "redo" else holding
    receive(node, all_instances(make_small_study()))
    node.run()
    delivery = start_delivery(node, state)
    receive(node, corrected())
    assert node.engine.records[delivery][1].engine_status == status


def test_later_series_ends_no_delivery(node: MemoryNode) -> None:
    """Without a correction earlier results go on to their destination."""
    first, *others = all_instances(make_small_study())
    receive(node, others)
    node.run()
    delivery = start_delivery(node, "retrying")
    receive(node, [first])
    node.run()
    assert node.engine.records[delivery][1].engine_status == "PENDING"


@pytest.mark.slow
def test_second_correction_uses_the_regions_once_more(node: MemoryNode) -> None:
    """Emergency name, wrong name, right name: three reports of one segmentation, each naming the one before."""
    receive(node, all_instances(make_small_study()))
    node.run()
    for patient_id in ("WRONG-1", "RIGHT-1"):
        receive(node, corrected(PatientID=patient_id))
        assert node.run() == ["reported"]
    assert names(node) == ["PAT-4711", "WRONG-1", "RIGHT-1"]
    assert len(node.pipeline.segmented) == 1
    assert len({report.SOPInstanceUID for report in node.reports()}) == 3


def test_correction_of_a_part_is_reported_under_neither_name(node: MemoryNode) -> None:
    """While only T1c and T2 are corrected the study is refused with the reason; with the rest it is reported."""
    receive(node, all_instances(make_small_study()))
    node.run()
    receive(node, corrected(["T1c", "T2"]))
    assert node.run() == ["refused"]
    reason = str(node.status(UID).reason)
    assert "name two patients" in reason
    assert "only 24 of the 48 instances used are corrected so far" in reason
    assert "RIGHT" not in reason
    receive(node, corrected(["T1", "FLAIR"]))
    assert node.run() == ["reported"]
    assert names(node) == ["PAT-4711", "RIGHT-1"]
    assert len(node.pipeline.segmented) == 1


@pytest.mark.slow
def test_correction_of_a_part_by_its_order_alone_is_not_reported(node: MemoryNode) -> None:
    """Also where the patient stays and only the Accession Number changes."""
    receive(node, all_instances(make_small_study()))
    node.run()
    first = corrected(["FLAIR"], AccessionNumber="A-0")
    receive(node, first)
    assert node.run() == ["reported"]
    receive(node, corrected(["T1c"], AccessionNumber="A-1"))
    assert node.run() == ["refused"]
    assert "differ in (0008,0050) Accession Number; only 24" in str(node.status(UID).reason)


@pytest.mark.parametrize("is_all", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_correction_that_arrives_during_the_steps_is_followed(node: MemoryNode, is_all: bool) -> None:
    """The old order makes no result once instances were corrected; the next one has the name that is there now."""
    instances = corrected() if is_all else corrected(["T1c"])
    receive(node, all_instances(make_small_study()))
    node.pipeline._before_report = lambda: node.receive(instances)
    assert node.run() == ["failed"]
    assert node.reports() == []
    assert "instances were corrected since the study was ordered" in str(node.status(UID).reason)
    node.pipeline._before_report = lambda: None
    receive(node, corrected())
    assert "reported" in node.run()
    assert names(node) == ["RIGHT-1"]


def order_late(node: MemoryNode, monkeypatch: pytest.MonkeyPatch, is_run: bool) -> None:
    """One receiver orders the study as it was when T1c alone was corrected, after the other ordered it complete.

    ``is_run``: the complete order is reported before that.
    """
    slow = StudyDispatcher(node.config, node.engine, Metrics())
    enqueue = slow._enqueue

    def held_up(*arguments: Any) -> str:
        receive(node, corrected(["T1", "T2", "FLAIR"]))
        assert not is_run or node.run() == ["reported"]
        return enqueue(*arguments)

    monkeypatch.setattr(slow, "_enqueue", held_up)
    node.receive(corrected(["T1c"]))
    slow.start(UID)


@pytest.mark.parametrize("is_run", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("is_first", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_order_of_a_slow_receiver_leads_to_the_one_of_what_is_there(
    node: MemoryNode, monkeypatch: pytest.MonkeyPatch, is_run: bool, is_first: bool
) -> None:
    """What it saw is corrected since: the study's one report under the right name stands, and is not made twice."""
    receive(node, all_instances(make_small_study()))
    if not is_first:
        node.run()
    order_late(node, monkeypatch, is_run)
    assert node.run()[-1] == "reselected"
    assert node.run() == []
    assert node.status(UID).state == "reported"
    node.dispatcher.start(UID)
    assert node.run() == []
    assert names(node) == ["RIGHT-1"] if is_first else ["PAT-4711", "RIGHT-1"]
    assert len({report.SOPInstanceUID for report in node.reports()}) == (1 if is_first else 2)


def test_study_that_is_looked_at_while_a_late_order_waits_keeps_its_report(
    node: MemoryNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report that stands is delivered once more as it is, under its own UIDs: nothing else was told since."""
    receive(node, all_instances(make_small_study()))
    node.run()
    order_late(node, monkeypatch, is_run=True)
    node.dispatcher.start(UID)
    node.run()
    assert node.status(UID).state == "reported"
    assert len({report.SOPInstanceUID for report in node.reports()}) == 2
    node.dispatcher.start(UID)
    assert node.run() == []


def test_study_that_another_receiver_ordered_meanwhile_is_looked_at_again(
    node: MemoryNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Series that arrive at the other receiver while this one reads headers: its outdated order is never made."""
    slow = StudyDispatcher(node.config, node.engine, Metrics())
    request_again = slow._request_again

    def held_up(*arguments: Any) -> Any:
        found = request_again(*arguments)
        receive(node, [each for contrast in ("T2", "FLAIR") for each in make_small_study()[contrast]])
        return found

    node.receive([each for contrast in ("T1", "T1c") for each in make_small_study()[contrast]])
    with monkeypatch.context() as patched:
        patched.setattr(slow, "_request_again", held_up)
        with pytest.raises(StorageError, match="another receiver"):
            slow.start(UID)
    slow.start(UID)
    assert node.run() == ["reported"]


@pytest.mark.slow
def test_held_study_says_that_it_was_corrected_and_waits(holding: MemoryNode) -> None:
    """With "hold" a reported study stays as it is, also after a restart, until the administrator tries it again."""
    receive(holding, all_instances(make_small_study()))
    holding.run()
    receive(holding, corrected())
    assert holding.run() == []
    assert any("not done anew by itself" in text for text in holding.status(UID).attention)
    assert holding.dispatcher.judged_before([UID]) == frozenset()
    holding.dispatcher.start(UID)
    holding.dispatcher.retry(UID, {})
    assert holding.run() == ["reported"]
    assert names(holding) == ["PAT-4711", "RIGHT-1"]
    assert holding.status(UID).attention == ("48 instances were corrected",)
    holding.dispatcher.start(UID)
    assert holding.run() == []


@pytest.mark.slow
def test_study_that_is_not_reported_is_not_held(holding: MemoryNode) -> None:
    """With "hold", too, the first report has the name that is there when it is made."""
    receive(holding, all_instances(make_small_study()))
    receive(holding, corrected())
    assert holding.run() == ["reported"]
    assert names(holding) == ["RIGHT-1"]


@pytest.mark.slow
def test_taken_conflict_is_segmented_again(node: MemoryNode) -> None:
    """Other pixels that the administrator takes give other regions; keeping them out changes nothing."""
    receive(node, all_instances(make_small_study()))
    node.run()
    others = make_small_study()["T1c"][:2]
    for instance in others:
        instance.PixelData = bytes(range(1, 33))
    receive(node, others)
    assert node.run() == []
    assert "2 instances are in conflict" in node.status(UID).attention[0]
    first, second = node.spool.corrections.open_conflicts(UID)
    node.spool.corrections.keep(first.version)
    node.dispatcher.start(UID)
    assert node.run() == []
    node.spool.corrections.take(second.version)
    node.dispatcher.redo(UID)
    assert node.run() == ["reported"]
    assert len(node.pipeline.segmented) == 2
    receive(node, corrected(["T1", "T2", "FLAIR"]))
    assert node.run() == ["refused"]


@pytest.mark.slow
def test_study_that_comes_back_corrected_after_its_inputs_were_deleted(node: MemoryNode) -> None:
    """Nothing in the spool tells the correction then, but the results do: they are not sent under the old name."""
    receive(node, all_instances(make_small_study()))
    node.run()
    spool = node.config.spool_folder
    for instances, ends in ((list(all_instances(make_small_study())), []), (corrected(), ["reported"])):
        node.engine.describe(node.engine.workflows("process")[-1].workflow_id, {INPUTS_DELETED: "yes"})
        assert remove_study(spool, UID, contents(spool, UID), lambda _: False)
        node.receive(instances)
        assert node.dispatcher.judged_before([UID]) == frozenset()
        node.dispatcher.start(UID)
        assert node.run() == ends
        assert node.dispatcher.judged_before([UID]) == {UID}
    assert names(node) == ["PAT-4711", "RIGHT-1"]
    node.dispatcher.start(UID)
    assert node.run() == []


def test_study_that_comes_back_corrected_after_its_inputs_were_deleted_is_held(holding: MemoryNode) -> None:
    """With "hold" it waits, also after a restart, and its inputs are not judged until the administrator decides."""
    receive(holding, all_instances(make_small_study()))
    holding.run()
    spool = holding.config.spool_folder
    holding.engine.describe(holding.engine.workflows("process")[-1].workflow_id, {INPUTS_DELETED: "yes"})
    assert remove_study(spool, UID, contents(spool, UID), lambda _: False)
    for _ in range(2):
        receive(holding, corrected())
        assert holding.run() == []
        assert holding.status(UID).state == "reported"
        (why,) = holding.status(UID).attention
        assert "corrected or withdrawn in part since its report, and not done anew by itself" in why
        assert holding.dispatcher.judged_before([UID]) == frozenset()
    line = replace(holding.status(UID), deliveries=delivery_statuses(pacs="delivered"))
    (inputs,) = retention_statuses(holding.config, [line], datetime.now(UTC) + timedelta(days=999))
    assert inputs.held_because == "instances that arrived after it was ordered are not judged yet"
    holding.dispatcher.retry(UID, {})
    assert holding.run() == ["reported"]
    assert names(holding) == ["PAT-4711", "RIGHT-1"]
    holding.dispatcher.start(UID)
    assert holding.run() == []


def delete_all(node: MemoryNode) -> None:
    """Retention deletes inputs, results and database records of the study."""
    spool, now = node.config.spool_folder, datetime.now(UTC) + timedelta(days=999)
    line = replace(node.status(UID), deliveries=delivery_statuses(pacs="delivered"))
    assert remove_study(spool, UID, contents(spool, UID), lambda _: False)
    assert clean_results(node.config, RetentionSnapshot(now, [line], [], frozenset()), [UID], dry_run=False) != []
    node.engine.records.clear()


@pytest.mark.slow
def test_study_that_comes_back_corrected_after_everything_was_deleted_has_uids_of_its_own(node: MemoryNode) -> None:
    """Nothing but the source of the deleted results is known; the same instances get the same UIDs once more."""
    made = []
    for instances in (all_instances(make_small_study()), corrected(), all_instances(make_small_study()), corrected()):
        receive(node, instances)
        assert node.run() == ["reported"]
        (report,) = node.reports()
        seg = pydicom.dcmread(node.config.work_folder / str(node.status(UID).folder) / "seg.dcm")
        made.append((report.PatientID, report.SOPInstanceUID, report.SeriesInstanceUID, seg.SOPInstanceUID))
        delete_all(node)
    first, second, *again = made
    assert [first[0], second[0]] == ["PAT-4711", "RIGHT-1"]
    assert not set(first) & set(second)
    assert again == [first, second]


@pytest.mark.slow
def test_withdrawn_series_is_input_no_more(node: MemoryNode) -> None:
    """A study that needs it is refused, naming how many instances and why; another series takes its place."""
    code, study = WRONG_WORKLIST_ENTRY, make_small_study()
    receive(node, all_instances(study))
    node.run()
    receive(node, [key_object_selection(code, study["FLAIR"])])
    assert node.run() == ["refused"]
    line = node.status(UID)
    assert "no FLAIR" in str(line.reason)
    assert f"12 instances are withdrawn: {REJECTIONS[code]} ({code})" in str(line.reason)
    again = make_small_study()["FLAIR"]
    for number, instance in enumerate(again):
        instance.SeriesInstanceUID, instance.SeriesNumber = derived_uid("again"), 9
        instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = derived_uid("again", str(number))
    receive(node, [*study["FLAIR"], *again])
    assert node.run() == ["reported"]
    assert len(node.reports()) == 2


def test_note_before_the_study_is_processed_counts_from_the_first_order(node: MemoryNode) -> None:
    """Instances that arrive after their note are never input."""
    study = make_small_study()
    receive(node, [*all_instances({each: study[each] for each in ("T1", "T1c", "T2")})])
    receive(node, [key_object_selection("113037", study["FLAIR"]), *study["FLAIR"]])
    assert node.run() == ["refused"]
    assert "Rejected for Patient Safety Reasons" in str(node.status(UID).reason)


@pytest.mark.slow
def test_study_of_which_nothing_is_left_is_refused(node: MemoryNode) -> None:
    """All its instances are withdrawn: that is the reason, and the report that was made is not done anew."""
    study = make_small_study()
    receive(node, all_instances(study))
    node.run()
    receive(node, [key_object_selection("113001", all_instances(study))])
    assert node.run() == ["refused"]
    assert str(node.status(UID).reason).startswith("no instance of the study is left; 48 instances are withdrawn")
    assert len(node.reports()) == 1


@pytest.mark.slow
def test_withdrawn_series_holds_a_study_that_the_administrator_holds(holding: MemoryNode) -> None:
    """With "hold" the reported study says that it was changed."""
    study = make_small_study()
    receive(holding, all_instances(study))
    holding.run()
    receive(holding, [key_object_selection("113001", study["FLAIR"])])
    assert holding.run() == []
    line = holding.status(UID)
    assert line.state == "reported"
    assert ["12 instances are withdrawn" in text for text in line.attention] == [False, True]


@pytest.mark.slow
def test_expired_instances_leave_a_report_as_it_is(node: MemoryNode) -> None:
    """An archive that deletes by its retention policy says nothing against the images: the report stays right."""
    study = make_small_study()
    receive(node, all_instances(study))
    node.run()
    receive(node, [key_object_selection(EXPIRED, all_instances(study))])
    assert node.run() == []
    assert node.status(UID).state == "reported"


def test_withdrawn_series_that_nobody_uses_changes_nothing(node: MemoryNode) -> None:
    """A rejected localizer leaves the results as they are, and the study is judged once only."""
    study = make_small_study()
    localizer = make_small_study()["T1"][:1]
    localizer[0].SeriesInstanceUID, localizer[0].SeriesDescription = derived_uid("localizer"), "localizer"
    localizer[0].SOPInstanceUID = localizer[0].file_meta.MediaStorageSOPInstanceUID = derived_uid("localizer", "1")
    receive(node, [*all_instances(study), *localizer])
    node.run()
    receive(node, [key_object_selection("113001", localizer)])
    assert node.run() == []
    assert node.dispatcher.judged_before([UID]) == {UID}


@pytest.mark.slow
def test_instances_that_move_to_another_study_leave_the_first(node: MemoryNode) -> None:
    """An archive that merges studies sends images under another Study Instance UID: the older place counts no more."""
    receive(node, all_instances(make_small_study()))
    node.run()
    moved = corrected(StudyInstanceUID="1.2.3.4", PatientID="RIGHT-1")
    node.receive(moved)
    node.dispatcher.start("1.2.3.4")
    assert sorted(node.run()) == ["refused", "reported"]
    assert "48 instances are withdrawn: moved to study 1.2.3.4" in str(node.status(UID).reason)
    assert node.status("1.2.3.4").state == "reported"
    assert names(node) == ["PAT-4711", "RIGHT-1"]
    node.dispatcher.start(UID)
    node.dispatcher.start("1.2.3.4")
    assert node.run() == []


@pytest.mark.slow
def test_instances_that_move_back_are_reported_in_their_first_study_again(node: MemoryNode) -> None:
    """A merge that is undone, twice, with a restart between: the study that has the images is reported once more."""
    receive(node, all_instances(make_small_study()))
    node.run()
    moved = corrected(StudyInstanceUID="1.2.3.4", PatientID="RIGHT-1")
    for number, (here, instances) in enumerate(
        [("1.2.3.4", moved), (UID, list(all_instances(make_small_study())))] * 2
    ):
        left = UID if here == "1.2.3.4" else "1.2.3.4"
        node.receive(instances)
        assert here not in node.dispatcher.judged_before([here])
        node.dispatcher = StudyDispatcher(node.config, node.engine, Metrics())
        node.dispatcher.start(here)
        assert sorted(node.run()) == ["refused", "reported"], number
        assert node.status(here).state == "reported"
        assert node.status(here).attention == ()
        assert f"48 instances are withdrawn: moved to study {here}" in str(node.status(left).reason)
    for uid in (UID, "1.2.3.4"):
        node.dispatcher.start(uid)
    assert node.run() == []
    assert sorted(names(node)) == ["PAT-4711"] * 3 + ["RIGHT-1"] * 2


def test_study_whose_instances_are_input_again_is_ordered_again(node: MemoryNode) -> None:
    """Withdrawn as expired before its report, and sent again: the first order was cancelled, and is made once more."""
    study = make_small_study()
    receive(node, all_instances(study))
    receive(node, [key_object_selection(EXPIRED, all_instances(study))])
    assert node.run() == ["refused"]
    node.receive(all_instances(study))
    assert node.dispatcher.judged_before([UID]) == frozenset()
    node.dispatcher.start(UID, frozenset(each.name for each in node.spool.series_folders(UID)))
    assert node.run() == ["reported"]
    assert node.dispatcher.judged_before([UID]) == {UID}
    node.dispatcher.start(UID)
    assert node.run() == []


def test_last_report_has_the_identity_in_use_however_often_the_administrator_decides(node: MemoryNode) -> None:
    """Corrected, taken back, and taken once more: each time a report under its own UIDs names the one before."""
    receive(node, all_instances(make_small_study()))
    node.run()
    receive(node, corrected())
    assert node.run() == ["reported"]
    for instances in (all_instances(make_small_study()), corrected()):
        receive(node, instances)
        assert node.run() == []
        for conflict in node.spool.corrections.open_conflicts(UID):
            node.spool.corrections.take(conflict.version)
        node.dispatcher.redo(UID)
        assert node.run() == ["reported"]
        node.dispatcher.start(UID)
        assert node.run() == []
    assert names(node) == ["PAT-4711", "RIGHT-1", "PAT-4711", "RIGHT-1"]
    reports = node.reports()
    assert len({report.SOPInstanceUID for report in reports}) == 4
    (study,) = reports[3].PredecessorDocumentsSequence
    reference = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == reports[2].SOPInstanceUID
    assert len(node.pipeline.segmented) == 1
    assert node.dispatcher.judged_before([UID]) == {UID}


def test_refusal_never_has_the_name_of_withdrawn_instances(tmp_path: Path) -> None:
    """What was withdrawn says nothing of whose exam it is; with nothing left, no refusal is sent."""
    destination = Destination("pacs", "PACS", "127.0.0.1", 1)
    config = write_config(tmp_path, [destination], delivery={"send_refusals": True})
    node, study = MemoryNode(load_config(config)), make_small_study()
    receive(node, all_instances(study))
    receive(node, [key_object_selection(WRONG_WORKLIST_ENTRY, all_instances(study))])
    assert node.run() == ["refused"]
    assert not list(node.config.work_folder.rglob("refusal.dcm"))
    receive(node, corrected(["T1"]))
    assert node.run() == ["refused"]
    (refusal,) = node.config.work_folder.rglob("refusal.dcm")
    assert pydicom.dcmread(refusal).PatientID == "RIGHT-1"


@pytest.mark.slow
def test_study_that_lost_instances_is_judged_although_the_first_try_failed(
    node: MemoryNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database does not answer once the instances are withdrawn from the first study: the next try judges both."""
    receive(node, all_instances(make_small_study()))
    node.run()
    node.receive(corrected(StudyInstanceUID="1.2.3.4", PatientID="RIGHT-1"))
    with monkeypatch.context() as patch:
        patch.setattr(node.engine, "enqueue", lambda *_, **__: (_ for _ in ()).throw(EngineError("no answer")))
        with pytest.raises(EngineError):
            node.dispatcher.start("1.2.3.4")
    node.dispatcher.start("1.2.3.4")
    assert sorted(node.run()) == ["refused", "reported"]


def test_humans_are_notified_once_of_each_change(tmp_path: Path) -> None:
    """A correction, a conflict and a withdrawal each cause one notice, which holds no patient data."""
    config = load_config(write_config(tmp_path, notify={"urls": ["json://127.0.0.1:1/"]}))
    node, study = MemoryNode(config), make_small_study()
    receive(node, all_instances(study))
    other = make_small_study()["T2"][0]
    other.EchoTime = 1.5
    receive(node, [*corrected(), other, key_object_selection("113001", study["T1"])])
    node.dispatcher.start(UID)
    told = [node.engine.arguments[each.workflow_id] for each in node.engine.workflows("notice")]
    assert sorted(each[0] for each in told) == ["conflict", "corrected", "withdrawn"]
    assert {each[1] for each in told} == {UID}
    assert "RIGHT" not in str(told)


def chosen_t1c(node: MemoryNode) -> str:
    """The series that the study's latest request takes for T1c."""
    request = ProcessingRequest.from_json(list(node.engine.arguments.values())[-1][0])
    assert request.selection is not None
    return request.selection.chosen[Contrast.T1C].series_instance_uid


@pytest.mark.parametrize("name", ["by its UID", "by its number"])
def test_series_chosen_by_hand_stays_chosen_when_the_study_is_corrected(node: MemoryNode, name: str) -> None:
    """Again and again, whatever number the correction gives it, until the administrator orders without a choice."""
    study = make_small_study()
    automatic, by_hand = (str(study[each][0].SeriesInstanceUID) for each in ("T1c", "T1"))
    number, other = (str(study[each][0].SeriesNumber) for each in ("T1", "T1c"))
    receive(node, all_instances(study))
    use = {Contrast.T1C: by_hand, Contrast.T1: automatic}
    node.dispatcher.retry(UID, use if name == "by its UID" else {Contrast.T1C: number, Contrast.T1: other})
    assert chosen_t1c(node) == by_hand
    for patient_id in ("WRONG-1", "RIGHT-1"):
        receive(node, [*corrected(["T2", "FLAIR"], PatientID=patient_id)])
        receive(node, [*corrected(["T1"], PatientID=patient_id, SeriesNumber="77")])
        receive(node, [*corrected(["T1c"], PatientID=patient_id)])
        assert chosen_t1c(node) == by_hand
    node.dispatcher.retry(UID, {})
    assert chosen_t1c(node) == automatic
    receive(node, corrected(PatientID="THIRD-1"))
    assert chosen_t1c(node) == automatic
    assert not any("by hand" in text for text in node.status(UID).attention)


def test_choice_by_hand_that_cannot_be_kept_is_told(node: MemoryNode) -> None:
    """The chosen series is withdrawn: the rules choose another, log and status say so; the rest of the choice stays."""
    study, again = make_small_study(), make_small_study()["FLAIR"]
    for number, instance in enumerate(again):
        instance.SeriesInstanceUID, instance.SeriesNumber = derived_uid("again"), 9
        instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = derived_uid("again", str(number))
    receive(node, [*all_instances(study), *again])
    t1c = str(study["T1c"][0].SeriesInstanceUID)
    flair = str(study["FLAIR"][0].SeriesInstanceUID)
    node.dispatcher.retry(UID, {Contrast.FLAIR: flair, Contrast.T1C: t1c})
    with structlog.testing.capture_logs() as events:
        receive(node, [key_object_selection("113001", study["FLAIR"])])
    assert "choice_by_hand_not_kept" in [each["event"] for each in events]
    (text,) = (each for each in node.status(UID).attention if "by hand" in each)
    assert text.startswith(f"no longer input: FLAIR series {flair}; chosen by hand before")
    request = ProcessingRequest.from_json(list(node.engine.arguments.values())[-1][0])
    assert request.use == {Contrast.T1C: t1c}
    assert request.selection is not None
    assert request.selection.chosen[Contrast.FLAIR].series_instance_uid == derived_uid("again")
