"""The chaos: mortal receivers and workers started again and again, studies streaming in, PACS that fail."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from faults import FakePacs, Fault
from instances import encode_instance
from lab import Orthanc, find_program
from node_process import write_config
from pydicom.dataset import Dataset
from small_study import all_instances, make_small_study, study_instance_uid

from node.config import Config, load_config
from node.processing.study_status import StudyStatus, read_study_statuses
from node.study import Destination
from node.workflow.client import WorkflowClient

MORTAL = Path(__file__).with_name("mortal.py")
ROWS = COLUMNS = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it. Probabilities are per wrapped call, see ``mortal``."""

    studies: int
    kills: int
    receiver_probability: float
    worker_probability: float
    workers: int = 1
    database: str = ""
    seed: int = 0
    limit_seconds: float = 3600.0


@dataclass(slots=True)
class Figures:
    """What happened."""

    kills: dict[str, int] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    sent_twice: int = 0
    delivered_in_storm: int = 0
    seconds: float = 0.0

    def total_kills(self) -> int:
        """Of all processes."""
        return sum(self.kills.values())


class Mortal:
    """A process that is started again whenever it dies, until told to live on."""

    def __init__(self, role: str, config_file: Path, plan: Plan, figures: Figures, name: str) -> None:
        self.name = name
        self._role, self._config_file, self._figures = role, config_file, figures
        self._probability = plan.receiver_probability if role == "receive" else plan.worker_probability
        self._random = random.Random(f"{plan.seed} {name}")
        self._stop, self.is_storm = threading.Event(), True
        self._lives = 0
        self._log = config_file.with_name(f"{name}.log")
        self._log_start_bytes = 0  # of the current life
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_alive, name=name)
        figures.kills[name] = 0

    def start(self) -> None:
        """First life."""
        self._thread.start()

    def _keep_alive(self) -> None:
        while not self._stop.is_set():
            self._log_start_bytes = self._log.stat().st_size if self._log.exists() else 0
            self._lives += 1
            probability = self._probability if self.is_storm else 0.0
            command = [
                sys.executable,
                str(MORTAL),
                self._role,
                str(self._config_file),
                str(self._lives),
                str(probability),
            ]
            with self._log.open("ab") as output:
                self._process = subprocess.Popen(command, stdout=output, stderr=output, cwd=MORTAL.parents[2])
            self._process.wait()
            if self._process.returncode == -signal.SIGKILL:
                self._figures.kills[self.name] += 1
            elif not self._stop.is_set():
                self._stop.wait(0.5)  # its port or lock is not free yet

    def is_at_work(self) -> bool:
        """True once the current process has logged that it is ready."""
        if not self._log.exists():
            return False
        with self._log.open("rb") as log:
            log.seek(self._log_start_bytes)
            return b"_ready" in log.read()

    def kill_from_outside(self) -> None:
        """SIGKILL at a moment that no wrapped call chose."""
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()

    def stop(self) -> None:
        """The end, in good order."""
        self._stop.set()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        self._thread.join(60)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def make_study(number: int) -> dict[str, list[Dataset]]:
    """Study ``number``: small, with image content that a threshold divides."""
    study = make_small_study(f"chaos {number}")
    for index, instance in enumerate(all_instances(study)):
        instance.Rows, instance.Columns = ROWS, COLUMNS
        instance.PixelSpacing = [8, 8]
        values = [(17 * pixel + 5 * index + number) % 251 for pixel in range(ROWS * COLUMNS)]
        instance.PixelData = b"".join(value.to_bytes(2, "little") for value in values)
    return study


def write_study(folder: Path, study: dict[str, list[Dataset]]) -> list[Path]:
    """Its files."""
    folder.mkdir(parents=True)
    files = []
    for instance in all_instances(study):
        files.append(folder / f"{instance.SOPInstanceUID}.dcm")
        files[-1].write_bytes(encode_instance(instance))
    return files


