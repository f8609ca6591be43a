"""One delivery, from the first attempt to the commitment, with a PACS that does what it can to spoil it."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_archive import FakeArchive, Reaction, uids_of
from faults import FakePacs, Fault, free_port, wait_until
from instances import encode_instance, make_instance, sop_instance_uid
from memory_steps import Killed, MemorySteps
from pydicom.uid import ImplicitVRLittleEndian, MRImageStorage, SegmentationStorage
from structlog.testing import capture_logs

from node.config import Config, build_config
from node.config_sections import DeliverySection
from node.delivery import destination_requests
from node.delivery.delivery import Delivery
from node.delivery.progress import DeliveryProgress
from node.delivery.records import PlannedInstance
from node.dicom.commitment import CommitmentReport, Commitments
from node.dicom.uids import derived_uid
from node.errors import DeliveryError
from node.metrics import Metrics
from node.scp.commitment import CommitmentHandler
from node.scp.handlers import StorageHandlers
from node.scp.server import Receiver
from node.scp.spool import Spool

SEG, SR = sop_instance_uid(1), sop_instance_uid(2)
STUDY = "1.2.3"


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_until(lambda: set(threading.enumerate()) <= before)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A work folder with two results."""
    work = tmp_path / "work"
    work.mkdir()
    for number, name in ((1, "seg.dcm"), (2, "sr.dcm")):
        (work / name).write_bytes(encode_instance(make_instance(number)))
    return str(work)


def make_config(tmp_path: Path, pacs: FakePacs, commitment: bool = False, **delivery: float) -> Config:
    """A config with the one destination ``pacs``; humans are told of failed studies."""
    section = {"first_retry_seconds": 1.0, "longest_retry_seconds": 4.0, "timeout_seconds": 20.0, **delivery}
    peer = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port, "commitment": commitment}
    values = {"node": {"folder": str(tmp_path / "var")}, "delivery": section, "destination": [peer]}
    values["notify"] = {"urls": ["json://127.0.0.1:1/"], "states": ["failed"]}
    return build_config({**values, "scp": {"port": free_port(), "watermark_mebibytes": 1}})


def deliver(config: Config, steps: MemorySteps, folder: str) -> dict[str, Any]:
    """Run the workflow."""
    return Delivery(config).deliver(steps, STUDY, folder, "pacs")


@contextmanager
def receiver(config: Config, on_report: Callable[[str, dict[str, Any], str], None]) -> Iterator[None]:
    """The node's SCP, which hands reports to ``on_report``."""
    metrics = Metrics()
    storage = StorageHandlers(Spool(config.spool_folder), metrics, config.scp, lambda *_: None)
    handler = CommitmentHandler(Commitments(config.commitments_folder), metrics, on_report)
    with Receiver(config.scp, storage, metrics, commitment=handler):
        yield


def waiting_transactions(config: Config) -> list[str]:
    """The Transaction UIDs that a delivery awaits."""
    folder = config.commitments_folder
    return sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []


# ---- sending -------------------------------------------------------------------------------------------------------


def test_delivered_at_once(tmp_path, folder):
    """Two results that the PACS takes are delivered in one attempt; what it says beyond "stored" is told."""
    steps = MemorySteps()
    with FakePacs([0x0000, 0xB007], sop_classes=[MRImageStorage]) as pacs:
        result = deliver(make_config(tmp_path, pacs), steps, folder)
    remark = "sr.dcm 0xB007 stored, data set does not match its SOP class"
    assert (result["state"], result["reason"], result["attempts"]) == ("delivered", remark, 1)
    assert [(each["sop_instance_uid"], each["status"], each["attempts"]) for each in result["instances"]] == [
        (SEG, 0x0000, 1),
        (SR, 0xB007, 1),
    ]
    assert all(each["is_delivered"] for each in result["instances"])
    assert steps.told == ["sending", "delivered"]
    assert steps.pauses == []


def test_only_what_is_not_delivered_is_sent_again(tmp_path, folder):
    """What the PACS took is not sent again; the other one is, after pauses that double up to a limit."""
    steps = MemorySteps()
    plan = [0x0000, 0xA700, 0xA700, 0x0110, Fault.ABORT, 0x0000]
    with FakePacs(plan, sop_classes=[MRImageStorage]) as pacs:
        result = deliver(make_config(tmp_path, pacs), steps, folder)
    assert uids_of(pacs.received) == [SEG, SR]
    assert [each["attempts"] for each in result["instances"]] == [1, 5]
    assert steps.pauses == [1.0, 2.0, 4.0, 4.0]
    assert steps.told[1] == "retrying: seg.dcm delivered; sr.dcm 0xA700 out of resources"


