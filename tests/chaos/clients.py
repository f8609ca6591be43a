"""Clients that store studies at several receivers, correct them, and log what they did and what they were answered."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from history import History, Intent, Phase, StoreEvent
from instances import data_set_bytes, encode_instance
from pydicom.uid import KeyObjectSelectionDocumentStorage, MRImageStorage
from raw_peer import PeerAbortedError, RawPeer
from rejection_notes import key_object_selection
from small_study import all_instances, study_instance_uid
from storm import make_study

from node.scp.rejection_note import QUALITY
from node.study import Destination

_PAUSE_SECONDS = 0.2
_MOST_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Store:
    """What one C-STORE is to carry."""

    study_instance_uid: str
    sop_instance_uid: str
    data_set: bytes
    intent: Intent
    sop_class_uid: str = MRImageStorage
    rejects: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the data set."""
        return hashlib.sha256(self.data_set).hexdigest()


@dataclass(frozen=True, slots=True)
class Visit:
    """All that is stored of one study: first all its instances; later, for some, other pixels, and what comes last.

    ``last``: corrections of all instances, or a note that rejects those of one series, or nothing.
    """

    study_instance_uid: str
    originals: list[Store]
    other_pixels: list[Store]
    last: list[Store]

    @property
    def is_rejected(self) -> bool:
        """True if a note rejects a series of the study."""
        return any(each.intent is Intent.WITHDRAWAL for each in self.last)


def make_visit(seed: int, number: int) -> Visit:
    """Study ``number`` of the run; a function of the seed."""
    chance = random.Random(f"{seed} {number}")
    study = make_study(number)
    uid = study_instance_uid(study)
    instances = list(all_instances(study))
    rejected = chance.choice(list(study.values()))

    def stores(intent: Intent) -> list[Store]:
        return [
            Store(uid, str(each.SOPInstanceUID), data_set_bytes(encode_instance(each)), intent) for each in instances
        ]

    originals = stores(Intent.ORIGINAL)
    chance.shuffle(originals)
    fate, last = chance.random(), []
    if fate > 0.8:
        note = key_object_selection(QUALITY, rejected, f"note {number}")
        content, uids = data_set_bytes(encode_instance(note)), tuple(str(each.SOPInstanceUID) for each in rejected)
        last = [Store(uid, note.SOPInstanceUID, content, Intent.WITHDRAWAL, KeyObjectSelectionDocumentStorage, uids)]
    for instance in instances:
        instance.PatientID, instance.PatientName = f"PAT-{number}", "Corrected^Patient"
    last = stores(Intent.CORRECTION) if fate < 0.3 else last
    for instance in instances:
        instance.PixelData = bytes(byte ^ 1 for byte in instance.PixelData)
    other_pixels = chance.sample(stores(Intent.OTHER_PIXELS), 2) if chance.random() < 0.3 else []
    return Visit(uid, originals, other_pixels, last)


class Client:
    """Stores at any of ``receivers`` until each C-STORE was answered with Success."""

    def __init__(self, receivers: Sequence[Destination], history: History, chance: random.Random) -> None:
        self._receivers, self._history, self._chance = receivers, history, chance

    def store_all(self, stores: Sequence[Store], is_over: Callable[[], bool]) -> bool:
        """False if ``is_over`` came true before."""
        waiting = list(stores)
        pause = threading.Event()
        while waiting and not is_over():
            batch = waiting[: self._chance.randint(1, _MOST_AT_ONCE)]
            done = self._store(batch)
            waiting = [each for each in waiting if each not in done]
            if len(done) < len(batch):
                pause.wait(_PAUSE_SECONDS)  # as a PACS's queue does between attempts
        return not waiting

    def _store(self, batch: Sequence[Store]) -> list[Store]:
        """Those of one association that were answered with Success."""
        done: list[Store] = []
        begun: StoreEvent | None = None
        try:
            # all that is stored at once is of one class
            with RawPeer(self._chance.choice(self._receivers), sop_class=batch[0].sop_class_uid) as peer:
                for each in batch:
                    begun = self._history.invoke(
                        each.study_instance_uid, each.sop_instance_uid, each.digest, each.intent, each.rejects
                    )
                    status = peer.store(each.sop_instance_uid, each.data_set, each.sop_class_uid)
                    self._history.end(begun, Phase.OK if status == 0x0000 else Phase.FAIL)
                    begun = None
                    done += [each] if status == 0x0000 else []
        except (OSError, PeerAbortedError, AssertionError):  # also while the association is released
            if begun is not None:
                self._history.end(begun, Phase.UNKNOWN)
        return done


class Clients:
    """Threads that make one visit after the other until told to come to their end."""

    def __init__(self, receivers: Sequence[Destination], file: Path, seed: int, threads: int) -> None:
        self.history = History(file)
        self.visits: list[Visit] = []
        self._seed, self._receivers = seed, receivers
        self._lock, self._is_last = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), name=f"client {n}") for n in range(threads)]
        self.may_begin: Callable[[], bool] = lambda: True
        self._is_given_up = False

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def finish(self, is_given_up: bool = False) -> None:
        """Return once the studies that were begun are stored; ``is_given_up``: at once."""
        self._is_given_up = is_given_up
        self._is_last.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self.history.close()

    def _run(self, number: int) -> None:
        client = Client(self._receivers, self.history, random.Random(f"{self._seed} client {number}"))
        later: list[Store] = []
        while not self._is_last.is_set():
            if not self.may_begin():
                self._is_last.wait(0.3)
                continue
            with self._lock:
                visit = make_visit(self._seed, len(self.visits))
                self.visits.append(visit)
            self._store(client, visit.originals)
            self._store(client, later)
            self._store(client, visit.other_pixels)
            later = visit.last  # when the study may have been reported
        self._store(client, later)

    def _store(self, client: Client, stores: Sequence[Store]) -> None:
        client.store_all(stores, lambda: self._is_given_up)
