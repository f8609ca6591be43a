"""``glionode bench scale``: lists, page, start and orders of a node that has processed many studies.

One study goes through the real engine; its rows are then copied under other ids, as often as wanted. What the rows hold
is therefore what this version of the engine records, whatever that is. Some studies lie in the spool, too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import sqlalchemy as sa

from glionode_bench.receiver_process import free_port
from glionode_bench.series_speed import SERIES, write_study
from node.config import Config, load_config
from node.errors import RetryableError
from node.metrics import Metrics
from node.processing.dispatcher import StudyDispatcher
from node.workflow.client import WorkflowClient
from node.workflow.engine import STUDY_QUEUE, delivery_queue, running_worker
from node.workflow.steps import Steps
from node.workflow.tables import open_database
from node.workflow.workflow_id import WorkflowId

DESTINATION = "archive"
_ROOT = "1.2.826.0.1.3680043.10.1462.7"
_TEMPLATE = f"{_ROOT}.1"
_INSTANCES_HELD = 4  # of each study in the spool: one for each of four series
_ORDERS = 9
_SECONDS = 300.0
_BATCH = 1000

Progress = Callable[[str, float], None]


class Seconds(NamedTuple):
    """Of a clock, and of the processors: on a machine with other work only the latter say much."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Wall and CPU seconds of one thing, also with a single study in the database. ``target``: what is wanted."""

    what: str
    many: Seconds
    alone: Seconds
    target: str

    def cells(self) -> tuple[str, ...]:
        """The line as text."""
        return self.what, *(f"{number:.2f}" for number in (*self.many, *self.alone)), self.target


def bench_database(studies: int, held: int, progress: Progress | None) -> list[Cost]:
    """Costs with ``studies`` in the database, of which ``held`` lie in the spool.

    Raises:
        RetryableError: a part of the node did not start or end.
    """
    report = progress or (lambda _what, _share: None)
    with tempfile.TemporaryDirectory(prefix="glionode-bench-") as name:
        config_file = _write_config(Path(name))
        config = load_config(config_file)
        report("one study through the engine", 0.0)
        _run_template(config)
        report("measuring with one study", 0.05)
        alone = _measure(config_file, config, "alone")
        report(f"copying {studies} studies", 0.1)
        _copy_rows(config, studies)
        _fill_spool(config, studies, held)
        report(f"measuring with {studies} studies", 0.5)
        many = _measure(config_file, config, "many")
    targets = {"studies": "<= 2 s", "studies --json": "<= 2 s", "page": "<= 0.5 s", "start": "<= 5 s"}
    return [Cost(what, many[what], alone[what], targets.get(what, "within 20 %")) for what in many]


def _write_config(folder: Path) -> Path:
    file = folder / "config.toml"
    file.write_text(
        f'[node]\nfolder = "var"\n[scp]\nport = {free_port()}\nwatermark_mebibytes = 16\n'
        f"[web]\nport = {free_port()}\n[retention]\nenabled = false\n"
        f'[[destination]]\nname = "{DESTINATION}"\nae_title = "NOBODY"\nhost = "127.0.0.1"\nport = {free_port()}\n',
        encoding="utf-8",
    )
    (folder / "var").mkdir()
    return file


def _process(steps: Steps, study_instance_uid: str) -> dict[str, Any]:
    """As many steps and states as the pipeline's workflow has, with results as small."""
    for name, state in (("segment", "segmented"), ("report", "reported")):
        steps.step(name, lambda: {"volumes_ml": {"whole_tumour": 1.0, "tumour_core": 1.0, "enhancing_tumour": 1.0}})
        steps.publish(state)
    workflow_id = WorkflowId.parse(steps.workflow_id).delivery(DESTINATION)
    steps.start(delivery_queue(DESTINATION), workflow_id, study_instance_uid)
    return {"state": "reported", "reason": None, "volumes_ml": {}}


def _deliver(steps: Steps, _study_instance_uid: str) -> dict[str, Any]:
    steps.publish("sending")
    for name in ("plan", "send"):
        steps.step(name, lambda: ["an answer"])
    return {"state": "delivered", "reason": None, "attempts": 1, "instances": []}


def _digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def _uid(number: int) -> str:
    return f"{_ROOT}.{number}"


def _run_template(config: Config) -> None:
    client = WorkflowClient(config)
    try:
        attributes = {"study_instance_uid": _TEMPLATE, f"judged-{_digest(0)}": "yes"}
        with running_worker(config, {"process": _process, "deliver": _deliver}):
            client.enqueue(STUDY_QUEUE, "process", _digest(1), _TEMPLATE, attributes=attributes)
            deadline = time.monotonic() + _SECONDS
            while [each.engine_status for each in client.workflows("deliver")] != ["SUCCESS"]:
                if time.monotonic() > deadline:
                    raise RetryableError("the template's workflows did not end")
                time.sleep(0.1)
    finally:
        client.close()


