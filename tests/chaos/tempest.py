"""Two machines, two destinations, one database, one spool, and faults drawn from a seed: what the checker judges."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pydicom
from clients import Clients
from database_pair import DatabasePair
from fault_schedule import FaultKind, FaultOrder, fault_orders
from faults import FakePacs, StoredInstance, free_port
from faulty_libc import FaultControl, build_library
from history import Intent, Kind, Outcome, Place, Result, Sent, SpoolFile, Violation, violations
from hosts import Being, Host, running_host
from mortal import INPUTS
from node_process import write_config
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, EnhancedSRStorage, SegmentationStorage
from pynetdicom.dsutils import encode
from storm import fickle_plan
from wires import Net, Wire, Wires

from node.config import Config, load_config
from node.errors import EngineError
from node.processing.study_status import read_study_statuses
from node.scp.aside import data_set_digest
from node.study import Destination
from node.workflow.client import WorkflowClient
from node.workflow.states import StudyState

_START_SECONDS = 180.0
_TOLD_EACH = 100  # a long run shows how far it is
_ROLES = ("receive", "work")
_PLACES = {
    ".conflicts": Place.CONFLICT, ".superseded": Place.SUPERSEDED, ".withdrawn": Place.WITHDRAWN,
    ".dismissed": Place.DISMISSED,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it. ``studies``: at least; ``open_studies``: at most begun and not yet reported."""

    seed: int
    faults: int
    studies: int
    kinds: Sequence[FaultKind] = tuple(FaultKind)
    mean_pause_seconds: float = 0.5
    open_studies: int = 6
    probability: float = 0.001
    storm_seconds: float = 3000.0
    calm_seconds: float = 900.0


@dataclass(slots=True)
class Figures:
    """What happened."""

    faults: Counter[str] = field(default_factory=Counter)
    deaths: int = 0
    hits: int = 0
    stores: Counter[str] = field(default_factory=Counter)
    studies: int = 0
    corrected: int = 0
    withdrawn: int = 0
    given: int = 0
    results: int = 0
    storm_seconds: float = 0.0
    calm_seconds: float = 0.0

    def total(self) -> int:
        """Faults that were in effect."""
        return sum(self.faults.values()) + self.deaths


