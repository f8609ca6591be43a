"""What is deleted, when, and that nothing is lost whatever happens meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from database import make_database
from instances import encode_instance, make_instance, write_instance_file
from small_study import make_small_study, study_instance_uid
from statuses import delivery_statuses

from node.config import Config, build_config
from node.dicom.commitment import CommitmentRequest, Commitments
from node.errors import EngineError
from node.processing.request import RequestOptions, build_request
from node.processing.study_status import StudyStatus
from node.retention.cleanup import (
    RetentionSnapshot,
    clean,
    clean_all,
    clean_commitments,
    clean_results,
    retention_round,
    take_snapshot,
)
from node.retention.retention_status import retention_statuses
from node.scp import removal
from node.scp.incoming import length_of_head
from node.scp.rejection_note import RejectionNote
from node.scp.spool import Spool, StoreOutcome
from node.workflow.client import WorkflowClient
from node.workflow.engine import STUDY_QUEUE
from node.workflow.states import StudyState

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
RECEIVED, ORDERED, DONE = (NOW - timedelta(days=days) for days in (60, 59, 58))
STUDY, FOLDER = "1.2.3", "a" * 32
SERIES, SOP = "1.2.3.4", "1.2.3.4.5"


def make_config(folder: Path, *destinations: dict[str, Any], **retention: Any) -> Config:
    """A node's config; one DICOM destination called pacs if none is given."""
    peer = {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}
    sections = [peer | each for each in destinations or ({"name": "pacs"},)]
    return build_config({"node": {"folder": str(folder)}, "retention": retention, "destination": sections})


def set_time(path: Path, moment: datetime) -> None:
    """Give a file, or a folder, the time of its last change."""
    os.utime(path, (moment.timestamp(), moment.timestamp()))


def put(config: Config, number: int = 1, moment: datetime = RECEIVED, content: bytes = b"image") -> Path:
    """One instance of the study in the spool, received at ``moment``."""
    file = config.spool_folder / STUDY / SERIES / f"{SOP}.{number}.dcm"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    for path in (file, file.parent):
        set_time(path, moment)
    return file


def put_aside(config: Config, moment: datetime = RECEIVED) -> Path:
    """An instance of the study that was kept aside."""
    file = config.spool_folder / ".conflicts" / STUDY / SERIES / f"{SOP}.1.0123456789abcdef.dcm"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"other")
    set_time(file, moment)
    return file


def study_status(state: str = "delivered", **facts: Any) -> StudyStatus:
    """The study's line: delivered to pacs unless said otherwise."""
    values = {
        "study_instance_uid": STUDY,
        "workflow_id": FOLDER,
        "reason": None,
        "since": DONE,
        "deliveries": delivery_statuses(pacs="delivered"),
        "ordered": ORDERED,
        "folder": FOLDER,
    }
    return StudyStatus(state=StudyState(state), **(values | facts))


def why_held(config: Config, line: StudyStatus, now: datetime = NOW) -> str | None:
    """Why the study is held; None: it may go."""
    (holding,) = retention_statuses(config, [line], now)
    return holding.held_because


def spooled(config: Config) -> set[str]:
    """Every file in the spool, leftovers and what is kept aside included."""
    return {
        file.relative_to(config.spool_folder).as_posix() for file in config.spool_folder.rglob("*") if file.is_file()
    }


def deletable(config: Config) -> list[Any]:
    """The holdings of an old, delivered study."""
    return retention_statuses(config, [study_status()], NOW)


# ---- what is held, and why -------------------------------------------------------------------------------------


def test_a_holding_counts_instances_bytes_and_the_latest(tmp_path: Path) -> None:
    """What is kept aside counts, too."""
    config = make_config(tmp_path)
    put(config, 1)
    put_aside(config, RECEIVED + timedelta(hours=1))
    (holding,) = retention_statuses(config, [study_status()], NOW)
    assert (holding.instances, holding.bytes) == (2, 10)
    assert holding.arrived == RECEIVED + timedelta(hours=1)
    assert (holding.state, holding.held_because) == ("delivered", None)


@pytest.mark.parametrize("state", ["reported", "delivered", "present", "committed"])
@pytest.mark.parametrize("text", ["delivered", "present: x", "committed", "committing", "delivered: with a warning"])
def test_an_old_delivered_study_may_go(state: str, text: str, tmp_path: Path) -> None:
    """By default the destination's answer is enough."""
    config = make_config(tmp_path)
    put(config)
    assert why_held(config, study_status(state, deliveries=delivery_statuses(pacs=text))) is None