def test_other_files_of_the_folder_can_be_sent(tmp_path, folder):
    """A refused study sends the one file that it has."""
    (Path(folder) / "refusal.dcm").write_bytes(encode_instance(make_instance(3)))
    with FakePacs(sop_classes=[MRImageStorage]) as pacs:
        delivery = Delivery(make_config(tmp_path, pacs))
        result = delivery.deliver(MemorySteps(), STUDY, folder, "pacs", ["refusal.dcm"])
    assert uids_of(pacs.received) == [sop_instance_uid(3)]
    assert [each["file"] for each in result["instances"]] == ["refusal.dcm"]


def test_permanent_refusal_fails_and_says_which(tmp_path, folder):
    """A result refused for good fails the delivery after the other one, refused for now, was delivered."""
    steps = MemorySteps()
    pacs = FakePacs([0xA900, 0xA700, 0x0000], sop_classes=[MRImageStorage])
    with pacs, pytest.raises(DeliveryError) as error:
        deliver(make_config(tmp_path, pacs), steps, folder)
    assert str(error.value) == "pacs: seg.dcm 0xA900 data set does not match its SOP class; sr.dcm delivered"
    assert uids_of(pacs.received) == [SR]
    assert steps.pauses == [1.0]


def test_rejected_presentation_context_fails_and_the_other_result_is_delivered(tmp_path, folder):
    """A PACS that does not take the SEG's SOP class gets the SR; the error says that the SEG is missing, and why."""
    seg = make_instance(1)
    seg.SOPClassUID = seg.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    (Path(folder) / "seg.dcm").write_bytes(encode_instance(seg))
    steps = MemorySteps()
    with FakePacs(sop_classes=[MRImageStorage]) as pacs, pytest.raises(DeliveryError) as error:
        deliver(make_config(tmp_path, pacs, commitment=True), steps, folder)
    rejected = f"presentation context rejected: SOP class {SegmentationStorage} in 1.2.840.10008.1.2.1"
    assert str(error.value) == f"pacs: seg.dcm {rejected} or 1.2.840.10008.1.2; sr.dcm delivered"
    assert uids_of(pacs.received) == [SR]
    assert steps.pauses == []


def test_gives_up_after_the_seconds_waited(tmp_path, folder):
    """A PACS that is down is given up when the pauses add up to the limit, whatever the clock says."""
    steps = MemorySteps()
    pacs = FakePacs()
    with pytest.raises(DeliveryError, match=r"given up after .* cannot be reached"):
        deliver(make_config(tmp_path, pacs, give_up_days=10 / 86400), steps, folder)
    assert steps.pauses == [1.0, 2.0, 4.0, 4.0]


@pytest.mark.slow
def test_pacs_that_comes_back_gets_its_results(tmp_path, folder):
    """A PACS that was down for the first attempts gets both results once it is up."""
    pacs = FakePacs(sop_classes=[MRImageStorage])
    steps = MemorySteps(on_sleep=lambda: pacs.__enter__() if len(steps.pauses) == 3 else None)
    try:
        result = deliver(make_config(tmp_path, pacs), steps, folder)
    finally:
        pacs.__exit__(None, None, None)
    assert result["attempts"] == 4
    assert uids_of(pacs.received) == [SEG, SR]


@pytest.mark.parametrize("trouble", ["file", "no DICOM", "destination"])
def test_what_is_gone_fails_with_its_name(tmp_path, folder, trouble):
    """A result or a destination that is no longer there fails the delivery, and the text names it."""
    config = make_config(tmp_path, FakePacs())
    if trouble == "file":
        (Path(folder) / "sr.dcm").unlink()
    elif trouble == "no DICOM":
        (Path(folder) / "sr.dcm").write_bytes(b"no DICOM")
    else:
        config = config.without_destinations()
    with pytest.raises(DeliveryError, match="pacs"):
        deliver(config, MemorySteps(), folder)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["refused", "given up", "gone"])