def _copy_rows(config: Config, studies: int) -> None:
    """Copy every row of the template's two workflows, in each table of the engine that has any."""
    database = open_database(config)
    try:
        tables = [table for table in sa.inspect(database).get_table_names() if _has_workflow(database, table)]
        with database.begin() as connection:
            for table in tables:
                query = sa.text(f"SELECT * FROM {table} WHERE workflow_uuid LIKE :prefix")
                rows = [dict(row._mapping) for row in connection.execute(query, {"prefix": f"{_digest(1)}%"})]
                for first in range(2, studies + 1, _BATCH):
                    numbers = range(first, min(first + _BATCH, studies + 1))
                    copies = [_copied(row, number) for number in numbers for row in rows]
                    if copies:
                        names = ", ".join(copies[0])
                        values = ", ".join(f":{name}" for name in copies[0])
                        connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({values})"), copies)
    finally:
        database.dispose()


def _has_workflow(database: sa.Engine, table: str) -> bool:
    return "workflow_uuid" in {column["name"] for column in sa.inspect(database).get_columns(table)}


def _copied(row: dict[str, Any], number: int) -> dict[str, Any]:
    changed = {"workflow_uuid": row["workflow_uuid"].replace(_digest(1), _digest(number))}
    for name in ("child_workflow_id", "parent_workflow_id"):
        if row.get(name):
            changed[name] = row[name].replace(_digest(1), _digest(number))
    if row.get("attributes"):
        changed["attributes"] = row["attributes"].replace(_TEMPLATE, _uid(number)).replace(_digest(0), _judged(number))
    return row | changed


def _judged(number: int) -> str:
    """The digest of the instances in the spool, as the dispatcher computes it from their names."""
    from node.dicom import uids

    return uids.digest(sorted(f"{_uid(number)}.{series}.1" for series in range(_INSTANCES_HELD)))[:32]


def _fill_spool(config: Config, studies: int, held: int) -> None:
    """The latest ``held`` studies, each with four instances; all are hard links to one file, which nobody reads."""
    one = config.folder / "instance"
    one.write_bytes(bytes(1024))
    for number in range(studies - held + 1, studies + 1):
        for series in range(_INSTANCES_HELD):
            folder = config.spool_folder / _uid(number) / f"{_uid(number)}.{series}"
            folder.mkdir(parents=True)
            os.link(one, folder / f"{folder.name}.1.dcm")
    for number in range(1, studies + 1):
        results = config.work_folder / _digest(number)
        results.mkdir(parents=True)
        (results / "result.json").write_text(f'{{"state": "reported", "study_instance_uid": "{_uid(number)}"}}')


def _measure(config_file: Path, config: Config, name: str) -> dict[str, Seconds]:
    found = {}
    for options in ((), ("--json",)):
        seconds = min(_command_seconds(config_file, "studies", *options) for _ in range(2))
        found[" ".join(("studies", *options))] = seconds
    found |= _of_running_node(config_file, config)
    found["one more order"] = _order_seconds(config, name)
    return found


def _command_seconds(config_file: Path, *arguments: str) -> Seconds:
    command = [sys.executable, "-P", "-m", "node", *arguments, "--config", str(config_file)]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RetryableError(f"{arguments[0]} ended with status {process.returncode}")
    return Seconds(time.perf_counter() - begun, used.ru_utime + used.ru_stime)


def _cpu_seconds(pid: int) -> float:
    """Processor time of a running process."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _of_running_node(config_file: Path, config: Config) -> dict[str, Seconds]:
    """Seconds until the receiver is ready and has looked at its spool; and for the page, once it knows all studies."""
    command = [sys.executable, "-P", "-m", "node", "serve", "--role", "receive", "--config", str(config_file)]
    log_file = config.folder / "node.log"
    begun = time.perf_counter()
    with log_file.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while not all(event in log_file.read_text("utf-8") for event in ("node_ready", "studies_resumed")):
            if process.poll() is not None or time.perf_counter() - begun > _SECONDS:
                raise RetryableError("the receiver did not start")
            time.sleep(0.02)
        found = {"start": Seconds(time.perf_counter() - begun, _cpu_seconds(process.pid))}
        url = f"http://{config.web.host}:{config.web.port}/"
        pages = [_seconds(lambda: httpx.get(url, trust_env=False, timeout=_SECONDS), process.pid) for _ in range(6)]
        return found | {"first page": pages[0], "page": min(pages[1:])}
    finally:
        process.terminate()
        process.wait()


def _order_seconds(config: Config, name: str) -> Seconds:
    """The fastest of some hand-overs of a new study: its headers are read, its series selected, its workflow queued."""
    client = WorkflowClient(config)
    try:
        dispatcher, seconds = StudyDispatcher(config, client, Metrics()), []
        for number in range(_ORDERS):
            uid = f"{_ROOT}.{hashlib.sha256(name.encode()).digest()[0]}{number}.9"
            write_study(config.spool_folder / uid, 4 * len(SERIES), uid)
            seconds.append(_seconds(partial(dispatcher.start, uid), os.getpid()))
            shutil.rmtree(config.spool_folder / uid)
            ordered = client.workflows("process", attributes={"study_instance_uid": uid})
            client.delete([each.workflow_id for each in ordered])
        return Seconds(min(each.wall for each in seconds), min(each.cpu for each in seconds))
    finally:
        client.close()


def _seconds(work: Callable[[], object], pid: int) -> Seconds:
    """Wall seconds of ``work``, and the CPU seconds that process ``pid`` took meanwhile."""
    begun, cpu = time.perf_counter(), _cpu_seconds(pid)
    work()
    return Seconds(time.perf_counter() - begun, _cpu_seconds(pid) - cpu)