@pytest.mark.parametrize("text", ["retrying: no answer", "failed: refused", "sending", "stable"])
def test_an_undelivered_study_is_held(text: str, tmp_path: Path) -> None:
    """Whatever its age."""
    config = make_config(tmp_path, input_days=0)
    put(config)
    assert "pacs" in (why_held(config, study_status("reported", deliveries=delivery_statuses(pacs=text))) or "")


def test_every_destination_that_was_ordered_must_have_the_results(tmp_path: Path) -> None:
    """One of two that still lacks them holds the study."""
    config = make_config(tmp_path, {"name": "pacs"}, {"name": "research"})
    put(config)
    one = study_status("reported", deliveries=delivery_statuses(pacs="delivered", research="retrying: no answer"))
    assert why_held(config, one) == "destination research is not delivered: retrying: no answer"
    both = study_status(deliveries=delivery_statuses(pacs="delivered", research="committed"))
    assert why_held(config, both) is None


def test_a_destination_that_was_added_later_is_not_waited_for(tmp_path: Path) -> None:
    """Nobody will ever send it the study; but one destination at least must have been ordered."""
    config = make_config(tmp_path, {"name": "pacs"}, {"name": "research"})
    put(config)
    assert why_held(config, study_status()) is None
    assert why_held(config, study_status("reported", deliveries={})) == "its results were ordered to no destination"


@pytest.mark.parametrize(
    ("after", "texts", "held_because"),
    [
        ("delivered", {"old": "delivered"}, None),
        ("committed", {"old": "delivered"}, None),
        ("committed", {"old": "delivered: not committed: silent"}, "destination old is not committed: delivered: "),
        ("committed", {"old": "present: found by query"}, "destination old is not committed: present: "),
        ("present", {"old": "present: found by query"}, None),
        ("present", {"old": "committed"}, None),
        ("present", {"old": "delivered"}, None),
        ("present", {"old": "delivered: not committed: silent"}, "destination old is not present: delivered: "),
        ("delivered", {"old": "failed: gone"}, "destination old is not delivered: failed: gone"),
        ("delivered", {"old": "failed: gone", "pacs": "delivered"}, None),
        ("delivered", {"old": "failed: gone", "pacs": "failed: refused"}, "destination pacs is not delivered: failed"),
    ],
)
def test_a_destination_that_was_removed_holds_nothing_that_another_has(
    after: str, texts: dict[str, str], held_because: str | None, tmp_path: Path
) -> None:
    """If no destination that was ordered is there any more, what they were given counts."""
    config = make_config(tmp_path, after=after)
    put(config)
    state = "failed" if any(text.startswith("failed") for text in texts.values()) else "delivered"
    found = why_held(config, study_status(state, deliveries=delivery_statuses(**texts)))
    assert found is None if held_because is None else (found or "").startswith(held_because)


def test_a_study_of_which_instances_were_withdrawn_is_held_until_that_is_judged(tmp_path: Path) -> None:
    """A note changes no file of the study; its inputs are still needed to do the study anew, or wait for a decision."""
    config = make_config(tmp_path)
    put(config)
    note = RejectionNote("113001", {STUDY: {f"{SOP}.1": SERIES}})
    file = tmp_path / "note.dcm"
    file.write_bytes(b"note")
    Spool(config.spool_folder).withdrawals.keep_document(file, (STUDY, "1.2.9"), "0" * 64, note)
    assert why_held(config, study_status()) == "instances that arrived after it was ordered are not judged yet"
    judged = build_request(config.spool_folder / STUDY, config, RequestOptions(STUDY)).instances
    assert why_held(config, study_status(judged=frozenset([judged]))) is None


def test_without_a_destination_everything_is_held(tmp_path: Path) -> None:
    """The node has the only copy of the result."""
    config = make_config(tmp_path).without_destinations()
    put(config)
    assert why_held(config, study_status("reported", deliveries={})) == "no destination is configured"


@pytest.mark.parametrize(
    ("after", "commitment", "text", "may_go"),
    [
        ("committed", True, "committed", True),
        ("committed", True, "present: found by query", False),
        ("committed", True, "committing", False),
        ("committed", True, "delivered", False),
        ("committed", False, "delivered", True),
        ("committed", False, "retrying: x", False),
        ("present", True, "committed", True),
        ("present", True, "present: found by query", True),
        ("present", True, "committing", False),
        ("present", True, "delivered: not committed: x", False),
        ("present", False, "delivered", True),
        *((after, True, "retrying: not committed: 0x0112", False) for after in ("delivered", "present", "committed")),
        *((after, True, "failed: not committed: 0x0122", False) for after in ("delivered", "present", "committed")),
    ],
)
def test_after_committed(after: str, commitment: bool, text: str, may_go: bool, tmp_path: Path) -> None:
    """A destination asked to commit must have done so, or hold the results; one that refused never has them."""
    config = make_config(tmp_path, {"name": "pacs", "commitment": commitment}, after=after)
    put(config)
    assert (why_held(config, study_status(deliveries=delivery_statuses(pacs=text))) is None) is may_go