def test_humans_are_told_of_a_delivery_that_failed_for_good(tmp_path, folder, trouble):
    """Once, as of a failed study, with the destination's name in the reason; of one that succeeded nobody is told."""
    pacs = FakePacs([0xC000] if trouble == "refused" else [0xA700] * 99, sop_classes=[MRImageStorage])
    config, steps = make_config(tmp_path, pacs, give_up_days=1 / 86400), MemorySteps()
    if trouble == "gone":
        (Path(folder) / "sr.dcm").unlink()
    with pacs, pytest.raises(DeliveryError) as error:
        deliver(config, steps, folder)
    with pytest.raises(DeliveryError):
        deliver(config, again := MemorySteps(steps.recorded), folder)
    assert str(error.value).startswith("pacs: ")
    assert steps.started == {"notice-failed-digest-pacs": ("notice", "notice", "failed", STUDY, str(error.value))}
    assert again.started == steps.started
    with FakePacs(sop_classes=[MRImageStorage]) as well:
        (Path(folder) / "sr.dcm").write_bytes(encode_instance(make_instance(2)))
        deliver(make_config(tmp_path, well), good := MemorySteps(), folder)
    assert good.started == {}


# ---- trouble of the disk -------------------------------------------------------------------------------------------


class Disk:
    """Lets the n-th call of ``function`` meet with ``error``; n as in ``bad``."""

    def __init__(self, function: Callable[..., Any], error: OSError, *bad: int) -> None:
        self._function, self._error, self._bad = function, error, bad
        self.calls = 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls in self._bad:
            raise self._error
        return self._function(*arguments)


STALE = OSError(errno.ESTALE, os.strerror(errno.ESTALE), "/spool/1.2.3")


@pytest.mark.slow
@pytest.mark.parametrize("call", range(1, 7), ids=["plan", "plan sr", "send", "send sr", "commit", "commit sr"])
def test_trouble_of_the_disk_that_passes_is_waited_out(tmp_path, folder, monkeypatch, call):
    """A result that cannot be read for a moment is tried again after a pause, whichever step it happens in."""
    disk = Disk(destination_requests.read_outgoing, STALE, call)
    monkeypatch.setattr(destination_requests, "read_outgoing", disk)
    steps = MemorySteps()
    with FakeArchive(reactions=[Reaction("same")]) as pacs:
        result = deliver(make_config(tmp_path, pacs, commitment=True), steps, folder)
    assert result["state"] == "committed"
    assert sorted(uids_of(pacs.received)) == sorted([SEG, SR])
    assert disk.calls > 6
    retried = [text for text in steps.told if text.startswith("retrying")]
    assert all("Stale file handle" in text and "/spool" not in text for text in retried)
    assert len(steps.pauses) == len(retried) == (0 if call > 4 else 1)  # a commitment is waited for, not slept for


@pytest.mark.slow
def test_trouble_of_the_disk_while_querying_is_waited_out(tmp_path, folder, monkeypatch):
    """What could not be read when the PACS was to be asked what it holds is asked after a pause."""
    monkeypatch.setattr(destination_requests, "read_outgoing", Disk(destination_requests.read_outgoing, STALE, 7))
    with FakeArchive(reactions=[Reaction("nowhere")]) as pacs:
        result = deliver(make_config(tmp_path, pacs, commitment=True), steps := MemorySteps(), folder)
    assert result["state"] == "present"
    assert steps.pauses == [1.0]


