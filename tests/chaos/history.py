"""What clients, spool and destinations say afterwards, and the checker that proves that nothing was lost or twice.

Clients log each C-STORE when they begin it and when they know its end. The checker is a pure function: it reads no
file and asks no node. Times do not matter to it, only the order of the events, which one lock gives all clients.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TextIO


class Phase(StrEnum):
    """A C-STORE begins, and ends in one of three ways. After ``unknown`` (no answer) both may be true."""

    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"


class Intent(StrEnum):
    """Why a client sends these bytes under this UID."""

    ORIGINAL = "original"
    CORRECTION = "correction"  # the same pixels, another patient
    OTHER_PIXELS = "other pixels"  # never to be taken for what was received before
    WITHDRAWAL = "withdrawal"  # a rejection note


class Place(StrEnum):
    """Where a file lies in the spool."""

    HELD = "held"  # the instance itself
    CONFLICT = "conflict"
    SUPERSEDED = "superseded"  # bytes that a correction replaced
    WITHDRAWN = "withdrawn"
    DISMISSED = "dismissed"  # decided: not to be used


class Kind(StrEnum):
    """What a violation is of."""

    LOST = "acknowledged bytes are nowhere in the spool"
    GONE = "of an acknowledged instance nothing is held"
    INVENTED = "no client ever sent the bytes that lie in the spool"
    OVERWRITTEN = "other pixels, sent later, took the place of acknowledged ones"
    STALE = "a later acknowledged correction was not taken"
    UNREPORTED = "a study whose instances are all acknowledged has not reached a destination"
    INCOMPLETE = "the last report is not of the instances that are held"
    WITHDRAWN = "the last report is of instances that were withdrawn"
    WRONG_PATIENT = "the last report names another patient than the instances that are held"
    TWICE = "the same instances of the same patient were reported twice to one destination"
    UNKNOWN_RESULT = "a destination has a result that the node does not know"
    CHANGED_ON_THE_WAY = "a destination was given different bytes under one UID"
    DELETED_UNDELIVERED = "a study was deleted before each destination had its results"


@dataclass(frozen=True, slots=True)
class StoreEvent:
    """A line of the history.

    Attributes:
        digest: SHA-256 of the data set that the C-STORE carries.
        rejects: SOP Instance UIDs that a rejection note withdraws.
    """

    operation: int
    phase: Phase
    study_instance_uid: str
    sop_instance_uid: str
    digest: str
    intent: Intent = Intent.ORIGINAL
    rejects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A file in the spool at the end."""

    place: Place
    study_instance_uid: str
    sop_instance_uid: str
    digest: str
    patient_id: str


@dataclass(frozen=True, slots=True)
class Result:
    """What the node made of one request: the UIDs of its objects, and the instances and the patient that they name."""

    study_instance_uid: str
    request: str
    uids: frozenset[str]
    inputs: frozenset[str]
    patient_id: str