@pytest.mark.parametrize(
    "state",
    ["receiving", "stable", "comparing", "selected", "segmented", "waiting to be tried again", "failed", "cancelled"],
)
def test_what_has_no_result_or_is_under_way_is_held(state: str, tmp_path: Path) -> None:
    """Whatever its deliveries say."""
    config = make_config(tmp_path, input_days=0)
    put(config)
    assert why_held(config, study_status(state)) is not None


def test_a_study_the_ledger_does_not_know_is_held(tmp_path: Path) -> None:
    """It came a moment ago."""
    config = make_config(tmp_path, input_days=0)
    put(config)
    (holding,) = retention_statuses(config, [], NOW)
    assert holding.held_because == "not processed yet"


def test_a_study_with_an_earlier_workflow_at_work_is_held(tmp_path: Path) -> None:
    """It still reads the inputs."""
    config = make_config(tmp_path)
    put(config)
    (holding,) = retention_statuses(config, [study_status()], NOW, {STUDY})
    assert holding.held_because == "a workflow of it is not over"


@pytest.mark.parametrize(("days", "may_go"), [(0.0, False), (57.9, True), (58.1, False)])
def test_refused_studies_go_only_if_the_config_says_when(days: float, may_go: bool, tmp_path: Path) -> None:
    """0 keeps them for ever, for no result of theirs is anywhere."""
    config = make_config(tmp_path, refused_days=days, input_days=0)
    put(config)
    assert (why_held(config, study_status("refused", deliveries={})) is None) is may_go


@pytest.mark.parametrize(("days", "may_go"), [(57.9, True), (58.1, False)])
def test_days_count_from_the_last_delivery(days: float, may_go: bool, tmp_path: Path) -> None:
    """And the study says until when it is kept."""
    config = make_config(tmp_path, input_days=days)
    put(config)
    held_because = why_held(config, study_status())
    assert (held_because is None) is may_go
    assert may_go or str(held_because).startswith("kept until 2026-06-01")


def test_days_count_from_the_latest_instance(tmp_path: Path) -> None:
    """One that was kept aside a day ago is not old."""
    config = make_config(tmp_path)
    put(config)
    put_aside(config, NOW - timedelta(days=1))
    assert (why_held(config, study_status()) or "").startswith("kept until 2026-06-30")


@pytest.mark.parametrize(("minutes", "may_go"), [(59, False), (61, True)])
def test_a_study_that_may_still_be_arriving_is_held(minutes: int, may_go: bool, tmp_path: Path) -> None:
    """Complete, processed and delivered within the minute, and kept for no day: what still comes must find it there."""
    config = make_config(tmp_path, input_days=0)
    arrived = NOW - timedelta(minutes=minutes)
    put(config, moment=arrived)
    line = study_status(since=arrived + timedelta(minutes=1), ordered=arrived)
    assert (why_held(config, line) is None) is may_go


@pytest.mark.parametrize("is_file", [True, False], ids=["written after", "given its place after"])
def test_a_late_instance_holds_the_study(is_file: bool, tmp_path: Path) -> None:
    """It waits to be judged; the time of its folder tells when it got its place."""
    config = make_config(tmp_path, input_days=0)
    file = put(config)
    set_time(file if is_file else file.parent, ORDERED + timedelta(minutes=1))
    assert why_held(config, study_status()) == "instances that arrived after it was ordered are not judged yet"


def write_small(config: Config, *contrasts: str) -> tuple[str, str]:
    """A small study in the spool; its UID, and the workflow id that it gives."""
    study = make_small_study()
    for contrast in contrasts or study:
        for instance in study[contrast]:
            folder = config.spool_folder / instance.StudyInstanceUID / instance.SeriesInstanceUID
            folder.mkdir(parents=True, exist_ok=True)
            write_instance_file(folder, instance)
    uid = study_instance_uid(study)
    return uid, build_request(config.spool_folder / uid, config, RequestOptions(uid)).workflow_id