def test_full_disk_does_not_end_a_commitment(tmp_path, folder, monkeypatch):
    """A request that cannot be noted is not made; it is made, under the same transaction, once it can."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")
    expect, forget = Commitments.expect, Commitments.forget
    noted = Disk(lambda *arguments: expect(Commitments(config.commitments_folder), *arguments), full, 1, 2)
    monkeypatch.setattr(Commitments, "expect", lambda _, *arguments: noted(*arguments))
    forgotten = Disk(lambda uid: forget(Commitments(config.commitments_folder), uid), full, 1)
    monkeypatch.setattr(Commitments, "forget", lambda _, uid: forgotten(uid))
    with FakeArchive(reactions=[Reaction("same")]) as pacs:
        config = make_config(tmp_path, pacs, commitment=True)
        assert deliver(config, MemorySteps(), folder)["state"] == "committed"
    assert (noted.calls, len(pacs.transactions), forgotten.calls) == (3, 1, 1)


def test_trouble_of_the_disk_is_given_up_in_the_end(tmp_path, folder, monkeypatch):
    """A disk that stays broken fails the delivery when the pauses add up to the limit, as a PACS that is down does."""
    monkeypatch.setattr(
        destination_requests, "read_outgoing", Disk(destination_requests.read_outgoing, STALE, *range(99))
    )
    steps = MemorySteps()
    with pytest.raises(DeliveryError, match=r"pacs: given up after .* Stale file handle"):
        deliver(make_config(tmp_path, FakePacs(), give_up_days=10 / 86400), steps, folder)
    assert steps.pauses == [1.0, 2.0, 4.0, 4.0]


# ---- restarts ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("dies_after", range(6), ids=["plan", "send", "sleep", "send again", "commit", "forget"])
def test_restart_anywhere_loses_and_doubles_nothing(tmp_path, folder, dies_after):
    """Killed after any step's work and before its record, a delivery goes on and ends as if nothing had happened."""
    reactions = [Reaction("same")] * 3
    with FakeArchive([0x0000, 0xA700], reactions=reactions) as pacs:
        config = make_config(tmp_path, pacs, commitment=True)
        first = MemorySteps(dies_after=dies_after)
        with pytest.raises(Killed):
            deliver(config, first, folder)
        result = deliver(config, MemorySteps(first.recorded), folder)
        assert len(pacs.transactions) <= 2
        assert len(set(pacs.transactions)) == 1
    assert result["state"] == "committed"
    assert set(uids_of(pacs.received)) == {SEG, SR}
    assert waiting_transactions(config) == []


def test_replay_does_nothing_again(tmp_path, folder):
    """A workflow that is replayed to its end sends nothing and returns the same."""
    with FakeArchive(reactions=[Reaction("same")]) as pacs:
        config = make_config(tmp_path, pacs, commitment=True)
        first = MemorySteps()
        result = deliver(config, first, folder)
        count = pacs.association_count
        assert deliver(config, MemorySteps(first.recorded), folder) == result
        assert pacs.association_count == count


# ---- commitment ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_committed_by_a_report_on_its_own_association(tmp_path, folder):
    """The report that the PACS brings to the node's port commits the delivery; that it comes twice changes nothing."""
    steps = MemorySteps(patience_seconds=20.0)
    with FakeArchive(reactions=[Reaction("new", times=2)]) as pacs:
        config = make_config(tmp_path, pacs, commitment=True)
        pacs.node = (config.scp.ae_title, config.scp.port)
        with receiver(config, steps.send):
            # the second report may come when the delivery is over, and is unknown then
            result = deliver(config, steps, folder)
            wait_until(lambda: len(pacs.report_answers) == 2)
    assert (result["state"], result["reason"]) == ("committed", None)
    assert all(each["is_committed"] for each in result["instances"])
    assert steps.told == ["sending", "delivered", "committing", "committed"]
    assert pacs.asked == [[SEG, SR]]
    assert pacs.report_answers[0] == 0x0000
    assert pacs.report_answers[1] in (0x0000, 0x0112)
    assert steps.messages.empty()
    assert waiting_transactions(config) == []


def test_committed_by_a_report_on_the_same_association(tmp_path, folder):
    """The report that comes before the request's association is released is answered and commits the delivery."""
    with FakeArchive(reactions=[Reaction("same")]) as pacs:
        result = deliver(make_config(tmp_path, pacs, commitment=True), MemorySteps(), folder)
        wait_until(lambda: pacs.report_answers)
    assert (result["state"], result["reason"]) == ("committed", None)
    assert pacs.report_answers == [0x0000]


def test_pacs_of_implicit_vr_alone_stores_commits_and_is_queried(tmp_path, folder):
    """Storage commitment, and the query in its place, follow on results that were sent in Implicit VR."""
    syntaxes = [ImplicitVRLittleEndian]
    with FakeArchive(reactions=[Reaction("same")], transfer_syntaxes=syntaxes) as pacs:
        committed = deliver(make_config(tmp_path, pacs, commitment=True), MemorySteps(), folder)
    assert (committed["state"], committed["reason"]) == ("committed", None)
    assert {each.transfer_syntax_uid for each in pacs.received} == {ImplicitVRLittleEndian}
    with FakeArchive(reactions=None, transfer_syntaxes=syntaxes) as pacs:
        found = deliver(make_config(tmp_path, pacs, commitment=True), MemorySteps(), folder)
    assert (found["state"], found["reason"]) == ("present", "found by query: does not offer storage commitment")


