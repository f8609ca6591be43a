"""The client of the durable engine: enqueues workflows and reads their records, from any process."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from node.config import Config
from node.errors import EngineError
from node.workflow.database_access import database_errors, database_exists, database_name
from node.workflow.marks import Marks
from node.workflow.queue_priority import change_waiting, step_seconds
from node.workflow.record_format import require_current_records
from node.workflow.serialization import engine_serializer, read_attributes
from node.workflow.sqlite_records import STUDY_ATTRIBUTE
from node.workflow.states import NORMAL_PRIORITY
from node.workflow.study_index import StudyIndex
from node.workflow.tables import is_sqlite
from node.workflow.workflow_record import WorkflowMark, WorkflowRecord, moment, record_of

if TYPE_CHECKING:
    from dbos import DBOSClient, EnqueueOptions, WorkflowStatus

_MOST_IDS = 500


class WorkflowClient:
    """Enqueues workflows and reads their records, from any process; EngineError if the database does not answer.

    ``creates``: a missing database is created; else it is an EngineError.
    """

    def __init__(self, config: Config, creates: bool = True) -> None:
        from dbos import DBOS, DBOSClient

        if not creates and not database_exists(config):
            raise EngineError(f"engine.database: {database_name(config)} is missing or empty")
        self._config = config
        with database_errors():
            config.folder.mkdir(parents=True, exist_ok=True)
            # the engine's client creates no tables, and no worker may have run yet
            require_current_records(config)
            DBOS.migrate(config.database_url)
            serializer = engine_serializer()
            logging.getLogger("dbos").setLevel(logging.CRITICAL)  # what it cannot read stands in the records
            self._client: DBOSClient = DBOSClient(system_database_url=config.database_url, serializer=serializer)
            reader: Any = self._client._sys_db.engine.dialect  # the engine's client has no setting for this
            reader._json_deserializer = read_attributes
            self._studies = StudyIndex(config) if is_sqlite(config) else None
            self._marks = Marks(config)

    def close(self) -> None:
        """Close the connections to the database."""
        if self._studies is not None:
            self._studies.close()
        self._marks.close()
        self._client.destroy()

    def enqueue(
        self,
        queue: str,
        name: str,
        workflow_id: str,
        *arguments: Any,
        attributes: Mapping[str, str] | None = None,
        priority: int = NORMAL_PRIORITY,
    ) -> None:
        """Enqueue a workflow, once for each id; ``attributes`` are listed without reading the workflow's arguments.

        ``priority``: workflows of lower numbers are begun first.
        """
        options: EnqueueOptions = {"queue_name": queue, "workflow_name": name, "workflow_id": workflow_id}
        options["priority"] = priority
        options["attributes"] = dict(attributes or {})
        with database_errors():
            self._client.enqueue(options, *arguments)

    def describe(self, workflow_id: str, attributes: Mapping[str, str]) -> None:
        """Add to the attributes of a workflow."""
        with database_errors():
            self._client.update_workflow_attributes(workflow_id, dict(attributes), merge=True)

    def change_priority(self, workflow_id: str, priority: int) -> bool:
        """Give a waiting workflow another priority; False if it does not wait."""
        with database_errors():
            return change_waiting(self._config, workflow_id, priority)

    def step_seconds(self, workflow_ids: list[str], names: tuple[str, ...]) -> dict[str, float]:
        """How long the finished steps called ``names`` of each workflow took together, by workflow id."""
        with database_errors():
            return step_seconds(self._config, workflow_ids, names)

    def send(self, workflow_id: str, topic: str, message: Any, key: str) -> None:
        """Send a message to a workflow, which ``receive``s it; once for each ``key``."""
        with database_errors():
            self._client.send(workflow_id, message, topic, idempotency_key=key)

    def cancel(self, workflow_id: str) -> None:
        """Cancel a workflow before its next step; a workflow that is over does not change."""
        with database_errors():
            self._client.cancel_workflow(workflow_id)

    def delete(self, workflow_ids: Sequence[str]) -> None:
        """Delete workflows and everything that was recorded for them, in one transaction."""
        with database_errors():
            self._client.delete_workflows(list(workflow_ids))

    def marks(self, names: tuple[str, ...]) -> list[WorkflowMark]:
        """A mark of each workflow called by one of ``names``: what shows cheaply that a workflow went on."""
        with database_errors():
            return self._marks.read(names)

    def attributes(self, name: str) -> list[dict[str, str]]:
        """The attributes of each workflow called ``name``; much cheaper than the workflows' records."""
        with database_errors():
            return self._marks.attributes(name)

    def workflows(
        self,
        name: str,
        prefix: str | None = None,
        attributes: Mapping[str, str] | None = None,
        workflow_ids: Sequence[str] | None = None,
    ) -> list[WorkflowRecord]:
        """The workflows called ``name`` whose id starts with ``prefix`` and that have ``attributes``, oldest first.

        ``attributes`` name at least the study: by it the workflows are found without reading the whole history.
        ``workflow_ids``: only these, in this order; None: all.
        """
        with database_errors():
            if workflow_ids is None:
                return [self._record(status) for status in self._found(name, prefix, dict(attributes or {}))]
            return [self._record(status) for status in self._of_ids(name, workflow_ids)]

    def _of_ids(self, name: str, workflow_ids: Sequence[str]) -> list[WorkflowStatus]:
        """The workflows in the order of ``workflow_ids``."""
        found: dict[str, WorkflowStatus] = {}
        for first in range(0, len(workflow_ids), _MOST_IDS):  # a statement takes so many parameters only
            some = list(workflow_ids[first : first + _MOST_IDS])
            read = self._client.list_workflows(workflow_ids=some, name=name, load_input=False)
            found |= {each.workflow_id: each for each in read}
        return [found[each] for each in workflow_ids if each in found]

    def _found(self, name: str, prefix: str | None, attributes: dict[str, str]) -> list[WorkflowStatus]:
        if self._studies is None or not attributes:
            return self._client.list_workflows(
                name=name, workflow_id_prefix=prefix, attributes=attributes or None, load_input=False
            )
        ids = self._studies.workflow_ids(attributes[STUDY_ATTRIBUTE], name)
        if not ids:  # no ids would be all ids to the engine
            return []
        found = self._client.list_workflows(workflow_ids=ids, workflow_id_prefix=prefix, load_input=False)
        by_id = {each.workflow_id: each for each in found}
        ordered = [by_id[workflow_id] for workflow_id in ids if workflow_id in by_id]
        described = [each for each in ordered if isinstance(each.attributes, dict)]
        return [each for each in described if attributes.items() <= (each.attributes or {}).items()]

    def steps(self, workflow_id: str) -> list[tuple[str, datetime]]:
        """The finished steps of a workflow in their order: name, and the moment when the step ended."""
        with database_errors():
            found = self._client.list_workflow_steps(workflow_id, load_output=False)
        return [(step["function_name"], moment(step["completed_at_epoch_ms"])) for step in found]

    def _record(self, status: WorkflowStatus) -> WorkflowRecord:
        return record_of(status, lambda: self._client.get_event(status.workflow_id, "state", timeout_seconds=0))