@pytest.mark.slow
def test_late_instances_that_change_nothing_do_not_hold_the_study(tmp_path: Path) -> None:
    """A study is ordered once it is complete, while other series may still arrive; the same order never runs again."""
    config = make_config(tmp_path, input_days=0)
    uid, workflow_id = write_small(config)
    now = datetime.now(UTC) + timedelta(hours=2)
    times = {"since": now, "ordered": now - timedelta(days=1)}
    same, other = (study_status(study_instance_uid=uid, folder=each, **times) for each in (workflow_id, FOLDER))
    assert [each.held_because for each in retention_statuses(config, [same], now)] == [None]
    assert "not judged yet" in (retention_statuses(config, [other], now)[0].held_because or "")


@pytest.mark.parametrize("back", [timedelta(days=59, hours=1), timedelta(days=400)])
def test_a_clock_set_back_deletes_nothing(back: timedelta, tmp_path: Path) -> None:
    """Nor does it if most studies were recorded after the present time, whenever this one was."""
    config = make_config(tmp_path, input_days=0, result_days=0)
    put(config)
    assert "the clock was set back" in (why_held(config, study_status(), NOW - back) or "")
    ahead = [study_status(since=NOW + timedelta(days=1), study_instance_uid=uid) for uid in ("1.8", "1.9")]
    lines = [study_status(), *ahead]
    assert "the clock was set back" in (retention_statuses(config, lines, NOW)[0].held_because or "")
    write_result(config)
    assert clean_results(config, RetentionSnapshot(NOW, lines, [], frozenset()), [STUDY], dry_run=False) == []


def test_a_study_from_a_day_when_the_clock_stood_ahead_holds_itself_alone(tmp_path: Path) -> None:
    """One line of the ledger from the year 2037 does not stop deletion until then."""
    config = make_config(tmp_path, input_days=0, result_days=0)
    put(config)
    future = datetime(2037, 1, 1, tzinfo=UTC)
    ahead = study_status(since=future, ordered=future, study_instance_uid="1.2.0", folder="c" * 32)
    stuck = config.spool_folder / "1.2.0" / "1.2.0.1" / "1.dcm"
    stuck.parent.mkdir(parents=True)
    stuck.write_bytes(b"x")
    lines = [study_status(), study_status(study_instance_uid="1.9", folder="b" * 32), ahead]
    held = {each.study_instance_uid: each.held_because for each in retention_statuses(config, lines, NOW)}
    assert held[STUDY] is None
    assert "the clock was set back" in (held["1.2.0"] or "")
    write_result(config)
    assert clean_results(config, RetentionSnapshot(NOW, lines, [], frozenset()), [STUDY], dry_run=False) == [FOLDER]


# ---- deleting --------------------------------------------------------------------------------------------------


def test_what_may_go_goes_with_what_was_kept_aside(tmp_path: Path) -> None:
    """No folder of the study stays; other studies do."""
    config = make_config(tmp_path)
    put(config, 1), put(config, 2), put_aside(config)
    other = config.spool_folder / "1.2.99" / "1.2.99.1" / "1.2.99.1.1.dcm"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"x")
    assert clean(config, deletable(config), dry_run=False) == [STUDY]
    assert spooled(config) == {"1.2.99/1.2.99.1/1.2.99.1.1.dcm"}
    assert removal.studies_held(config.spool_folder) == ["1.2.99"]


def test_dry_run_deletes_nothing(tmp_path: Path) -> None:
    """It names what would go."""
    config = make_config(tmp_path)
    put(config)
    before = spooled(config)
    assert clean(config, deletable(config), dry_run=True) == [STUDY]
    assert spooled(config) == before


def test_what_is_held_stays(tmp_path: Path) -> None:
    """Only holdings without a reason are deleted."""
    config = make_config(tmp_path)
    put(config)
    before = spooled(config)
    assert clean(config, retention_statuses(config, [study_status("failed")], NOW), dry_run=False) == []
    assert spooled(config) == before


def test_an_instance_that_came_since_it_was_judged_keeps_the_study(tmp_path: Path) -> None:
    """The study goes back to its place, whole."""
    config = make_config(tmp_path)
    put(config, 1)
    held = deletable(config)
    put(config, 2, NOW)
    before = spooled(config)
    assert clean(config, held, dry_run=False) == []
    assert spooled(config) == before


