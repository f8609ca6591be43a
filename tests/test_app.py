"""The node's processes: what starts, what is taken over, what survives a kill, what stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import structlog
from faults import FakePacs, free_port, wait_until
from instances import make_instance, write_instance_file
from node_process import NodeProcess, running_node, write_config
from pydicom.uid import MRImageStorage
from small_study import make_small_study, study_instance_uid, write_small_study

from node.app import _notify_of_crashes
from node.config import load_config
from node.errors import EngineError
from node.metrics import Metrics
from node.processing.dispatcher import StudyDispatcher
from node.processing.request import ProcessingRequest, build_request
from node.scp.assembly import Assembly, AssemblyLoop
from node.scp.spool import Spool
from node.scu.store import send_instances
from node.study import RESULT_FILES, Destination
from node.worker_process import WorkerProcess
from node.workflow.client import WorkflowClient
from node.workflow.engine import STUDY_QUEUE, delivery_queue
from node.workflow.workflow_record import WorkflowRecord

RECEIVE = """
import json, sys, time
begun = time.monotonic()
from pathlib import Path
from node.app import running_receiver
from node.config import load_config
from node.processing.request import build_request
config = load_config(Path(sys.argv[1]))
with running_receiver(config):
    seconds = time.monotonic() - begun
    order = build_request(Path(sys.argv[2]), config)
heavy = [name for name in ("torch", "SimpleITK", "highdicom", "dicom2nifti", "deepbet", "matplotlib", "nilearn")
         if name in sys.modules]
print(json.dumps({"heavy": heavy, "seconds": seconds, "refusal": order.refusal}))
"""


def send(node: NodeProcess, folder: Path) -> None:
    """Send every file of ``folder``, which the node must take."""
    deliveries = send_instances(node.destination, "SCANNER", sorted(folder.iterdir()), 10.0)
    assert {delivery.status for delivery in deliveries} == {0x0000}


def without_flair(name: str) -> dict:
    """A study that is refused at once: no model is needed."""
    study = make_small_study(name)
    del study["FLAIR"]
    return study


def put_refused_order(client: WorkflowClient, node_folder: Path, name: str) -> None:
    """Enqueue a study that the worker has only to write down."""
    request = ProcessingRequest(name, "1.2.3", None, "a reason", datetime.now(UTC))
    client.enqueue(
        STUDY_QUEUE,
        "process",
        name,
        request.as_json(),
        str(node_folder / "work" / name),
        attributes={"study_instance_uid": "1.2.3"},
    )


def is_over(client: WorkflowClient, workflow_id: str) -> bool:
    """True once the workflow ended well."""
    return [each.engine_status for each in client.workflows("process", workflow_id)] == ["SUCCESS"]


@pytest.mark.slow
def test_receiver_leaves_torch_out(tmp_path: Path) -> None:
    """A receiver that listens, serves its page and judges a study has imported nothing that computes images."""
    folder = write_small_study(tmp_path / "study", make_small_study())
    command = [sys.executable, "-c", RECEIVE, str(write_config(tmp_path)), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    sys.stdout.write(f"receiver ready after {told['seconds']:.2f} s\n")
    assert (told["heavy"], told["refusal"]) == ([], None)


@pytest.mark.slow
def test_receiver_works_before_any_worker(tmp_path: Path) -> None:
    """On a fresh folder without a worker, the receiver takes a study, lists it, and starts its workflow."""
    study = make_small_study()
    folder = write_small_study(tmp_path / "study", study)
    with running_node(write_config(tmp_path), role="receive") as node:
        assert node.get("/studies.json") == "[]"
        assert "No study has been received yet" in node.get("/")
        send(node, folder)
        node.wait_until(lambda: node.events("study_started"))
        line = node.study(study_instance_uid(study))
        assert (line["state"], line["reason"]) == ("stable", None)
        assert node.events("study_not_handed_over") == []
        assert node.worker_pids() == []


@pytest.mark.slow
def test_complete_study_does_not_wait_for_the_study_timer(tmp_path: Path) -> None:
    """Once its series are quiet, a complete study is started although the study's own timer has an hour to run."""
    folder = write_small_study(tmp_path / "study", make_small_study())
    assembly = {"stable_seconds": 3600.0, "series_stable_seconds": 0.5}
    with running_node(write_config(tmp_path, assembly=assembly), role="receive") as node:
        send(node, folder)
        node.wait_until(lambda: node.events("study_started"))