def test_what_was_lost_is_sent_again(tmp_path, folder):
    """An instance that the PACS reports as unknown is sent again, and committed to under another transaction."""
    steps = MemorySteps()
    with FakeArchive(reactions=[Reaction("same", {SR: 0x0112}), Reaction("same")]) as pacs:
        result = deliver(make_config(tmp_path, pacs, commitment=True), steps, folder)
    assert (result["state"], result["reason"], result["attempts"]) == ("committed", None, 2)
    assert uids_of(pacs.received) == [SEG, SR, SR]
    assert pacs.received[1].data_set == pacs.received[2].data_set
    assert pacs.asked == [[SEG, SR], [SR]]
    assert len(set(pacs.transactions)) == 2
    assert "retrying: not committed: 0x0112 no such object instance" in steps.told


@pytest.mark.slow
def test_silence_is_answered_by_a_query(tmp_path, folder):
    """If no report comes in time, what the PACS lists is present, which is less than committed; the result says why."""
    steps = MemorySteps()
    with FakeArchive(reactions=[Reaction("nowhere")]) as pacs:
        config = make_config(tmp_path, pacs, commitment=True, commitment_wait_seconds=7.0)
        result = deliver(config, steps, folder)
    assert result["state"] == "present"
    assert not any(each["is_committed"] for each in result["instances"])
    assert result["reason"] == "found by query: no report within 7 s"
    assert uids_of(pacs.received) == [SEG, SR]


@pytest.mark.slow
def test_what_a_query_does_not_list_is_sent_again(tmp_path, folder):
    """If no report comes and the PACS does not list an instance, it is sent again, and both are asked for again."""
    with FakeArchive(reactions=[Reaction("nowhere"), Reaction("same")], lost=[SEG]) as pacs:
        result = deliver(make_config(tmp_path, pacs, commitment=True), MemorySteps(), folder)
    assert result["state"] == "committed"
    assert uids_of(pacs.received) == [SEG, SR, SEG]
    assert pacs.asked == [[SEG, SR], [SEG, SR]]


@pytest.mark.slow
def test_late_report_on_an_earlier_transaction_counts(tmp_path, folder):
    """A report on the first transaction that comes while the second one is awaited commits what it names."""
    steps = MemorySteps()

    def report_late() -> None:
        message = {"transaction_uid": pacs.transactions[0], "committed": [SEG, SR], "failed": {}}
        steps.send(steps.workflow_id, message, "late")

    steps._on_sleep = report_late
    with FakeArchive(reactions=[Reaction("nowhere"), Reaction("nowhere")], lost=[SEG, SEG, SEG]) as pacs:
        result = deliver(make_config(tmp_path, pacs, commitment=True), steps, folder)
    assert (result["state"], result["reason"]) == ("committed", None)
    assert len(pacs.transactions) == 2