def test_a_study_ordered_since_it_was_judged_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The admin tried it again a moment ago: its workflow finds the inputs in their place."""
    config = make_config(tmp_path)
    put(config)
    before = spooled(config)
    make_database(config)
    monkeypatch.setattr("node.retention.cleanup.read_study_statuses", lambda *_: [study_status()])
    judged = take_snapshot(config)
    with closing(WorkflowClient(config)) as client:
        client.enqueue(STUDY_QUEUE, "process", f"{FOLDER}.2", "{}", attributes={"study_instance_uid": STUDY})
    assert [each.held_because for each in judged.held] == [None]
    assert clean_all(config, judged, dry_run=False).studies == []
    assert spooled(config) == before


def test_a_study_goes_back_if_nobody_can_say_whether_it_was_ordered(tmp_path: Path) -> None:
    """The database went away between judging and deleting."""
    config = make_config(tmp_path)
    put(config)
    before = spooled(config)

    def is_needed(_: str) -> bool:
        raise EngineError("engine.database: down")

    with pytest.raises(EngineError):
        clean(config, deletable(config), False, is_needed)
    assert spooled(config) == before


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


@contextmanager
def interrupted(patch: pytest.MonkeyPatch, at: int, act: Callable[[], None]) -> Iterator[list[str]]:
    """Call ``act`` before the ``at``-th call that changes a folder; yields the calls made so far."""
    made: list[str] = []
    with patch.context() as inner:
        for name in ("rename", "unlink", "rmdir", "link", "fsync", "mkdir"):
            inner.setattr(os, name, _watched(name, getattr(os, name), made, at, act))
        yield made


def _watched(name: str, real: Callable[..., Any], made: list[str], at: int, act: Callable[[], None]) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        made.append(name)
        if len(made) == at + 1:
            act()
        return real(*arguments, **options)

    return call


def _kill() -> None:
    raise Killed


def test_a_kill_at_any_moment_loses_nothing_and_the_next_round_settles_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it comes before, between or after renaming, looking again and deleting: the study is whole, or gone."""
    whole_again, finished = 0, 0
    for at in range(100):
        config = make_config(tmp_path / str(at))
        put(config, 1), put(config, 2), put_aside(config)
        before, held = spooled(config), deletable(config)
        try:
            with interrupted(monkeypatch, at, _kill):
                clean(config, held, dry_run=False)
        except Killed:
            is_decided = (config.spool_folder / ".deleting" / f"{STUDY}.decided").exists()
            is_started = len(spooled(config)) < len(before)
            # the next round finds that nothing may go any more, unless it was decided
            clean(config, retention_statuses(config, [study_status("failed")], NOW), dry_run=False)
            left = spooled(config)
            if is_decided or is_started:
                assert left <= {name for name in before if name.startswith(".conflicts")}
                finished += 1
            else:
                assert left == before
                whole_again += 1
            clean(config, deletable(config), dry_run=False)
            assert spooled(config) == set()
        else:
            assert spooled(config) == set()
            break
    else:
        pytest.fail("it never came to its end")
    assert whole_again >= 3
    assert finished >= 3


def test_a_killed_putting_back_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any moment while a study goes back beside what came meanwhile, every instance is there in the end."""
    for at in range(100):
        config = make_config(tmp_path / str(at))
        put(config, 1), put(config, 2)
        away = config.spool_folder / ".deleting" / STUDY
        away.parent.mkdir()
        (config.spool_folder / STUDY).rename(away)
        put(config, 2), put(config, 3)
        try:
            with interrupted(monkeypatch, at, _kill):
                clean(config, [], dry_run=False)
        except Killed:
            clean(config, [], dry_run=False)
            assert spooled(config) == {f"{STUDY}/{SERIES}/{SOP}.{number}.dcm" for number in (1, 2, 3)}
        else:
            break
    assert at >= 5


def receive(config: Config, number: int) -> StoreOutcome | None:
    """Let an instance of the study arrive as the receiver does; None: it is not acknowledged."""
    content = encode_instance(make_instance(number))
    head_bytes = length_of_head(content)
    incoming = Spool(config.spool_folder).open_incoming(content[:head_bytes])
    try:
        incoming.write(content[head_bytes:])
        return Spool(config.spool_folder).keep(STUDY, SERIES, f"{SOP}.{number}", incoming)
    except OSError:
        return None
    finally:
        incoming.discard()


def test_an_instance_arriving_at_any_moment_of_the_deletion_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the receiver acknowledged while a study was being deleted is in the spool afterwards."""
    for at in range(100):
        config = make_config(tmp_path / str(at))
        put(config, 1), put(config, 2)
        held, answers = deletable(config), []
        with interrupted(monkeypatch, at, lambda config=config, answers=answers: answers.append(receive(config, 3))):
            clean(config, held, dry_run=False)
        if not answers:
            break
        assert answers == [StoreOutcome.STORED]
        assert f"{STUDY}/{SERIES}/{SOP}.3.dcm" in spooled(config)
    assert at >= 10