@pytest.mark.slow
def test_late_series_starts_another_workflow(tmp_path: Path) -> None:
    """A study refused for a missing series is judged anew when it arrives, and listed with its latest workflow."""
    study = make_small_study()
    flair = study.pop("FLAIR")
    with running_node(write_config(tmp_path), role="receive") as node:
        send(node, write_small_study(tmp_path / "first", study))
        node.wait_until(lambda: len(node.events("study_started")) == 1)
        send(node, write_small_study(tmp_path / "late", {"FLAIR": flair}))
        node.wait_until(lambda: len(node.events("study_started")) == 2)
        ids = [event["workflow_id"] for event in node.events("study_started")]
        assert len(set(ids)) == 2
        assert node.study(study_instance_uid(study))["workflow_id"] == ids[1]


@pytest.mark.slow
def test_killed_receiver_finds_the_spool_again(tmp_path: Path) -> None:
    """A node killed before a study was stable hands it over after its restart; no instance is sent again."""
    study = make_small_study()
    folder = write_small_study(tmp_path / "study", study)
    config_file = write_config(tmp_path, assembly={"stable_seconds": 3600.0, "series_stable_seconds": 3600.0})
    with running_node(config_file, role="receive") as node:
        send(node, folder)
        node.kill()
    assert Spool(node.config.spool_folder).studies() == [study_instance_uid(study)]
    with running_node(write_config(tmp_path), role="receive") as node:
        node.wait_until(lambda: node.events("study_started"))
        assert node.study(study_instance_uid(study))["state"] == "stable"


@pytest.mark.slow
def test_sigterm_stops_everything(tmp_path: Path) -> None:
    """SIGTERM ends receiver and worker, an open connection notwithstanding; ports are free and no process is left."""
    with running_node(write_config(tmp_path)) as node:
        node.wait_until(lambda: node.events("worker_ready"))
        assert len(node.worker_pids()) == 1
    assert [len(node.events(name)) for name in ("worker_stopped", "receiver_stopped", "worker_died")] == [1, 1, 0]


@pytest.mark.slow
def test_killed_worker_is_started_again(tmp_path: Path) -> None:
    """A worker that dies by SIGKILL is told, replaced, and the new one works; the receiver stays the same process."""
    with running_node(write_config(tmp_path)) as node:
        node.wait_until(lambda: node.events("worker_ready"))
        (first,) = node.worker_pids()
        os.kill(first, signal.SIGKILL)
        node.wait_until(lambda: len(node.events("worker_ready")) == 2)
        (second,) = node.worker_pids()
        assert second != first
        assert [event["exit_status"] for event in node.events("worker_died")] == [-signal.SIGKILL]
        client = WorkflowClient(node.config)
        put_refused_order(client, node.config.folder, "after")
        node.wait_until(lambda: is_over(client, "after"))
        client.close()