class Tempest:
    """One run."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.plan, self.figures, self._folder = plan, Figures(), folder
        self._stack = ExitStack()
        self._beings: dict[str, Being] = {}
        self._wires: dict[str, Wire] = {}
        self._busy: set[str] = set()
        self._strikes: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._receivers: list[Destination] = []
        self.lines: list[tuple[str, str, str | None]] = []

    # ---- what there is ------------------------------------------------------------------------------------------

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Everything stands and is started; it ends with the block."""
        with self._stack:
            self._database = self._stack.enter_context(DatabasePair(FaultKind.FAILOVER in self.plan.kinds))
            sop_classes = [SegmentationStorage, EnhancedSRStorage]
            plans = ((), fickle_plan(self.plan.seed, 200))
            self.pacs = {
                name: self._stack.enter_context(FakePacs(plan, sop_classes=sop_classes))
                for name, plan in zip(("archive", "fickle"), plans, strict=True)
            }
            self._all_wires = self._stack.enter_context(Wires())
            library = build_library(self._folder)
            for name in ("one", "two"):
                self._add_host(self._stack.enter_context(running_host(name)), library)
            port = free_port()
            self._database.wires.append(self._all_wires.connect(Net(), port, Net(), self._database.port))
            self.config = load_config(self._write_config("test", {}, port, free_port()))
            self._client = self._stack.enter_context(closing(WorkflowClient(self.config)))
            self._clients = Clients(self._receivers, self._folder / "history.jsonl", self.plan.seed, 3)
            self._clients.may_begin = self._may_begin
            try:
                yield
            finally:
                self._clients.finish(is_given_up=True)
                for being in self._beings.values():
                    being.control.heal()
                    being.end()

    def _add_host(self, host: Host, library: Path) -> None:
        """A receiver and a worker, and the wires by which they reach the world and the world reaches them."""
        self.is_apart = host.is_apart
        ports = {name: free_port() for name in ("scp", "outside", "database", *self.pacs)}
        targets = {"database": self._database.port} | {name: pacs.port for name, pacs in self.pacs.items()}
        for name, target in targets.items():
            self._wires[f"{name} from {host.name}"] = self._all_wires.connect(host.net, ports[name], Net(), target)
        self._database.wires.append(self._wires[f"database from {host.name}"])
        wire = self._all_wires.connect(Net(), ports["outside"], host.net, ports["scp"])
        self._wires[f"clients to {host.name}"] = wire
        self._receivers.append(Destination(host.name, "GLIONODE", "127.0.0.1", ports["outside"]))
        config_file = self._write_config(host.name, ports, ports["database"], ports["scp"])
        for role in _ROLES:
            place = self._folder / "var" / ("spool" if role == "receive" else "work")
            place.mkdir(parents=True, exist_ok=True)
            control = FaultControl(library, self._folder / f"{host.name}-{role}.faults", place)
            being = Being(host, role, config_file, control, str(self.plan.seed), self.plan.probability)
            self._beings[being.name] = being

    def _write_config(self, name: str, ports: dict[str, int], database: int, scp: int) -> Path:
        peers = [Destination(pacs, "PACS", "127.0.0.1", ports.get(pacs, 1)) for pacs in self.pacs]
        engine = {
            "database": f"postgresql://glionode@127.0.0.1:{database}/postgres", "max_recoveries": 1000,
            "attempts": 100, "attempt_pause_seconds": 0.2, "longest_attempt_pause_seconds": 20.0,
            "heartbeat_seconds": 1.0, "dead_seconds": 6.0,
        }  # fmt: skip
        return write_config(
            self._folder / name,
            peers,
            node={"folder": str(self._folder / "var")},
            scp={"port": scp},
            engine=engine,
            segmentation={"device": "cpu" if name == "one" else "auto"},  # where machines cannot be named apart
            retention={"enabled": False},
            assembly={"stable_seconds": 2.0, "series_stable_seconds": 1.0},
            delivery={"first_retry_seconds": 0.3, "longest_retry_seconds": 2.0, "timeout_seconds": 4.0},
        )

    # ---- what happens -------------------------------------------------------------------------------------------

    def run(self) -> list[Violation]:
        """Store through the storm, let it calm down, wait until all is delivered; what the checker finds."""
        with self.prepared():
            begun = time.monotonic()
            for being in self._beings.values():
                being.start()
            self._wait_for(self._are_at_work, _START_SECONDS, lambda: "the node did not start")
            self._clients.start()
            self._storm()
            self.figures.storm_seconds = time.monotonic() - begun
            self._calm()
            self._clients.finish()
            found: list[Violation] = []

            def is_settled() -> bool:
                found[:] = self._judged()
                transient = {Kind.UNREPORTED, Kind.INCOMPLETE, Kind.WRONG_PATIENT}
                # a study is refused once a rejection note has withdrawn a contrast of it
                is_at_rest = all(state in (StudyState.DELIVERED, StudyState.REFUSED) for _, state, _ in self.lines)
                return is_at_rest and not transient & {each.kind for each in found}

            with suppress(TimeoutError):
                self._wait_for(is_settled, self.plan.calm_seconds, lambda: "not settled")
            self.figures.calm_seconds = time.monotonic() - begun - self.figures.storm_seconds
            self._count()
            return found

    def _are_at_work(self) -> bool:
        for being in self._beings.values():
            assert being.ends < 3, being.log_file.read_text("utf-8")[-3000:]
        return all(being.is_at_work() for being in self._beings.values())

    def _may_begin(self) -> bool:
        """True while few studies are begun that are not at a destination, and have not lost a series to a note."""
        reported = {uid for pacs in self.pacs.values() for uid in _studies_at(pacs)}
        rejected = {visit.study_instance_uid for visit in self._clients.visits if visit.is_rejected}
        return len(self._clients.visits) - len(reported | rejected) < self.plan.open_studies

    def _storm(self) -> None:
        orders = fault_orders(
            self.plan.seed, sorted(self._beings), sorted(self._wires), self.plan.kinds, self.plan.mean_pause_seconds
        )
        deadline, pause = time.monotonic() + self.plan.storm_seconds, threading.Event()
        for order in orders:
            deaths = sum(being.kills for being in self._beings.values()) - self.figures.faults[FaultKind.KILL]
            self.figures.deaths = max(0, deaths)
            if self.figures.total() >= self.plan.faults and len(self._clients.visits) >= self.plan.studies:
                break
            assert time.monotonic() < deadline, f"only {self.figures}"
            pause.wait(order.pause_seconds)
            with self._lock:
                if order.target in self._busy:
                    continue
                self._busy.add(order.target)
            self._strikes = [thread for thread in self._strikes if thread.is_alive()]
            self._strikes.append(threading.Thread(target=self._strike, args=(order,), name=str(order.kind)))
            self._strikes[-1].start()
        for thread in self._strikes:
            thread.join()

    def _strike(self, order: FaultOrder) -> None:
        """Let the fault be in effect for its time, and count it if there was something to strike."""
        try:
            being, wire = self._beings.get(order.target), self._wires.get(order.target)
            if being is not None:
                is_struck = being.is_at_work() and _strike_process(being, order)
            elif wire is not None:
                (wire.cut if order.kind is FaultKind.CUT else wire.silence)()
                time.sleep(order.seconds)
                wire.mend()
                is_struck = True
            else:
                is_struck = True
                if order.kind is FaultKind.FAILOVER:
                    self._database.fail_over()
                else:
                    self._database.restart(is_crash=order.seconds < 0.8)
            with self._lock:
                self.figures.faults[order.kind] += is_struck
                if is_struck and self.figures.total() % _TOLD_EACH == 0:
                    sys.stdout.write(f"{self.figures.total()} faults, {len(self._clients.visits)} studies\n")
                    sys.stdout.flush()
        finally:
            with self._lock:
                self._busy.discard(order.target)

    def _calm(self) -> None:
        """No fault any more, and processes that live on."""
        for being in self._beings.values():
            being.control.heal()
            if being.probability:
                being.probability = 0.0
                being.send(signal.SIGKILL)
        for wire in self._wires.values():
            wire.mend()
        for pacs in self.pacs.values():
            pacs.plan.clear()

    def _wait_for(self, condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
        deadline, pause = time.monotonic() + seconds, threading.Event()
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(what())
            pause.wait(0.5)

    # ---- what is left -------------------------------------------------------------------------------------------

    def _judged(self) -> list[Violation]:
        try:
            lines = read_study_statuses(self.config, self._client)
        except EngineError:  # its connections broke with the last server
            self.lines = []
            return [Violation(Kind.UNREPORTED, "the database does not answer")]
        self.lines = [(line.study_instance_uid, line.state, line.reason) for line in lines]
        outcome = Outcome(
            spool=read_spool(self.config.spool_folder),
            results=read_results(self.config),
            sent=[
                Sent(name, study_of(each), each.sop_instance_uid, content_digest(each))
                for name, pacs in self.pacs.items()
                for each in list(pacs.received)
            ],
            destinations=frozenset(self.pacs),
            current={line.study_instance_uid: line.folder for line in lines if line.folder},
            # a version that takes corrections has the setting
            takes_corrections=getattr(self.config.assembly, "corrections", "") == "redo",
        )
        self.figures.given, self.figures.results = len(outcome.sent), len(outcome.results)
        return violations(self._clients.history.events, outcome)

    def _count(self) -> None:
        self.figures.hits = sum(being.control.hits for being in self._beings.values())
        self.figures.stores = Counter(str(event.phase) for event in self._clients.history.events)
        self.figures.studies = len(self._clients.visits)
        fates = Counter(visit.last[0].intent for visit in self._clients.visits if visit.last)
        self.figures.corrected, self.figures.withdrawn = fates[Intent.CORRECTION], fates[Intent.WITHDRAWAL]


def _strike_process(being: Being, order: FaultOrder) -> bool:
    control = being.control
    if order.kind is FaultKind.KILL:
        return being.send(signal.SIGKILL)
    if order.kind is FaultKind.STOP:
        is_struck = being.send(signal.SIGSTOP)
        time.sleep(order.seconds)
        return being.send(signal.SIGCONT) and is_struck
    if order.kind is FaultKind.NO_SPACE:
        control.fail(errno.ENOSPC)
    elif order.kind is FaultKind.BAD_DISK:
        control.fail(errno.EIO, reading=True)
    elif order.kind is FaultKind.SLOW_SYNC:
        control.slow_sync(random.Random(order.pause_seconds).choice((50, 300, 1000)))
    else:
        control.set_clock(order.amount)
    time.sleep(order.seconds)
    control.heal()
    return True


def _data_set(instance: StoredInstance) -> Dataset:
    syntax = UID(instance.transfer_syntax_uid)
    return read_dataset(BytesIO(instance.data_set), syntax.is_implicit_VR, syntax.is_little_endian)


@functools.cache
def study_of(instance: StoredInstance) -> str:
    """(0020,000D) of what a destination received."""
    return str(_data_set(instance).StudyInstanceUID)


@functools.cache
def content_digest(instance: StoredInstance) -> str:
    """The digest of what a destination received, in whichever transfer syntax the association was."""
    content = encode(_data_set(instance), is_implicit_vr=False, is_little_endian=True)
    assert content is not None
    return hashlib.sha256(content).hexdigest()


def _studies_at(pacs: FakePacs) -> set[str]:
    return {study_of(each) for each in list(pacs.received)}


def read_spool(folder: Path) -> list[SpoolFile]:
    """Every file that the spool keeps; those that are still arriving are no part of it."""
    found = []
    for file in sorted(folder.rglob("*.dcm")):
        top = file.relative_to(folder).parts[0]
        if top.startswith(".") and top not in _PLACES:
            continue
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        uids = (str(header.get("StudyInstanceUID")), str(header.get("SOPInstanceUID")))
        place = _PLACES.get(top, Place.HELD)
        found.append(SpoolFile(place, *uids, data_set_digest(file), str(header.get("PatientID"))))
    return found


def read_results(config: Config) -> list[Result]:
    """Every result in the work folder."""
    found = []
    for file in sorted(config.work_folder.glob("*/result.json")):
        folder, result = file.parent, json.loads(file.read_text("utf-8"))
        if result["state"] != "reported":
            continue
        objects = [pydicom.dcmread(folder / name, stop_before_pixels=True) for name in ("seg.dcm", "sr.dcm")]
        uids = frozenset(str(each.SOPInstanceUID) for each in objects)
        inputs = frozenset((folder / INPUTS).read_text("ascii").split())
        study = str(objects[0].StudyInstanceUID)
        found.append(Result(study, folder.name, uids, inputs, str(objects[0].PatientID)))
    return found