def test_a_deletion_at_any_moment_of_an_arrival_loses_nothing_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either the study goes and the instance is not acknowledged, to be sent again, or the instance is there."""
    outcomes = set()
    for at in range(100):
        config = make_config(tmp_path / str(at))
        put(config, 1), put(config, 2)
        held, gone = deletable(config), []
        with interrupted(monkeypatch, at, lambda c=config, h=held, gone=gone: gone.append(clean(c, h, dry_run=False))):
            answer = receive(config, 3)
        if not gone:
            break
        assert (f"{STUDY}/{SERIES}/{SOP}.3.dcm" in spooled(config)) is (answer is not None)
        outcomes.add((answer, bool(gone[0])))
    assert at >= 5
    assert {(StoreOutcome.STORED, True), (StoreOutcome.STORED, False)} <= outcomes


def test_a_link_that_ends_in_the_renamed_folder_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that had the folder in its hands may put an instance there after it was looked at: it goes back."""
    config = make_config(tmp_path)
    put(config)
    held = deletable(config)
    decided = config.spool_folder / ".deleting" / f"{STUDY}.decided"
    real = removal._delete

    def delete(folder: Path, files: Any) -> None:
        if folder == decided:
            (decided / SERIES / f"{SOP}.2.dcm").write_bytes(b"late")
        real(folder, files)

    monkeypatch.setattr(removal, "_delete", delete)
    clean(config, held, dry_run=False)
    assert spooled(config) == {f"{STUDY}/{SERIES}/{SOP}.2.dcm"}


def test_other_bytes_under_the_same_uid_are_kept_aside_when_a_study_goes_back(tmp_path: Path) -> None:
    """Nothing that is in its place by now is replaced, and nothing is dropped unless it is the same."""
    config = make_config(tmp_path)
    first, second = make_instance(1, pixel=1), make_instance(1, pixel=2)
    home = config.spool_folder / first.StudyInstanceUID / first.SeriesInstanceUID
    away = config.spool_folder / ".deleting" / first.StudyInstanceUID / first.SeriesInstanceUID
    contents = []
    for folder, instance in ((away, first), (home, second)):
        folder.mkdir(parents=True)
        contents.append(write_instance_file(folder, instance).read_bytes())
    clean(config, [], dry_run=False)
    (kept,) = home.iterdir()
    (aside,) = (config.spool_folder / ".conflicts").rglob("*.dcm")
    assert [aside.read_bytes(), kept.read_bytes()] == contents