def test_worker_is_started_though_the_system_refused_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that could not begin, for want of memory or places, is told and tried again after each pause."""
    begun, refusals = [], iter([BlockingIOError(11, "Resource temporarily unavailable"), OSError(12, "No memory")])

    class Ended:
        returncode = 3

        def poll(self) -> int:
            return 3

    class Running(Ended):
        def poll(self) -> None:
            return None

        def terminate(self) -> None:
            begun.append("ended")

        def wait(self, _seconds: float) -> int:
            return 0

    def popen(command: list[str], env: dict[str, str]) -> Ended:
        if begun and (refusal := next(refusals, None)):
            raise refusal
        begun.append(command)
        return Running() if len(begun) == 2 else Ended()

    monkeypatch.setattr("node.worker_process.subprocess.Popen", popen)
    monkeypatch.setattr("node.worker_process._WORKER_PAUSE_SECONDS", 0.01)
    worker = WorkerProcess(tmp_path / "config.toml")
    with structlog.testing.capture_logs() as events:
        worker.start()
        wait_until(lambda: len(begun) == 2)
        worker.stop()
    assert [event["event"] for event in events] == ["worker_died", "worker_not_started", "worker_not_started"]
    assert begun[2:] == ["ended"]


def health(node: NodeProcess) -> tuple[int, str]:
    """What ``/health`` answers."""
    url = f"http://{node.config.web.host}:{node.config.web.port}/health"
    answer = httpx.get(url, trust_env=False, timeout=30)
    return answer.status_code, answer.text


@pytest.mark.slow
def test_health_needs_a_living_worker_and_its_database(tmp_path: Path) -> None:
    """A receiver says that no worker lives, that one does, and that the database does not answer."""
    both = {"engine": {"heartbeat_seconds": 0.3, "dead_seconds": 2.0}, "node": {"folder": str(tmp_path / "shared")}}
    config_file, worker_file = (write_config(tmp_path / name, **both) for name in ("receiver", "worker"))
    nobody = "no worker gave a sign of life for 2 s; studies are received, not processed"
    with running_node(config_file, role="receive") as node:
        assert health(node) == (200, "ok")
        node.wait_until(lambda: health(node) == (503, nobody))
        with running_node(worker_file, role="work"):
            node.wait_until(lambda: health(node) == (200, "ok"))
        node.wait_until(lambda: health(node) == (503, nobody))
        database = node.config.folder / "glionode.sqlite"
        content = database.read_bytes()
        with database.open("r+b") as file:  # in one write: an open connection that once saw an empty file keeps to that
            file.write(b"no database".ljust(100, b"\0"))
        node.wait_until(lambda: health(node) == (503, "engine.database: DatabaseError"))
        database.write_bytes(content)


@pytest.mark.slow
def test_worker_does_not_outlive_a_killed_node(tmp_path: Path) -> None:
    """When the node is killed by SIGKILL, its worker ends by itself, so that the next start finds its place free."""
    config_file = write_config(tmp_path)
    with running_node(config_file) as node:
        node.wait_until(lambda: node.events("worker_ready"))
        (worker,) = node.worker_pids()
        node.kill()
        wait_until(lambda: not Path(f"/proc/{worker}").exists(), 30)
        assert len(node.events("parent_died")) == 1
    with running_node(config_file) as node:
        node.wait_until(lambda: len(node.events("worker_ready")) == 2)
        assert node.events("worker_died") == []


@pytest.mark.slow
def test_worker_alone(tmp_path: Path) -> None:
    """A worker of its own works off what is in the database, and stops by SIGTERM."""
    with running_node(write_config(tmp_path), role="work") as node:
        client = WorkflowClient(node.config)
        put_refused_order(client, node.config.folder, "alone")
        node.wait_until(lambda: is_over(client, "alone"))
        client.close()
    assert json.loads((node.config.work_folder / "alone" / "result.json").read_text("utf-8"))["state"] == "refused"


@pytest.mark.parametrize(("states", "count"), [(["failed"], 1), (["refused"], 0)])
def test_humans_are_told_of_a_study_that_kills_workers(states: list[str], count: int, tmp_path: Path) -> None:
    """Once, with its UID and the reason, if the config wants failed studies told."""
    notify = {"urls": ["json://127.0.0.1:9/x"], "states": states}
    config = load_config(write_config(tmp_path, notify=notify))
    with closing(WorkflowClient(config)) as client:
        for name in ("deadly", "deadly.2"):
            put_refused_order(client, config.folder, name)
        for _ in range(2):
            _notify_of_crashes(config, "deadly", "it is deadly")
        notices = client.workflows("notice", attributes={"study_instance_uid": "1.2.3"})
        inputs = [client._client.list_workflows(workflow_ids=[each.workflow_id])[0].input for each in notices]
    assert [each["args"] for each in inputs] == count * [("failed", "1.2.3", "it is deadly")]


@pytest.mark.slow
def test_second_node_on_one_folder_is_refused(tmp_path: Path) -> None:
    """A second node with other ports on the same folder does not get a worker: its worker ends with the reason."""
    with running_node(write_config(tmp_path), role="work") as node:
        second = node.command("serve", "--role", "work")
    assert second.returncode == 2
    assert "node.folder: another worker runs here" in second.stderr


@pytest.mark.slow
def test_occupied_port_is_told(tmp_path: Path) -> None:
    """A node whose port is taken ends with status 2 and names the key, leaving no process."""
    with running_node(write_config(tmp_path / "first"), role="receive") as node:
        port = node.config.scp.port
        config_file = write_config(tmp_path / "second", scp={"port": port})
        command = [sys.executable, "-m", "node", "serve", "--config", str(config_file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert f"scp.port: cannot listen on 127.0.0.1:{port}" in done.stderr


# ---- delivery by the running worker ----------------------------------------------------------------------------


def put_delivery(client: WorkflowClient, folder: Path, workflow_id: str, peer: str = "pacs") -> None:
    """Enqueue the delivery of two small instances in the place of SEG and SR."""
    folder.mkdir()
    for number, name in enumerate(RESULT_FILES):
        write_instance_file(folder, make_instance(number)).rename(folder / name)
    client.enqueue(delivery_queue(peer), "deliver", workflow_id, "1.2.3", str(folder), peer, list(RESULT_FILES))


def delivery(client: WorkflowClient) -> WorkflowRecord:
    """The only delivery there is."""
    (record,) = client.workflows("deliver")
    return record


def is_retrying(record: WorkflowRecord) -> bool:
    """True if the delivery waits for its next attempt, and says why."""
    return record.state is not None and record.state.state == "retrying" and bool(record.state.reason)


@pytest.mark.slow
def test_delivery_survives_pacs_and_worker(tmp_path: Path) -> None:
    """While the PACS is down the delivery is retried, over a restart of the worker, and ends when the PACS is back."""
    pacs = FakePacs([0xA700], sop_classes=[MRImageStorage])
    config_file = write_config(tmp_path, [pacs.destination])
    client = WorkflowClient(load_config(config_file))
    put_delivery(client, tmp_path / "results", "w-pacs")
    with running_node(config_file, role="work") as node:
        node.wait_until(lambda: is_retrying(delivery(client)))
    assert delivery(client).engine_status == "PENDING"
    with pacs, running_node(config_file, role="work") as node:
        node.wait_until(lambda: delivery(client).engine_status == "SUCCESS")
    assert delivery(client).output["state"] == "delivered"
    sent = [str(make_instance(number).SOPInstanceUID) for number in range(len(RESULT_FILES))]
    assert [instance.sop_instance_uid for instance in pacs.received] == [sent[1], sent[0]]
    client.close()


@pytest.mark.slow
def test_delivery_to_a_removed_destination_ends(tmp_path: Path) -> None:
    """What waits for a destination that is no longer in the config, and never was at this worker, ends and says so."""
    config_file = write_config(tmp_path, [Destination("pacs", "PACS", "127.0.0.1", free_port())])
    client = WorkflowClient(load_config(config_file))
    put_delivery(client, tmp_path / "results", "w-old", "old")
    with running_node(config_file, role="work") as node:
        node.wait_until(lambda: delivery(client).engine_status == "ERROR")
    assert delivery(client).error == "destination old is no longer in the config"
    client.close()


@pytest.mark.slow
def test_permanent_refusal_is_kept_with_its_reason(tmp_path: Path) -> None:
    """A result that the PACS will never take ends the delivery as an error that says who said what."""
    with FakePacs([0xC000], sop_classes=[MRImageStorage]) as pacs:
        config_file = write_config(tmp_path, [pacs.destination])
        client = WorkflowClient(load_config(config_file))
        put_delivery(client, tmp_path / "results", "w-pacs")
        with running_node(config_file, role="work") as node:
            node.wait_until(lambda: delivery(client).engine_status == "ERROR")
        assert delivery(client).error == "pacs: seg.dcm 0xC000 cannot understand; sr.dcm delivered"
        client.close()


# ---- the study desk --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_study_is_offered_again_when_the_database_is_away(tmp_path: Path) -> None:
    """A study that the database did not take is offered again and then started, not lost."""
    study = make_small_study()
    config = load_config(write_config(tmp_path))
    write_small_study(config.spool_folder / study_instance_uid(study) / "1.2.3", study)
    client = WorkflowClient(config)
    metrics = Metrics()
    started = threading.Event()

    class FirstAway(StudyDispatcher):
        is_away = True

        def start(self, study_instance_uid: str, quiet_series: frozenset[str] | None = None) -> None:
            if self.is_away:
                self.is_away = False
                raise EngineError("engine.database: OperationalError")
            super().start(study_instance_uid, quiet_series)
            started.set()

    dispatcher = FirstAway(config, client, metrics)
    section = config.assembly.model_copy(update={"stable_seconds": 0.2, "series_stable_seconds": 0.1})
    loop = AssemblyLoop(Assembly(section, dispatcher.is_complete), dispatcher.start)
    loop.start({study_instance_uid(study): ["1.2.3"]})
    try:
        assert started.wait(30)
    finally:
        loop.stop()
        found = client.workflows("process")
        client.close()
    assert [record.attributes["study_instance_uid"] for record in found] == [study_instance_uid(study)]


@pytest.mark.slow
def test_study_that_comes_to_two_receivers_is_ordered_whole(tmp_path: Path) -> None:
    """Neither receiver of one spool orders a study while the other still receives of it; then it is ordered once."""
    study = make_small_study()
    config = load_config(write_config(tmp_path))
    uid = study_instance_uid(study)
    spools = [Spool(config.spool_folder, name) for name in ("first", "second")]
    with closing(WorkflowClient(config)) as client:
        dispatcher = StudyDispatcher(config, client, Metrics())
        assemblies = [Assembly(config.assembly, dispatcher.is_complete, spool.changes) for spool in spools]

        def arrive(receiver: int, contrast: str, part: slice, now: float) -> None:
            for instance in study[contrast][part]:
                folder = config.spool_folder / uid / instance.SeriesInstanceUID
                folder.mkdir(parents=True, exist_ok=True)
                write_instance_file(folder, instance)
                os.utime(folder, (now, now))  # the spool's clock is this test's: it ticks finely enough
                assemblies[receiver].instance_stored(uid, instance.SeriesInstanceUID, now)
            for assembly in assemblies:
                hand_over(assembly, now)

        def hand_over(assembly: Assembly, now: float) -> None:
            for study_uid, series in assembly.due(now):
                dispatcher.start(study_uid, series)
                ordered.append(now)

        ordered: list[float] = []
        stable = config.assembly.stable_seconds
        for contrast in ("T1", "T2", "FLAIR"):
            arrive(0, contrast, slice(None), 0.0)
        arrive(0, "T1c", slice(0, 8), 0.0)
        last = 0.75 * stable
        for number in range(8, len(study["T1c"])):
            arrive(1, "T1c", slice(number, number + 1), last)
            last += 0.75 * stable
        assert ordered == []
        for tick in range(100):
            for assembly in assemblies:
                hand_over(assembly, last + 0.1 * tick)
        (record,) = client.workflows("process")
    assert record.workflow_id == build_request(config.spool_folder / uid, config).workflow_id


@pytest.mark.slow
def test_desk_starts_a_study_once(tmp_path: Path) -> None:
    """However often a study is offered unchanged, one workflow is enqueued and counted."""
    study = without_flair("desk")
    config = load_config(write_config(tmp_path))
    write_small_study(config.spool_folder / study_instance_uid(study) / "1.2.3", study)
    client, metrics = WorkflowClient(config), Metrics()
    dispatcher = StudyDispatcher(config, client, metrics)
    for _ in range(3):
        assert not dispatcher.is_complete(study_instance_uid(study), frozenset())
        dispatcher.start(study_instance_uid(study))
    records = client.workflows("process")
    client.close()
    assert len(records) == 1
    assert metrics.registry.get_sample_value("glionode_studies_started_total") == 1


@pytest.mark.slow
def test_dead_destination_does_not_hold_up_studies(tmp_path: Path) -> None:
    """While a delivery waits for its PACS, the worker goes on with the next study."""
    nobody = Destination("pacs", "PACS", "127.0.0.1", free_port())
    config_file = write_config(tmp_path, [nobody])
    client = WorkflowClient(load_config(config_file))
    put_delivery(client, tmp_path / "results", "w-pacs")
    with running_node(config_file, role="work") as node:
        node.wait_until(lambda: is_retrying(delivery(client)))
        put_refused_order(client, node.config.folder, "next")
        node.wait_until(lambda: is_over(client, "next"))
    assert delivery(client).engine_status == "PENDING"
    client.close()