@pytest.mark.slow
@pytest.mark.parametrize("status", [None, 0x0122])
def test_pacs_that_does_not_commit_is_queried(tmp_path, folder, status):
    """A PACS that rejects the context or the action is asked at once what it holds."""
    reactions = None if status is None else [Reaction(status=status)]
    with FakeArchive(reactions=reactions) as pacs:
        result = deliver(make_config(tmp_path, pacs, commitment=True), MemorySteps(), folder)
    assert result["state"] == "present"
    assert "storage commitment" in result["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("find_status", [None, 0xC000])
def test_neither_commitment_nor_query_leaves_it_delivered(tmp_path, folder, find_status):
    """A PACS that neither commits nor answers queries has the results delivered, and the reason says both."""
    with FakeArchive(reactions=None, find_status=find_status) as pacs:
        result = deliver(make_config(tmp_path, pacs, commitment=True), MemorySteps(), folder)
    assert result["state"] == "delivered"
    assert "does not offer storage commitment" in result["reason"]
    assert "quer" in result["reason"]
    assert not any(each["is_committed"] for each in result["instances"])


def test_refused_commitment_is_no_success_although_a_query_would_list_the_instance(tmp_path, folder):
    """A reason that sending again cannot mend fails the delivery: that the PACS lists the instance promises nothing."""
    with FakeArchive(reactions=[Reaction("same", {SEG: 0x0122})]) as pacs:
        config, steps = make_config(tmp_path, pacs, commitment=True), MemorySteps()
        with pytest.raises(DeliveryError, match=r"pacs: seg\.dcm not committed: 0x0122 referenced SOP class"):
            deliver(config, steps, folder)
        assert pacs.held() == {SEG, SR}
    assert waiting_transactions(config) == []
    assert len(steps.started) == 1  # humans are notified


@pytest.mark.slow
def test_refused_instance_is_never_found_by_a_query(tmp_path, folder):
    """After a refusal that may pass, silence is no success: it is sent and asked for again until it is given up."""
    steps = MemorySteps()
    with FakeArchive(reactions=[Reaction("same", {SEG: 0x0110}), *[Reaction("nowhere")] * 9]) as pacs:
        config = make_config(tmp_path, pacs, commitment=True, commitment_wait_seconds=30.0, give_up_days=90 / 86400)
        with pytest.raises(DeliveryError, match=r"pacs: seg\.dcm not committed: 0x0110 processing failure"):
            deliver(config, steps, folder)
        assert pacs.held() == {SEG, SR}
    assert uids_of(pacs.received)[:3] == [SEG, SR, SEG]
    assert "present" not in steps.told
    refused = steps.told.index("retrying: not committed: 0x0110 processing failure")
    assert all(text.startswith("retrying") for text in steps.told[refused:])  # never as good as delivered


def test_one_instance_refused_and_one_not_named(tmp_path, folder):
    """Neither counts: both are asked for again, and both are committed by the next report."""
    steps = MemorySteps()
    reactions = [Reaction("same", {SEG: 0x0213}, omitted=(SR,)), Reaction("same")]
    with FakeArchive(reactions=reactions) as pacs:
        result = deliver(make_config(tmp_path, pacs, commitment=True), steps, folder)
    assert (result["state"], result["reason"]) == ("committed", None)
    assert pacs.asked == [[SEG, SR], [SEG, SR]]
    assert "retrying: not committed: 0x0213 resource limitation" in steps.told


@pytest.mark.slow
def test_instance_that_a_report_does_not_name_is_looked_for(tmp_path, folder):
    """A report on one of two instances commits that one; the other is found by a query, so that all are present."""
    with FakeArchive(reactions=[Reaction("same", omitted=(SR,))]) as pacs:
        result = deliver(make_config(tmp_path, pacs, commitment=True), MemorySteps(), folder)
    assert result["state"] == "present"
    assert result["reason"] == "found by query: the report names only some instances within 3600 s"
    assert [each["is_committed"] for each in result["instances"]] == [True, False]


@pytest.mark.slow
def test_report_on_the_association_that_names_more_than_was_asked_for(tmp_path, folder):
    """It is refused as a whole, and commits nothing."""
    with FakeArchive(reactions=[Reaction("same", added=("1.2.3.4",))]) as pacs:
        result = deliver(make_config(tmp_path, pacs, commitment=True), MemorySteps(), folder)
        wait_until(lambda: pacs.report_answers)
    assert pacs.report_answers == [0x0115]
    assert result["state"] == "present"
    assert not any(each["is_committed"] for each in result["instances"])


@pytest.mark.slow
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_instance_that_a_query_finds_elsewhere_is_not_present(tmp_path, folder, keyword):
    """An instance that the PACS lists in another study or series than that in which it was sent is not where it is."""
    with FakeArchive(reactions=None) as pacs:
        pacs.found = {keyword: "1.2.99"}
        config = make_config(tmp_path, pacs, commitment=True, give_up_days=0.5 / 86400)
        with pytest.raises(DeliveryError, match=r"seg\.dcm, sr\.dcm not committed: does not offer"):
            deliver(config, MemorySteps(), folder)


@pytest.mark.slow
def test_reports_that_were_not_asked_for_change_nothing(tmp_path, folder):
    """A message on another transaction, or on other instances, that reached the workflow all the same is ignored."""
    steps = MemorySteps()

    def forge() -> None:
        steps.send(steps.workflow_id, {"transaction_uid": "2.25.1", "committed": [SEG, SR], "failed": {}}, "forged")
        message = {"transaction_uid": pacs.transactions[0], "committed": ["1.2"], "failed": {"1.3": 0x0112}}
        steps.send(steps.workflow_id, message, "other")

    steps._on_sleep = forge
    with FakeArchive(reactions=[Reaction("same", {SEG: 0x0112, SR: 0x0112}), Reaction("nowhere")]) as pacs:
        config = make_config(tmp_path, pacs, commitment=True, commitment_wait_seconds=30.0, give_up_days=30 / 86400)
        with pytest.raises(DeliveryError, match=r"seg\.dcm, sr\.dcm not committed: 0x0112"):
            deliver(config, steps, folder)
    assert steps.messages.empty()


@pytest.mark.slow
@pytest.mark.parametrize("verdict", ["failed", "committed"])
def test_report_that_comes_while_the_pacs_is_queried_is_not_overlooked(tmp_path, folder, verdict):
    """A refusal that was acknowledged just before presence would settle the delivery counts, and so does a success."""

    class Late(MemorySteps):
        def step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
            result = super().step(name, function, *arguments)
            if name == "query":
                failed = {SEG: 0x0112, SR: 0x0112} if verdict == "failed" else {}
                committed = [] if failed else [SEG, SR]
                message = {"transaction_uid": pacs.transactions[0], "committed": committed, "failed": failed}
                self.send(self.workflow_id, message, "late")
            return result

    with FakeArchive(reactions=[Reaction("nowhere"), Reaction("same")]) as pacs:
        result = deliver(make_config(tmp_path, pacs, commitment=True), steps := Late(), folder)
    assert (result["state"], result["reason"]) == ("committed", None)
    assert len(pacs.transactions) == (2 if verdict == "failed" else 1)
    assert ("retrying: not committed: 0x0112 no such object instance" in steps.told) is (verdict == "failed")


@pytest.mark.parametrize(
    ("reports", "is_committed"),
    [
        ([(1, "failed"), (1, "committed")], False),
        ([(1, "committed"), (1, "failed")], False),
        ([(2, "failed"), (1, "committed")], False),
        ([(1, "failed"), (2, "committed")], True),
        ([(2, "committed"), (1, "failed")], True),
        ([(1, "failed"), (2, "committed"), (2, "committed")], True),
    ],
    ids=str,
)
def test_which_of_several_reports_counts(reports, is_committed):
    """That on the latest request; on one request a failure: a late report neither undoes nor makes a refusal."""
    progress = DeliveryProgress(DeliverySection(), MemorySteps(), "pacs")
    progress.begin([PlannedInstance("seg.dcm", SEG)])
    for number, verdict in reports:
        committed, failed = ((SEG,), {}) if verdict == "committed" else ((), {SEG: 0x0112})
        progress.take_report(number, CommitmentReport("2.25.1", committed, failed))
    assert progress.uncommitted == ([] if is_committed else ["seg.dcm"])
    assert progress.failures == ([] if is_committed else [0x0112])


def test_transaction_uids_cannot_be_foreseen(tmp_path, folder):
    """Two deliveries under the same workflow id ask under different ones, and no state or log line holds one."""
    transactions = []
    for _ in range(2):
        with FakeArchive(reactions=[Reaction("same")]) as pacs, capture_logs() as events:
            deliver(make_config(tmp_path, pacs, commitment=True), steps := MemorySteps(), folder)
        transactions += pacs.transactions
        assert pacs.transactions[0] not in f"{events} {steps.told}"
    assert len(set(transactions)) == 2


def forget_secret(steps: MemorySteps) -> None:
    """Make the recorded plan one of version 0.1.0."""
    name, plan = steps.recorded[0]
    facts = {key: value for key, value in json.loads(plan).items() if key != "secret"}
    steps.recorded[0] = (name, json.dumps(facts))


@pytest.mark.parametrize("association", ["same", "new"])
def test_delivery_that_0_1_0_went_on_with_after_a_report_on_a_part_goes_on(association, tmp_path, folder):
    """That version waited for no second report and made no query: it sent what was not named, and asked once more."""
    reactions = [Reaction("same", omitted=(SR,)), Reaction("same")]
    with FakeArchive(reactions=reactions) as pacs:
        config = make_config(tmp_path, pacs, commitment=True)
        with pytest.raises(Killed):
            deliver(config, first := MemorySteps(dies_after=3), folder)
        forget_secret(first)
        name, text = first.recorded[2]
        outcome = json.loads(text)
        report = outcome["report"] | {"transaction_uid": derived_uid("storage commitment", "digest-pacs", "0")}
        if association == "same":
            first.recorded[2] = (name, json.dumps(outcome | {"report": report}))
        else:
            asked = outcome | {"state": "asked", "report": None}
            first.recorded[2:] = [(name, json.dumps(asked)), ("receive", json.dumps(report))]
        first.recorded.append(("sleep", "null"))
        result = deliver(config, MemorySteps(first.recorded), folder)
    assert result["state"] == "committed"
    assert pacs.asked == [[SEG, SR], [SR]]


@pytest.mark.slow
def test_delivery_that_began_under_0_1_0_goes_on(tmp_path, folder):
    """Its plan holds no secret, and its record names no destination: it waits in vain for the report, and queries."""
    with FakeArchive(reactions=[Reaction("nowhere")]) as pacs:
        config = make_config(tmp_path, pacs, commitment=True)
        first = MemorySteps(dies_after=3)
        with pytest.raises(Killed):
            deliver(config, first, folder)
        forget_secret(first)
        result = deliver(config, MemorySteps(first.recorded), folder)
    assert len(pacs.transactions) == 1
    assert result["state"] == "present"


@pytest.mark.slow
@pytest.mark.parametrize("find_status", [0x0000, None])
def test_refused_commitment_of_what_is_not_held_fails(tmp_path, folder, find_status):
    """A reason that sending again cannot mend fails the delivery if the PACS does not list the instance, either."""
    with FakeArchive(reactions=[Reaction("same", {SEG: 0x0122})], lost=[SEG], find_status=find_status) as pacs:
        config = make_config(tmp_path, pacs, commitment=True)
        with pytest.raises(DeliveryError, match=r"seg\.dcm not committed: 0x0122"):
            deliver(config, MemorySteps(), folder)
    assert waiting_transactions(config) == []


def test_lost_and_then_refused_fails(tmp_path, folder):
    """An instance that the PACS lost and then refuses for good fails the delivery; no report is awaited any more."""
    pacs = FakeArchive([0x0000, 0x0000, 0xC000], reactions=[Reaction("same", {SEG: 0x0112})])
    config = make_config(tmp_path, pacs, commitment=True)
    with pacs, pytest.raises(DeliveryError, match="0xC000"):
        deliver(config, MemorySteps(), folder)
    assert waiting_transactions(config) == []


def test_request_without_an_answer_is_repeated(tmp_path, folder):
    """A PACS that fails the request for now is asked again, under the same transaction."""
    with FakeArchive(reactions=[Reaction(status=0x0110), Reaction(status=0x0213), Reaction("same")]) as pacs:
        result = deliver(make_config(tmp_path, pacs, commitment=True), MemorySteps(), folder)
    assert result["state"] == "committed"
    assert len(pacs.transactions) == 3
    assert len(set(pacs.transactions)) == 1


@pytest.mark.slow
def test_commitment_is_given_up_after_the_seconds_waited(tmp_path, folder):
    """A PACS that never reports and never lists an instance fails the delivery in the end."""
    with FakeArchive(reactions=[Reaction("nowhere")] * 9, lost=[SEG] * 99) as pacs:
        config = make_config(tmp_path, pacs, commitment=True, commitment_wait_seconds=30.0, give_up_days=60 / 86400)
        with pytest.raises(DeliveryError, match=r"seg\.dcm not committed: no report within 30 s"):
            deliver(config, MemorySteps(), folder)
    assert len(pacs.transactions) == 2


def test_pacs_gone_after_delivery_leaves_it_delivered(tmp_path, folder):
    """If the PACS cannot be asked to commit until it is given up, the results stay delivered, with the reason."""
    with FakeArchive(reactions=[Reaction(status=0x0110)] * 99, find_status=0xA700) as pacs:
        config = make_config(tmp_path, pacs, commitment=True, give_up_days=5 / 86400)
        result = deliver(config, MemorySteps(), folder)
    assert result["state"] == "delivered"
    assert "0x0110" in result["reason"]