def refuse_to_rename(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk refuses to rename any file or folder called ``name``."""
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == name:
            raise PermissionError(13, "Permission denied")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)


def test_a_disk_that_refuses_is_logged_and_the_others_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One study's trouble does not end the round."""
    config = make_config(tmp_path)
    put(config)
    stuck = config.spool_folder / "1.2.0" / "1.2.0.1" / "1.dcm"
    stuck.parent.mkdir(parents=True)
    stuck.write_bytes(b"x")
    for path in (stuck, stuck.parent):
        set_time(path, RECEIVED)
    held = retention_statuses(config, [study_status(), ledger_line_of("1.2.0")], NOW)
    refuse_to_rename("1.2.0", monkeypatch)
    assert clean(config, held, dry_run=False) == [STUDY]
    assert stuck.exists()


def ledger_line_of(uid: str) -> StudyStatus:
    """A delivered study of another UID."""
    return StudyStatus(
        uid, "b", StudyState.DELIVERED, None, DONE, delivery_statuses(pacs="delivered"), ORDERED, None, "b"
    )


def test_a_study_that_cannot_be_read_is_held_and_others_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is stale, say: what it holds is unknown."""
    config = make_config(tmp_path)
    put(config)
    (config.spool_folder / "1.2.0" / "1.2.0.1").mkdir(parents=True)
    real = removal.contents

    def contents(folder: Path, uid: str) -> removal.Contents:
        if uid == "1.2.0":
            raise OSError(116, "Stale file handle")
        return real(folder, uid)

    monkeypatch.setattr("node.retention.retention_status.contents", contents)
    stuck, other = retention_statuses(config, [study_status()], NOW)
    assert (stuck.held_because, other.held_because) == ("it cannot be read: Stale file handle", None)


def test_a_leftover_that_the_disk_refuses_does_not_hold_up_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier round left of other studies is settled."""
    config = make_config(tmp_path)
    for uid in ("1.2.0", STUDY):
        file = config.spool_folder / ".deleting" / uid / SERIES / "1.dcm"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")
    refuse_to_rename("1.2.0", monkeypatch)
    with structlog.testing.capture_logs() as events:
        assert clean(config, [], dry_run=False) == []
    assert [event["event"] for event in events] == ["leftovers_not_removed"]
    assert spooled(config) == {f".deleting/1.2.0/{SERIES}/1.dcm", f"{STUDY}/{SERIES}/1.dcm"}


# ---- results and commitments -----------------------------------------------------------------------------------


def write_result(config: Config, folder: str = FOLDER, moment: datetime = DONE) -> Path:
    """The results of the study in the work folder."""
    file = config.work_folder / folder / "result.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"study_instance_uid": STUDY}), encoding="utf-8")
    (file.parent / "seg.dcm").write_bytes(b"seg")
    set_time(file, moment)
    return file.parent


def snapshot(*lines: StudyStatus, unfinished: tuple[str, ...] = ()) -> RetentionSnapshot:
    """A ledger at NOW."""
    return RetentionSnapshot(NOW, list(lines), [], frozenset(unfinished))


@pytest.mark.parametrize(
    ("days", "line", "unfinished", "goes"),
    [
        (57.9, study_status(), (), True),
        (58.1, study_status(), (), False),
        (0, study_status("refused", deliveries={}), (), True),
        (0, study_status("reported", deliveries=delivery_statuses(pacs="retrying: x")), (), False),
        (0, study_status("failed"), (), False),
        (0, study_status(), (f"{FOLDER}-pacs",), False),
        (0, study_status(), (f"{FOLDER}.2",), False),
        (57.9, study_status(folder="b" * 32), (), True),
        (58.1, study_status(folder="b" * 32), (), False),
        (0, study_status(study_instance_uid="1.9"), (), True),
        (0, study_status(study_instance_uid="1.9", folder="b" * 32), (), False),
    ],
    ids=[
        "old", "young", "refused", "undelivered", "failed", "being sent", "being made", "superseded and old",
        "superseded and young", "by its folder", "of a study that the ledger does not know",
    ],
)  # fmt: skip
def test_results_go_when_they_are_old_and_everywhere(
    days: float, line: StudyStatus, unfinished: tuple[str, ...], goes: bool, tmp_path: Path
) -> None:
    """Or refused, or superseded; not while a workflow uses them. A dry run only names them."""
    config = make_config(tmp_path, result_days=days)
    folder = write_result(config)
    expected = [FOLDER] if goes else []
    assert clean_results(config, snapshot(line, unfinished=unfinished), [], dry_run=True) == expected
    assert (folder / "seg.dcm").exists()
    assert clean_results(config, snapshot(line, unfinished=unfinished), [], dry_run=False) == expected
    assert folder.exists() is not goes


def test_results_stay_while_the_inputs_are_held(tmp_path: Path) -> None:
    """What a study gave goes after the study."""
    config = make_config(tmp_path, result_days=0)
    file, folder = put(config), write_result(config)
    assert clean_results(config, snapshot(study_status()), [], dry_run=False) == []
    file.unlink()
    file.parent.rmdir(), file.parent.parent.rmdir()
    assert clean_results(config, snapshot(study_status()), [], dry_run=False) == [FOLDER]
    assert not folder.exists()


@pytest.mark.parametrize("trouble", ["no JSON", "the disk"])
def test_results_that_cannot_be_deleted_do_not_hold_up_others(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told, and the rest goes."""
    config = make_config(tmp_path, result_days=0)
    stuck, other = write_result(config, "0" * 32), write_result(config)
    if trouble == "no JSON":
        (stuck / "result.json").write_text("{", encoding="utf-8")
    else:
        real = Path.rename

        def rename(self: Path, target: Path) -> Path:
            if self.name == stuck.name:
                raise PermissionError(13, "Permission denied")
            return real(self, target)

        monkeypatch.setattr(Path, "rename", rename)
    with structlog.testing.capture_logs() as events:
        assert clean_results(config, snapshot(study_status()), [], dry_run=False) == [FOLDER]
    assert [(event["event"], event["folder"]) for event in events] == [("results_not_deleted", stuck.name)]
    assert (stuck.exists(), other.exists()) == (True, False)


def test_results_that_a_kill_left_half_deleted_go_in_the_next_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of them never stand in their place."""
    config = make_config(tmp_path, result_days=0)
    folder = write_result(config)
    with monkeypatch.context() as patch:
        patch.setattr(removal.shutil, "rmtree", lambda _: _kill())
        with pytest.raises(Killed):
            clean_results(config, snapshot(study_status()), [], dry_run=False)
    assert not folder.exists()
    assert list(config.work_folder.rglob("seg.dcm"))
    clean_results(config, snapshot(), [], dry_run=False)
    assert not list(config.work_folder.rglob("seg.dcm"))


@pytest.mark.parametrize(("days", "unfinished", "count"), [(57, (), 1), (59, (), 0), (0, ("w-pacs",), 0)])
def test_commitments_nobody_waits_for_go(days: float, unfinished: tuple[str, ...], count: int, tmp_path: Path) -> None:
    """A transaction that a delivery still waits for stays, however old."""
    config = make_config(tmp_path, result_days=days)
    request = CommitmentRequest("w-pacs", "pacs", "PACS", "127.0.0.1", 104, ("127.0.0.1",), False, ("1.2",))
    Commitments(config.commitments_folder).expect("1.2.3.9", request)
    file = config.commitments_folder / "1.2.3.9.json"
    set_time(file, DONE)
    assert clean_commitments(config, snapshot(unfinished=unfinished)) == count
    assert file.exists() is (count == 0)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "1", "{}"])
