"""A node in the test's own process, without networks, engine and peers: a spool, the dispatcher, and who processes.

What the dispatcher enqueues waits in memory until a test lets it run; a threshold stands where the cascade is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
from instances import encode_instance
from pydicom import Dataset
from recording_steps import RecordingSteps

from node.config import Config
from node.metrics import Metrics
from node.processing.dispatcher import StudyDispatcher
from node.processing.pipeline import Pipeline
from node.processing.request import ProcessingRequest
from node.processing.result_files import earlier_segmentation
from node.processing.selection_steps import find_following, find_known
from node.processing.step_records import Segmentation
from node.processing.study_status import StudyStatus, read_study_statuses
from node.scp.incoming import length_of_head
from node.scp.rejection_note import read_rejection_note
from node.scp.spool import Spool, StoreOutcome
from node.workflow.engine import ACTIVE
from node.workflow.workflow_record import WorkflowRecord

BEGUN = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


class MemoryEngine:
    """The engine's client, with its records in memory."""

    def __init__(self) -> None:
        self.records: dict[str, tuple[str, WorkflowRecord]] = {}
        self.arguments: dict[str, tuple[Any, ...]] = {}

    def enqueue(
        self,
        _queue: str,
        name: str,
        workflow_id: str,
        *arguments: Any,
        attributes: Mapping[str, str] | None = None,
        priority: int = 0,
    ) -> None:
        """Remember it, once for each id."""
        if workflow_id not in self.records:
            moment = BEGUN + timedelta(minutes=len(self.records))
            told = dict(attributes or {})
            record = WorkflowRecord(workflow_id, "ENQUEUED", None, told, None, None, moment, moment, None, priority)
            self.records[workflow_id], self.arguments[workflow_id] = (name, record), arguments

    def change(self, workflow_id: str, **facts: Any) -> None:
        """Change a record."""
        name, record = self.records[workflow_id]
        self.records[workflow_id] = name, replace(record, **facts)

    def describe(self, workflow_id: str, attributes: Mapping[str, str]) -> None:
        """Add to the attributes."""
        self.change(workflow_id, attributes={**self.records[workflow_id][1].attributes, **attributes})

    def cancel(self, workflow_id: str) -> None:
        """End it."""
        self.change(workflow_id, engine_status="CANCELLED")

    def workflows(
        self, name: str, prefix: str | None = None, attributes: Mapping[str, str] | None = None
    ) -> list[WorkflowRecord]:
        """Those of one name with these attributes, oldest first."""
        wanted = (attributes or {}).items()
        found = [record for each, record in self.records.values() if each == name]
        return [each for each in found if wanted <= each.attributes.items()]

    def attributes(self, name: str) -> list[Mapping[str, str]]:
        """The attributes of those of one name, oldest first."""
        return [each.attributes for each in self.workflows(name)]

    def steps(self, _workflow_id: str) -> list[tuple[str, datetime]]:
        """None are recorded."""
        return []

    def close(self) -> None:
        """Nothing is open."""


class ThresholdPipeline(Pipeline):
    """The pipeline with a threshold where the cascade is; ``segmented`` lists the requests that it ran for."""

    def __init__(self, config: Config, before_report: Callable[[], object] = lambda: None) -> None:
        super().__init__(config)
        self.segmented: list[str] = []
        self._before_report = before_report

    def _segment(self, request: ProcessingRequest, folder: str) -> Segmentation:
        known = earlier_segmentation(request, Path(folder))
        if known is not None:
            return known
        sys.path.insert(0, str(Path(__file__).parents[1] / "chaos"))
        from mortal import segment_by_threshold

        assert request.selection is not None
        self._reader.take(request.selection)
        self.segmented.append(request.workflow_id)
        return segment_by_threshold(request, Path(folder))

    def report(self, *arguments: Any) -> Any:
        """As the pipeline's, after what the test does at this moment."""
        self._before_report()
        return super().report(*arguments)


class MemoryNode:
    """Spool, dispatcher and pipeline on one config."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.spool = Spool(config.spool_folder)
        self.engine = MemoryEngine()
        self.dispatcher = StudyDispatcher(config, self.engine, Metrics())
        self.pipeline = ThresholdPipeline(config)
        work = config.work_folder
        self._instead: dict[str, Callable[..., Any]] = {
            "later": lambda *_: None,
            "now": lambda _config, request, _id: find_known(self.engine, config, request),
            "succeed": lambda _config, *given: asdict(find_following(self.engine, *given[:2], work)),
        }

    def receive(self, instances: Iterable[Dataset]) -> list[StoreOutcome]:
        """What the receiver does with instances and with documents."""
        outcomes = []
        for instance in instances:
            content = encode_instance(instance)
            head_bytes = length_of_head(content)
            incoming = self.spool.open_incoming(content[:head_bytes])
            try:
                incoming.write(content[head_bytes:])
                uids = (str(instance.StudyInstanceUID), str(instance.SeriesInstanceUID), str(instance.SOPInstanceUID))
                if instance.Modality == "KO":
                    incoming.sync()
                    note = read_rejection_note(incoming.path)
                    self.spool.keep_document(uids[0], uids[2], incoming, note)
                else:
                    outcomes.append(self.spool.keep(*uids, incoming))
            finally:
                incoming.discard()
        return outcomes

    def run(self) -> list[str]:
        """Let all that waits run, in its order; returns how each ended."""
        ended = []
        waiting = [each.workflow_id for each in self.engine.workflows("process") if each.engine_status in ACTIVE]
        for workflow_id in waiting:
            steps = RecordingSteps(workflow_id, **self._instead)
            output = self.pipeline.process(steps, *self.engine.arguments[workflow_id])
            self.engine.change(workflow_id, engine_status="SUCCESS", output=output)
            ended.append(output["state"])
            for _, name, started, *arguments in steps.started:
                attributes = {"study_instance_uid": arguments[0]}
                if name == "process":  # another attempt
                    attributes = dict(self.engine.records[workflow_id][1].attributes)
                self.engine.enqueue("", name, started, *arguments, attributes=attributes)
                if name == "process":
                    self.engine.change(started, engine_status="DELAYED")
        return ended

    def status(self, study_instance_uid: str) -> StudyStatus:
        """What `studies` and the page show."""
        lines = read_study_statuses(self.config, self.engine)
        return next(line for line in lines if line.study_instance_uid == study_instance_uid)

    def reports(self) -> list[Dataset]:
        """The reports made so far, in the order of their requests."""
        requests = [key for key, (name, _) in self.engine.records.items() if name == "process"]
        files = [self.config.work_folder / each.partition(".")[0] / "sr.dcm" for each in requests]
        return [pydicom.dcmread(file) for file in files if file.exists()]
