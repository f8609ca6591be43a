"""The checker of histories finds each kind of violation, and none where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from history import (
    History,
    Intent,
    Kind,
    Outcome,
    Phase,
    Place,
    Result,
    Sent,
    SpoolFile,
    StoreEvent,
    violations,
)
from instances import PATIENT_ID, data_set_bytes, make_instance, write_instance_file
from tempest import read_spool

STUDY, UID, OTHER_UID = "1.2.3", "1.2.3.1", "1.2.3.2"
CORRECTION, OTHER_PIXELS = Intent.CORRECTION, Intent.OTHER_PIXELS


def history_of(*operations: tuple[str, str, Phase, Intent]) -> list[StoreEvent]:
    """Each operation, (UID, digest, end, intent), begins after the one before has ended."""
    events = []
    for number, (uid, digest, end, intent) in enumerate(operations):
        begun = StoreEvent(number, Phase.INVOKE, STUDY, uid, digest, intent)
        events += [begun, replace(begun, phase=end)]
    return events


def stored(uid: str = UID, digest: str = "a", end: Phase = Phase.OK, intent: Intent = Intent.ORIGINAL):
    """One operation."""
    return (uid, digest, end, intent)


def kept(digest: str = "a", place: Place = Place.HELD, uid: str = UID, patient_id: str = "P") -> SpoolFile:
    """A file of the spool."""
    return SpoolFile(place, STUDY, uid, digest, patient_id)


RESULT = Result(STUDY, "r1", frozenset({"1.9.1", "1.9.2"}), frozenset({UID}), "P")


def sent(*uids: str, destination: str = "pacs", digest: str = "x") -> list[Sent]:
    """What the destination was given."""
    return [Sent(destination, STUDY, uid, digest) for uid in uids]


GOOD = Outcome([kept()], [RESULT], sent("1.9.1", "1.9.2"), frozenset({"pacs"}), {STUDY: "r1"})


def kinds(history: Sequence[StoreEvent], outcome: Outcome) -> set[Kind]:
    """The kinds of what is wrong."""
    return {each.kind for each in violations(history, outcome)}


def test_a_history_without_a_fault_has_no_violation():
    """The instance is held, and its study is at the destination."""
    assert violations(history_of(stored()), GOOD) == []


def test_repetitions_and_refusals_are_no_violation():
    """Refused, unanswered, then acknowledged twice; and each result sent twice with the same bytes."""
    history = history_of(stored(end=Phase.FAIL), stored(end=Phase.UNKNOWN), stored(), stored())
    assert violations(history, replace(GOOD, sent=[*GOOD.sent, *GOOD.sent])) == []


def test_an_instance_without_acknowledgement_may_be_kept_or_not():
    """A refused or unanswered C-STORE promises nothing; of an incomplete study no report is demanded."""
    for end in (Phase.FAIL, Phase.UNKNOWN):
        history = history_of(stored(), stored(OTHER_UID, "b", end))
        outcome = replace(GOOD, results=[], sent=[], current={})
        assert violations(history, outcome) == []
        assert violations(history, replace(outcome, spool=[kept(), kept("b", uid=OTHER_UID)])) == []


def test_acknowledged_bytes_that_are_nowhere_are_lost():
    """Nothing is in the spool; or only what was acknowledged for the same UID besides."""
    assert kinds(history_of(stored()), replace(GOOD, spool=[])) >= {Kind.LOST, Kind.GONE}
    history = history_of(stored(), stored(digest="b", intent=OTHER_PIXELS))
    assert kinds(history, GOOD) == {Kind.LOST}


def test_bytes_that_only_lie_aside_hold_no_instance():
    """The acknowledged bytes are among the conflicts only."""
    assert Kind.GONE in kinds(history_of(stored()), replace(GOOD, spool=[kept(place=Place.CONFLICT)]))


def test_a_withdrawn_instance_is_not_gone():
    """It is kept for audit."""
    outcome = replace(GOOD, spool=[kept(place=Place.WITHDRAWN)], results=[replace(RESULT, inputs=frozenset())])
    assert Kind.GONE not in kinds(history_of(stored()), outcome)


def test_what_was_withdrawn_is_reported_no_more():
    """Of a study with an acknowledged note the last report names none of what the note rejects, or there is none."""
    note = StoreEvent(9, Phase.INVOKE, STUDY, "1.2.3.9", "n", Intent.WITHDRAWAL, (UID,))
    history = [*history_of(stored()), note, replace(note, phase=Phase.OK)]
    spool = [kept(), kept("n", Place.WITHDRAWN, "1.2.3.9")]
    assert kinds(history, replace(GOOD, spool=spool)) == {Kind.WITHDRAWN}
    assert kinds(history, replace(GOOD, spool=spool, current={STUDY: "r2"})) == set()
    assert kinds(history, replace(GOOD, spool=[kept()], current={STUDY: "r2"})) == {Kind.LOST, Kind.GONE}
    unanswered = [*history_of(stored()), note, replace(note, phase=Phase.UNKNOWN)]
    assert kinds(unanswered, replace(GOOD, spool=spool)) == set()


def test_bytes_that_nobody_sent_are_invented():
    """A torn or changed file, wherever in the spool."""
    for place in (Place.HELD, Place.CONFLICT, Place.SUPERSEDED):
        outcome = replace(GOOD, spool=[kept(), kept("torn", place)])
        assert kinds(history_of(stored()), outcome) == {Kind.INVENTED}


def test_other_pixels_that_came_later_may_not_be_held():
    """Though both are kept, the first are the instance; unless both were sent at once."""
    history = history_of(stored(), stored(digest="b", intent=OTHER_PIXELS))
    swapped = replace(GOOD, spool=[kept("b"), kept("a", Place.CONFLICT)])
    assert kinds(history, replace(GOOD, spool=[kept(), kept("b", Place.CONFLICT)])) == set()
    assert kinds(history, swapped) == {Kind.OVERWRITTEN}
    at_once = [history[0], history[2], history[1], history[3]]
    assert kinds(at_once, swapped) == set()


def test_a_correction_replaces_or_lies_aside_as_the_node_promises():
    """With its old bytes kept in either case."""
    history = history_of(stored(), stored(digest="b", intent=CORRECTION))
    aside = replace(GOOD, spool=[kept(), kept("b", Place.CONFLICT)])
    taken = replace(
        GOOD,
        spool=[kept("b", patient_id="Q"), kept("a", Place.SUPERSEDED)],
        results=[RESULT, Result(STUDY, "r2", frozenset({"1.9.3"}), frozenset({UID}), "Q")],
        sent=[*GOOD.sent, *sent("1.9.3")],
        current={STUDY: "r2"},
    )
    for outcome in (aside, taken, replace(taken, takes_corrections=True)):
        assert kinds(history, outcome) == set()
    assert kinds(history, replace(aside, takes_corrections=True)) == {Kind.STALE}
    assert kinds(history, replace(taken, spool=[kept("b", patient_id="Q")])) == {Kind.LOST}


def test_a_correction_that_was_refused_need_not_be_taken():
    """Nor one that was sent while the bytes that are held were."""
    history = history_of(stored(), stored(digest="b", intent=CORRECTION, end=Phase.FAIL))
    assert kinds(history, replace(GOOD, takes_corrections=True)) == set()
    history = history_of(stored(), stored(digest="b", intent=CORRECTION))
    at_once = [history[0], history[2], history[3], history[1]]
    outcome = replace(GOOD, spool=[kept(), kept("b", Place.CONFLICT)], takes_corrections=True)
    assert kinds(at_once, outcome) == set()


def test_a_complete_study_must_be_at_each_destination():
    """With each of its objects."""
    history = history_of(stored())
    assert kinds(history, replace(GOOD, sent=sent("1.9.1"))) == {Kind.UNREPORTED}
    assert kinds(history, replace(GOOD, destinations=frozenset({"pacs", "other"}))) == {Kind.UNREPORTED}
    assert kinds(history, replace(GOOD, results=[], sent=[], current={})) == {Kind.UNREPORTED}


def test_the_last_report_is_of_all_that_is_held():
    """An instance came later, and the study was not reported anew."""
    history = history_of(stored(), stored(OTHER_UID, "b"))
    outcome = replace(GOOD, spool=[kept(), kept("b", uid=OTHER_UID)])
    assert kinds(history, outcome) == {Kind.INCOMPLETE}


def test_the_last_report_names_the_patient_of_what_is_held():
    """And what is held names one patient."""
    history = history_of(stored())
    assert kinds(history, replace(GOOD, spool=[kept(patient_id="Q")])) == {Kind.WRONG_PATIENT}
    history = history_of(stored(), stored(OTHER_UID, "b"))
    spool = [kept(), kept("b", uid=OTHER_UID, patient_id="Q")]
    outcome = replace(GOOD, spool=spool, results=[replace(RESULT, inputs=frozenset({UID, OTHER_UID}))])
    assert kinds(history, outcome) == {Kind.WRONG_PATIENT}


def test_the_same_instances_are_reported_once():
    """Another request of the same input is a second report; one of other input, or of another patient, is none."""
    history = history_of(stored())

    def with_second(second: Result) -> set[Kind]:
        return kinds(history, replace(GOOD, results=[second, RESULT], sent=[*GOOD.sent, *sent("1.9.3")]))

    second = replace(RESULT, request="r0", uids=frozenset({"1.9.3"}))
    assert with_second(second) == {Kind.TWICE}
    assert with_second(replace(second, inputs=frozenset())) == set()
    assert with_second(replace(second, patient_id="Q")) == set()


def test_a_result_that_the_node_does_not_know_is_one_too_many():
    """It was made under other UIDs and then made again, say."""
    assert kinds(history_of(stored()), replace(GOOD, sent=[*GOOD.sent, *sent("1.9.7")])) == {Kind.UNKNOWN_RESULT}


def test_different_bytes_under_one_uid_are_found():
    """The destination keeps the first or the last of them: nobody knows."""
    outcome = replace(GOOD, sent=[*GOOD.sent, *sent("1.9.1", digest="y")])
    assert kinds(history_of(stored()), outcome) == {Kind.CHANGED_ON_THE_WAY}


def test_a_study_may_be_deleted_once_it_is_delivered():
    """And not before."""
    outcome = replace(GOOD, spool=[], deleted=frozenset({STUDY}))
    assert violations(history_of(stored()), outcome) == []
    assert kinds(history_of(stored()), replace(outcome, sent=[])) == {Kind.DELETED_UNDELIVERED}


def test_a_changed_file_of_a_real_spool_is_found(tmp_path: Path):
    """What is read of the spool's folder is what was stored; a bit that turned over is seen."""
    instance = make_instance()
    study, uid = str(instance.StudyInstanceUID), str(instance.SOPInstanceUID)
    folder = tmp_path / study / str(instance.SeriesInstanceUID)
    folder.mkdir(parents=True)
    file = write_instance_file(folder, instance)
    aside = tmp_path / ".superseded" / study / f"{uid}.0123456789abcdef.dcm"
    aside.parent.mkdir(parents=True)
    aside.write_bytes(file.read_bytes())
    begun = StoreEvent(1, Phase.INVOKE, study, uid, sha256(data_set_bytes(file.read_bytes())).hexdigest())
    history = [begun, replace(begun, phase=Phase.OK)]
    result = replace(RESULT, study_instance_uid=study, inputs=frozenset({uid}), patient_id=PATIENT_ID)
    outcome = replace(GOOD, results=[result], current={study: "r1"}, spool=read_spool(tmp_path))
    assert [each.place for each in outcome.spool] == [Place.SUPERSEDED, Place.HELD]
    assert violations(history, outcome) == []
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    for each in (file, aside):
        each.write_bytes(content)
    assert kinds(history, replace(outcome, spool=read_spool(tmp_path))) == {Kind.LOST, Kind.INVENTED}
    (tmp_path / ".incoming").mkdir()
    file.rename(tmp_path / ".incoming" / file.name)
    aside.unlink()
    assert read_spool(tmp_path) == []


def test_the_history_is_logged_in_order(tmp_path: Path):
    """Each event is in the file before the client goes on."""
    history = History(tmp_path / "history.jsonl")
    begun = history.invoke(STUDY, UID, "a", Intent.ORIGINAL)
    assert (tmp_path / "history.jsonl").read_text().count("\n") == 1
    history.end(begun, Phase.OK)
    history.close()
    assert [each.phase for each in history.events] == [Phase.INVOKE, Phase.OK]
    assert (tmp_path / "history.jsonl").read_text().count(UID) == 2