@dataclass(frozen=True, slots=True)
class Sent:
    """An object that a destination was given, as often as it was given."""

    destination: str
    study_instance_uid: str
    sop_instance_uid: str
    digest: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Spool, node and destinations at the end.

    Attributes:
        current: the latest request of each study.
        deleted: studies that retention deleted.
        takes_corrections: a correction replaces what is held; else it may also lie aside as a conflict.
    """

    spool: Sequence[SpoolFile]
    results: Sequence[Result]
    sent: Sequence[Sent]
    destinations: frozenset[str]
    current: Mapping[str, str]
    deleted: frozenset[str] = frozenset()
    takes_corrections: bool = False


@dataclass(frozen=True, slots=True)
class Violation:
    """What went wrong, with what."""

    kind: Kind
    subject: str


class History:
    """Where the clients log. Each event is a line of a file, so that a failure can be looked at afterwards."""

    def __init__(self, file: Path) -> None:
        self.events: list[StoreEvent] = []
        self._lock = threading.Lock()
        self._operations = 0
        self._stream: TextIO = file.open("a", encoding="utf-8")

    def invoke(
        self, study: str, sop_instance_uid: str, digest: str, intent: Intent, rejects: tuple[str, ...] = ()
    ) -> StoreEvent:
        """A C-STORE begins; what is returned is passed to `end`."""
        with self._lock:
            self._operations += 1
            uids = (study, sop_instance_uid)
            return self._add(StoreEvent(self._operations, Phase.INVOKE, *uids, digest, intent, rejects))

    def end(self, begun: StoreEvent, phase: Phase) -> None:
        """The C-STORE ended."""
        with self._lock:
            self._add(replace(begun, phase=phase))

    def _add(self, event: StoreEvent) -> StoreEvent:
        self.events.append(event)
        self._stream.write(json.dumps(asdict(event)) + "\n")
        self._stream.flush()
        return event

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def violations(history: Sequence[StoreEvent], outcome: Outcome) -> list[Violation]:
    """Everything that is wrong; an empty list proves the run."""
    by_uid: dict[str, list[tuple[int, StoreEvent]]] = {}
    for position, event in enumerate(history):
        by_uid.setdefault(event.sop_instance_uid, []).append((position, event))
    files: dict[str, list[SpoolFile]] = {}
    held: dict[str, list[SpoolFile]] = {}
    for file in outcome.spool:
        files.setdefault(file.sop_instance_uid, []).append(file)
        if file.place is Place.HELD:
            held.setdefault(file.study_instance_uid, []).append(file)
    found: list[Violation] = []
    for uid, events in by_uid.items():
        if events[0][1].study_instance_uid not in outcome.deleted:
            found += _of_instance(events, files.get(uid, []), outcome)
    sent_by_clients = {(event.sop_instance_uid, event.digest) for event in history}
    found += [
        Violation(Kind.INVENTED, f"{file.place} {file.sop_instance_uid}")
        for file in outcome.spool
        if (file.sop_instance_uid, file.digest) not in sent_by_clients
    ]
    for study in {event.study_instance_uid for event in history}:
        found += _of_study(study, held.get(study, []), history, outcome)
    return found + list(_of_destinations(outcome))


def _of_instance(
    events: Sequence[tuple[int, StoreEvent]], files: Sequence[SpoolFile], outcome: Outcome
) -> Iterator[Violation]:
    uid = events[0][1].sop_instance_uid
    acknowledged = {event.digest for _, event in events if event.phase is Phase.OK}
    for digest in acknowledged - {file.digest for file in files}:
        yield Violation(Kind.LOST, f"{uid} {digest[:16]}")
    here = {file.place for file in files}
    if acknowledged and not here & {Place.HELD, Place.WITHDRAWN}:
        yield Violation(Kind.GONE, uid)
    for file in files:
        if file.place is not Place.HELD:
            continue
        of_held = [(position, event) for position, event in events if event.digest == file.digest]
        others = [(position, event) for position, event in events if event.digest != file.digest]
        if not of_held:
            continue  # INVENTED
        begin = of_held[0][0]
        is_late = any(event.phase is Phase.OK and position < begin for position, event in others)
        if of_held[0][1].intent is Intent.OTHER_PIXELS and is_late:
            yield Violation(Kind.OVERWRITTEN, uid)
        if outcome.takes_corrections and _later_corrections(of_held, others):
            yield Violation(Kind.STALE, uid)


def _later_corrections(of_held: Sequence[tuple[int, StoreEvent]], others: Sequence[tuple[int, StoreEvent]]) -> set[str]:
    """Digests of acknowledged corrections that were all begun after the last that is known of what is held."""
    last = max(position for position, _ in of_held)
    corrections = [(position, event) for position, event in others if event.intent is Intent.CORRECTION]
    early = {event.digest for position, event in corrections if position < last}
    return {event.digest for _, event in corrections if event.phase is Phase.OK} - early


def _of_study(
    study: str, held: Sequence[SpoolFile], history: Sequence[StoreEvent], outcome: Outcome
) -> Iterator[Violation]:
    events = [event for event in history if event.study_instance_uid == study]
    if notes := [event for event in events if event.intent is Intent.WITHDRAWAL]:
        yield from _of_withdrawn(study, notes, outcome)
        return
    invoked = {event.sop_instance_uid for event in events}
    if invoked != {event.sop_instance_uid for event in events if event.phase is Phase.OK}:
        return  # nobody was told that the study is complete
    results = [each for each in outcome.results if each.study_instance_uid == study]
    current = [each for each in results if each.request == outcome.current.get(study)]
    uids = current[0].uids if current else frozenset()
    for destination in sorted(outcome.destinations):
        given = {sent.sop_instance_uid for sent in outcome.sent if sent.destination == destination}
        if not uids or not uids <= given:
            kind = Kind.DELETED_UNDELIVERED if study in outcome.deleted else Kind.UNREPORTED
            yield Violation(kind, f"{study} at {destination}")
    if not current or study in outcome.deleted:
        return
    if current[0].inputs != {file.sop_instance_uid for file in held}:
        yield Violation(Kind.INCOMPLETE, study)
    if {file.patient_id for file in held} != {current[0].patient_id}:
        yield Violation(Kind.WRONG_PATIENT, study)


def _of_withdrawn(study: str, notes: Sequence[StoreEvent], outcome: Outcome) -> Iterator[Violation]:
    """Of what a note rejects nothing is reported at last; what is left may be too little for a report."""
    rejected = {uid for event in notes if event.phase is Phase.OK for uid in event.rejects}
    for result in outcome.results:
        is_last = result.study_instance_uid == study and result.request == outcome.current.get(study)
        if is_last and result.inputs & rejected:
            yield Violation(Kind.WITHDRAWN, study)


def _of_destinations(outcome: Outcome) -> Iterator[Violation]:
    known = {uid: each for each in outcome.results for uid in each.uids}
    given: dict[tuple[str, str], set[str]] = {}
    for sent in outcome.sent:
        given.setdefault((sent.destination, sent.sop_instance_uid), set()).add(sent.digest)
    reported: dict[tuple[str, str, str, frozenset[str]], set[str]] = {}
    for (destination, uid), digests in given.items():
        if len(digests) > 1:
            yield Violation(Kind.CHANGED_ON_THE_WAY, f"{uid} at {destination}")
        result = known.get(uid)
        if result is None:
            yield Violation(Kind.UNKNOWN_RESULT, f"{uid} at {destination}")
            continue
        subject = (destination, result.study_instance_uid, result.patient_id, result.inputs)
        reported.setdefault(subject, set()).add(result.request)
    for (destination, study, _, _), requests in reported.items():
        if len(requests) > 1:
            yield Violation(Kind.TWICE, f"{study} at {destination}")