def stream(config: Config, files: Sequence[Path], figures: Figures, lock: threading.Lock) -> None:
    """Send ``files`` by DCMTK's storescu, again and again, until each was answered with Success."""
    program = find_program("storescu")
    assert program is not None
    waiting = {file.stem: file for file in files}
    while waiting:
        command = [str(program), "-v", "-aec", config.scp.ae_title, "127.0.0.1", str(config.scp.port)]
        done = subprocess.run([*command, *map(str, waiting.values())], capture_output=True, text=True, check=False)
        answered = acknowledged(done.stdout + done.stderr)
        with lock:
            figures.sent_twice += len(answered & figures.acknowledged)
            figures.acknowledged |= answered
        waiting = {uid: file for uid, file in waiting.items() if uid not in answered}
        if waiting:
            time.sleep(0.2)  # as a PACS's queue does between attempts


def acknowledged(output: str) -> set[str]:
    """SOP Instance UIDs (the files' names) that storescu says were answered with Success."""
    found, current = set(), None
    for line in output.splitlines():
        if sending := re.search(r"Sending file: .*/(\S+)\.dcm", line):
            current = sending[1]
        elif "Received Store Response (Success)" in line and current:
            found.add(current)
            current = None
    return found


def fickle_plan(seed: int, length: int) -> list[int | Fault]:
    """What a PACS in trouble answers: mostly refusals, aborts, half answers, and instances kept but not answered."""
    choices: list[int | Fault] = [0, 0, 0xA700, Fault.ABORT, Fault.HALF_ANSWER, Fault.TAKE_AND_ABORT, Fault.STALL]
    return random.Random(seed).choices(choices, weights=[3, 3, 3, 2, 2, 2, 0.3], k=length)


def wait_for(condition: Callable[[], object], what: Callable[[], str], limit_seconds: float) -> None:
    """Wait, polling several times a second."""
    deadline = time.monotonic() + limit_seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.3)