def test_damaged_record_of_a_commitment_does_not_keep_the_others(content: str, tmp_path: Path) -> None:
    """It is told and left, and every other one is judged."""
    config = make_config(tmp_path, result_days=0)
    config.commitments_folder.mkdir(parents=True)
    for uid, text in (("1.2.3.1", content), ("1.2.3.9", '{"workflow_id": "w-pacs"}')):
        file = config.commitments_folder / f"{uid}.json"
        file.write_text(text, encoding="utf-8")
        set_time(file, DONE)
    with structlog.testing.capture_logs() as events:
        assert clean_commitments(config, snapshot()) == 1
    assert [each["event"] for each in events] == ["commitment_not_deleted"]


# ---- a round on a real ledger ----------------------------------------------------------------------------------


def test_a_round_reads_the_ledger_and_counts(tmp_path: Path) -> None:
    """A study that was never processed and one that is ordered stay; the counts are plain values."""
    config = make_config(tmp_path, input_days=0)
    put(config)
    client = WorkflowClient(config)
    try:
        client.enqueue(STUDY_QUEUE, "process", "w", "{}", attributes={"study_instance_uid": "1.9"})
    finally:
        client.close()
    assert take_snapshot(config).unfinished == {"w"}
    counts = retention_round(config)
    assert counts == {"studies": 0, "bytes": 0, "studies_held": 1, "results": 0, "commitments": 0}
    assert json.loads(json.dumps(counts)) == counts
    assert len(spooled(config)) == 1


def test_a_round_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its kind, for its text may name a file; the engine alone would keep it to itself."""
    config = make_config(tmp_path)
    make_database(config)

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", "spool/1.2.3")

    monkeypatch.setattr("node.retention.retention_status.studies_held", refuse)
    with structlog.testing.capture_logs() as events, pytest.raises(PermissionError):
        retention_round(config)
    assert events == [{"event": "retention_round_failed", "kind": "PermissionError", "log_level": "error"}]


def test_a_round_does_nothing_if_retention_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule may be older than the setting."""
    config = make_config(tmp_path, enabled=False)
    put(config)
    monkeypatch.setattr("node.retention.cleanup.read_study_statuses", lambda *_: [study_status()])
    assert retention_round(config) == {}
    assert len(spooled(config)) == 1


def test_a_round_deletes_what_may_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs, and results whose days have passed, too."""
    config = make_config(tmp_path, input_days=0, result_days=0)
    put(config)
    folder = write_result(config)
    make_database(config)
    monkeypatch.setattr("node.retention.cleanup.read_study_statuses", lambda *_: [study_status()])
    counts = retention_round(config)
    assert (counts["studies"], counts["bytes"], counts["results"], counts["studies_held"]) == (1, 5, 1, 0)
    assert spooled(config) == set()
    assert not folder.exists()


@pytest.mark.parametrize("folder", [".conflicts", ".superseded", ".dismissed"])
def test_versions_that_are_not_in_use_go_with_their_study(tmp_path: Path, folder: str) -> None:
    """They are counted, keep a study that they joined since, and are deleted with its inputs."""
    config = make_config(tmp_path)
    put(config)
    before = removal.contents(config.spool_folder, STUDY)
    aside = put_aside(config).parents[2]
    aside.rename(aside.with_name(folder))
    assert not removal.remove_study(config.spool_folder, STUDY, before, lambda _: False)
    found = removal.contents(config.spool_folder, STUDY)
    assert found.instances == 2
    assert removal.remove_study(config.spool_folder, STUDY, found, lambda _: False)
    assert spooled(config) == set()
    assert removal.studies_held(config.spool_folder) == []
