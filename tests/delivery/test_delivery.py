"""One delivery, from the first attempt to the commitment, with a PACS that does what it can to spoil it."""

from __future__ import annotations

import errno
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

from node.config import Config, build_config
from node.delivery import destination_requests
from node.delivery.delivery import Delivery
from node.dicom.commitment import Commitments
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
    handler = CommitmentHandler(Commitments(config.commitments_folder), on_report)
    with Receiver(config.scp, storage, metrics, commitment=handler):
        yield


def waiting_transactions(config: Config) -> list[str]:
    """The Transaction UIDs that a delivery awaits."""
    folder = config.commitments_folder
    return sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []


# ---- sending -------------------------------------------------------------------------------------------------------


def test_delivered_at_once(tmp_path, folder):
    """Two results that the PACS takes are delivered in one attempt, and each one's answer is in the result."""
    steps = MemorySteps()
    with FakePacs([0x0000, 0xB007], sop_classes=[MRImageStorage]) as pacs:
        result = deliver(make_config(tmp_path, pacs), steps, folder)
    assert (result["state"], result["reason"], result["attempts"]) == ("delivered", None, 1)
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
    assert result["state"] == "committed"
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
    assert (found["state"], found["reason"]) == ("committed", "found by query: does not offer storage commitment")


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
    """If no report comes in time, what the PACS lists counts as committed, and the result says how it is known."""
    steps = MemorySteps()
    with FakeArchive(reactions=[Reaction("nowhere")]) as pacs:
        config = make_config(tmp_path, pacs, commitment=True, commitment_wait_seconds=7.0)
        result = deliver(config, steps, folder)
    assert result["state"] == "committed"
    assert result["reason"] == "found by query: no report within 7 s"
    assert uids_of(pacs.received) == [SEG, SR]


@pytest.mark.slow
def test_what_a_query_does_not_list_is_sent_again(tmp_path, folder):
    """If no report comes and the PACS does not list an instance, it is sent and asked for again."""
    with FakeArchive(reactions=[Reaction("nowhere"), Reaction("same")], lost=[SEG]) as pacs:
        result = deliver(make_config(tmp_path, pacs, commitment=True), MemorySteps(), folder)
    assert result["state"] == "committed"
    assert uids_of(pacs.received) == [SEG, SR, SEG]
    assert pacs.asked == [[SEG, SR], [SEG]]


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
    assert result["state"] == "committed"
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


def test_refused_commitment_is_checked_by_a_query(tmp_path, folder):
    """A reason that sending again cannot mend is no failure if the PACS lists the instance."""
    with FakeArchive(reactions=[Reaction("same", {SEG: 0x0122})]) as pacs:
        result = deliver(make_config(tmp_path, pacs, commitment=True), MemorySteps(), folder)
    assert result["state"] == "committed"
    assert result["reason"] == "found by query: 0x0122 referenced SOP class not supported"


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