class Storm:
    """One run: its folder, its PACS (a real one, and one that fails), its mortals."""

    def __init__(self, folder: Path, plan: Plan, pacs: Orthanc, fickle: FakePacs) -> None:
        self.plan, self.figures, self._fickle, self._pacs = plan, Figures(), fickle, pacs
        peers = [
            Destination("archive", pacs.ae_title, "127.0.0.1", pacs.dicom_port),
            Destination("fickle", fickle.ae_title, "127.0.0.1", fickle.port),
        ]
        # above the default: here workers die by chance some hundred times, now and then at the same study
        engine = {
            "database": plan.database, "max_recoveries": 1000, "attempts": 100, "attempt_pause_seconds": 0.2,
            "longest_attempt_pause_seconds": 20.0,
            "heartbeat_seconds": 1.0, "dead_seconds": 15.0,
        }  # fmt: skip
        sections = {
            "node": {"folder": str(folder / "var")}, "engine": engine,
            "retention": {"enabled": False},
            "assembly": {"stable_seconds": 2.0, "series_stable_seconds": 1.0},
            "delivery": {"first_retry_seconds": 0.3, "longest_retry_seconds": 2.0, "timeout_seconds": 4.0},
        }  # fmt: skip
        self._files = [write_config(folder, peers, **sections)]
        ports = {"scp": {"port": load_config(self._files[0]).scp.port}}
        devices = [{"device": "cpu"}, {"device": "auto"}][: plan.workers]
        self._files += [
            write_config(folder / f"worker{number}", peers, **sections, **ports, segmentation=device)
            for number, device in enumerate(devices)
        ]
        self.config = load_config(self._files[0])
        self._folder = folder
        receiver = Mortal("receive", self._files[0], plan, self.figures, "receiver")
        workers = [Mortal("work", file, plan, self.figures, f"worker{n}") for n, file in enumerate(self._files[1:])]
        self.mortals = [receiver, *workers]
        self.studies = [make_study(number) for number in range(plan.studies)]

    def run(self) -> Figures:
        """Send everything through the storm, then let it calm down and wait until all is delivered."""
        begun, lock = time.monotonic(), threading.Lock()
        client = WorkflowClient(self.config)
        for mortal in self.mortals:
            mortal.start()
        senders = [threading.Thread(target=self._send, args=(part, lock)) for part in range(3)]
        try:
            for sender in senders:
                sender.start()
            self._strike_until_enough(senders, client)
            for mortal in self.mortals:
                mortal.is_storm = False
                mortal.kill_from_outside()
            self._fickle.plan.clear()
            wait_for(lambda: self.is_all_delivered(client), lambda: self.story(client), self.plan.limit_seconds)
        finally:
            for sender in senders:
                sender.join()
            for mortal in self.mortals:
                mortal.stop()
            client.close()
        self.figures.seconds = time.monotonic() - begun
        return self.figures

    def _send(self, part: int, lock: threading.Lock) -> None:
        for number in range(part, len(self.studies), 3):
            files = write_study(self._folder / "sent" / str(number), self.studies[number])
            stream(self.config, files, self.figures, lock)

    def _strike_until_enough(self, senders: Sequence[threading.Thread], client: WorkflowClient) -> None:
        """Until all is sent, enough was killed, and half of the studies came through it.

        A process is killed from outside only once it is at work, however long its start takes on a loaded machine.
        After ``plan.kills`` kills only the processes' own fate goes on.
        """
        chance = random.Random(self.plan.seed)
        deadline = time.monotonic() + self.plan.limit_seconds
        while (
            self.figures.total_kills() < self.plan.kills
            or any(sender.is_alive() for sender in senders)
            or 2 * self.delivered(client) < self.plan.studies
        ):
            assert time.monotonic() < deadline, f"only {self.figures}"
            time.sleep(chance.uniform(0.2, 2.0))
            mortal = chance.choice(self.mortals)
            if mortal.is_at_work() and self.figures.total_kills() < self.plan.kills:
                mortal.kill_from_outside()
        self.figures.delivered_in_storm = self.delivered(client)

    def lines(self, client: WorkflowClient) -> list[StudyStatus]:
        """The ledger."""
        return read_study_statuses(self.config, client)

    def delivered(self, client: WorkflowClient) -> int:
        """Studies that are at their end."""
        return sum(line.state == "delivered" for line in self.lines(client))

    def is_all_delivered(self, client: WorkflowClient) -> bool:
        """Every study is at its end, at both destinations."""
        lines = self.lines(client)
        return len(lines) == self.plan.studies and all(line.state == "delivered" for line in lines)

    def story(self, client: WorkflowClient) -> str:
        """What is not delivered, for the failure's text."""
        left = [(line.state, line.reason, line.deliveries) for line in self.lines(client) if line.state != "delivered"]
        return f"{len(left)} not delivered: {left[:5]}; {self.figures}"

    def missing_instances(self) -> set[str]:
        """Acknowledged, but not in the spool."""
        kept = {file.stem for file in self.config.spool_folder.rglob("*.dcm")}
        return self.figures.acknowledged - kept

    def results_made(self) -> dict[str, tuple[str, str]]:
        """Study to the SOP Instance UIDs of its SEG and SR."""
        made = {}
        for folder in self.config.work_folder.iterdir():
            if (folder / "sr.dcm").is_file():
                seg, report = (
                    pydicom.dcmread(folder / name, stop_before_pixels=True) for name in ("seg.dcm", "sr.dcm")
                )
                made[str(seg.StudyInstanceUID)] = (str(seg.SOPInstanceUID), str(report.SOPInstanceUID))
        return made

    def at_archive(self) -> dict[str, tuple[list[str], list[str]]]:
        """Study to the SOP Instance UIDs of SEGs and SRs that the real PACS holds."""
        held = {}
        for study in self.studies:
            uid = study_instance_uid(study)
            seg, report = (
                [str(each.SOPInstanceUID) for each in self._pacs.instances(uid, kind)] for kind in ("SEG", "SR")
            )
            held[uid] = (seg, report)
        return held

    def at_fickle(self) -> dict[str, set[bytes]]:
        """SOP Instance UID to the different data sets that the failing PACS was given under it."""
        held: dict[str, set[bytes]] = {}
        for instance in self._fickle.received:
            held.setdefault(instance.sop_instance_uid, set()).add(instance.data_set)
        return held
