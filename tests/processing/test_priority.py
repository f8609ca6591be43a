"""Urgent studies first: what rules match, who may change a priority, and where a waiting study stands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from command_line import run_glionode
from instances import encode_instance, make_instance
from node_process import write_config
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from node.config import Config, build_config, load_config
from node.errors import StudyError
from node.metrics import Metrics
from node.processing.dispatcher import StudyDispatcher
from node.processing.priority import change_priority, is_matching, read_priority_facts, study_priority
from node.processing.study_status import read_study_statuses
from node.processing.waiting import Waiting, waiting_places
from node.scp.arrival import StoreRequest
from node.workflow.client import WorkflowClient
from node.workflow.engine import STUDY_QUEUE
from node.workflow.states import NORMAL_PRIORITY
from node.workflow.workflow_record import WorkflowRecord

STUDY = "1.2.3"
MOMENT = datetime(2026, 1, 2, tzinfo=UTC)


def write(folder: Path, series: str, sender: str = "", **attributes: Any) -> None:
    """One instance of a series, with the file meta that the receiver writes."""
    instance = make_instance(1, series_instance_uid=f"1.2.{series}")
    for keyword, value in attributes.items():
        setattr(instance, keyword, value)
    request = StoreRequest(MRImageStorage, instance.SOPInstanceUID, MRImageStorage, ExplicitVRLittleEndian, sender)
    file = folder / f"1.2.{series}" / f"{instance.SOPInstanceUID}.dcm"
    file.parent.mkdir(parents=True)
    content = encode_instance(instance)
    data_set = content[144 + int.from_bytes(content[140:144], "little") :]  # behind the file meta (PS3.10 7.1)
    file.write_bytes(request.head() + data_set)


def item(**attributes: Any) -> Dataset:
    """An item of a sequence."""
    found = Dataset()
    for keyword, value in attributes.items():
        setattr(found, keyword, value)
    return found


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of three series: the first two with what rules ask for, the third unreadable."""
    folder = tmp_path / "study"
    write(folder, "1", "ER_MR", StudyDescription="Schädel: Verdacht auf SCHLAGANFALL")
    write(folder, "2", "PACS", RequestAttributesSequence=[item(RequestedProcedurePriority="STAT")])
    (folder / "1.2.3").mkdir()
    (folder / "1.2.3" / "broken.dcm").write_bytes(b"no DICOM")
    return folder


def config_of(*rules: dict[str, Any]) -> Config:
    """A config with these rules."""
    return build_config({"priority": list(rules)})


@pytest.mark.parametrize(
    ("rule", "is_met"),
    [
        ({"calling_ae_titles": ["ER_MR"]}, True),
        ({"calling_ae_titles": ["OTHER", "PACS"]}, True),
        ({"calling_ae_titles": ["er_mr"]}, False),
        ({"requested_procedure_priority": ["STAT", "HIGH"]}, True),
        ({"requested_procedure_priority": ["HIGH"]}, False),
        ({"words": ["schlaganfall"]}, True),
        ({"words": ["Schadel"]}, True),
        ({"words": ["Verdacht auf Schlaganfall"]}, True),
        ({"words": ["auf Verdacht"]}, False),
        ({"words": ["anfall"]}, False),
        ({"words": ["follow-up", "SCHLAGANFALL"], "calling_ae_titles": ["PACS"]}, True),
        ({"words": ["schlaganfall"], "requested_procedure_priority": ["LOW"]}, False),
    ],
)
def test_all_conditions_of_a_rule_must_hold(study: Path, rule: dict[str, Any], is_met: bool) -> None:
    """AE titles and values are compared as they are, words without case and accents, and word for word."""
    (section,) = config_of({"level": "urgent", **rule}).priority
    assert is_matching(section, read_priority_facts(study)) is is_met


def test_requested_procedure_priority_may_stand_at_the_top(tmp_path: Path) -> None:
    """(0040,1003) of the data set counts like that of a request's item; so does the procedure's description."""
    attributes = {"RequestedProcedurePriority": "HIGH", "RequestedProcedureDescription": "Tumour board"}
    write(tmp_path, "1", **attributes)
    facts = read_priority_facts(tmp_path)
    assert (facts.requested, facts.calling_ae_titles) == ({"HIGH"}, frozenset())
    assert ("tumour", "board") in facts.descriptions


def test_first_matching_rule_decides(study: Path) -> None:
    """Later rules do not count; a study that no rule matches is normal."""
    low, urgent = {"level": "low", "words": ["schlaganfall"]}, {"level": "urgent", "calling_ae_titles": ["ER_MR"]}
    other = {"level": 7, "calling_ae_titles": ["OTHER"]}
    assert study_priority(config_of(other, low, urgent), study, []) == 40
    assert study_priority(config_of(urgent, low), study, []) == 10
    assert study_priority(config_of(other), study, []) == NORMAL_PRIORITY
    assert study_priority(config_of(), study, []) == NORMAL_PRIORITY


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node's config with a rule."""
    file = write_config(tmp_path)
    with file.open("a") as text:
        text.write('[[priority]]\nlevel = "urgent"\ncalling_ae_titles = ["ER_MR"]\n')
    return load_config(file)


@pytest.fixture
def client(config: Config) -> Iterator[WorkflowClient]:
    """Its engine."""
    with closing(WorkflowClient(config)) as client:
        yield client


def enqueue(client: WorkflowClient, workflow_id: str, study: str, priority: int = NORMAL_PRIORITY) -> None:
    """A study that waits."""
    attributes = {"study_instance_uid": study}
    client.enqueue(STUDY_QUEUE, "process", workflow_id, "{}", "", attributes=attributes, priority=priority)


def test_rule_reaches_the_queue_and_the_admin_overrides_it(config: Config, client: WorkflowClient) -> None:
    """A study of the rule's AE title waits as urgent; ``glionode priority`` changes it, also for later requests."""
    folder = config.spool_folder / make_instance().StudyInstanceUID
    write(folder, "1", "ER_MR")
    dispatcher = StudyDispatcher(config, client, Metrics())
    dispatcher.start(folder.name)
    (first,) = read_study_statuses(config, client)
    assert first.waiting == Waiting(1, 1, "urgent", None)
    assert first.remark == "place 1 of 1 in the queue, priority urgent, no estimate"
    file = config.folder.parent / "config.toml"
    assert run_glionode("priority", folder.name, "low", "--config", file).exit_code == 0
    assert read_study_statuses(config, client)[0].waiting == Waiting(1, 1, "low", None)
    write(folder, "2", "ER_MR")
    dispatcher.start(folder.name)
    assert read_study_statuses(config, client)[0].waiting == Waiting(1, 1, "low", None)


def test_study_that_does_not_wait_keeps_its_priority(config: Config, client: WorkflowClient) -> None:
    """An unknown study, one that is over and a level that there is not are errors that say so."""
    with pytest.raises(StudyError, match=r"study 1\.2\.3: no workflow"):
        change_priority(client, STUDY, "urgent")
    enqueue(client, "a", STUDY)
    assert change_priority(client, STUDY, 5) == ["a"]
    client.cancel("a")
    with pytest.raises(StudyError, match=r"study 1\.2\.3 does not wait"):
        change_priority(client, STUDY, "urgent")
    file = config.folder.parent / "config.toml"
    for level in ("soon", "0", "1001", "-1"):
        shown = run_glionode("priority", "--config", file, "--", STUDY, level)
        assert (shown.exit_code, "is not urgent, high, normal, low" in shown.output) == (2, True)


def test_queue_is_shown_in_its_order(config: Config, client: WorkflowClient) -> None:
    """Lower numbers stand before higher ones, and of equal ones the older before the younger."""
    for workflow_id, priority in (("a", 30), ("b", 40), ("c", 10), ("d", 30)):
        enqueue(client, workflow_id, f"1.2.{workflow_id.encode().hex()}", priority)
    places = waiting_places(client, client.workflows("process"))
    assert [places[each].place for each in "abcd"] == [2, 4, 1, 3]


@dataclass
class Timed:
    """Stands in for the engine's client: how long each workflow's steps took."""

    seconds: dict[str, float] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def step_seconds(self, workflow_ids: list[str], names: tuple[str, ...]) -> dict[str, float]:
        """Those of the asked workflows."""
        assert names == ("segment", "report")
        self.asked = workflow_ids
        return {each: self.seconds[each] for each in workflow_ids if each in self.seconds}


def record(workflow_id: str, status: str, minute: int = 0, state: str = "reported") -> WorkflowRecord:
    """A workflow."""
    output = {"state": state, "reason": None} if status == "SUCCESS" else None
    moment = MOMENT + timedelta(minutes=minute)
    return WorkflowRecord(workflow_id, status, None, {}, output, None, moment, moment, priority=30)


def test_estimate_is_the_median_of_recent_studies() -> None:
    """The last twenty reported studies count, and each worker that is busy takes one study after the other."""
    done = [record(f"old{number}", "SUCCESS", number) for number in range(30)]
    refused = record("refused", "SUCCESS", 90, "refused")
    seconds = {each.workflow_id: 600.0 for each in done} | {f"old{n}": 5.0 for n in range(10)} | {"old29": 7200.0}
    client = Timed(seconds)
    waiting = [record(name, "ENQUEUED", 60 + place) for place, name in enumerate("abc")]
    delayed = record("later", "DELAYED")

    def estimates(busy: int) -> list[float | None]:
        running = [record(f"busy{number}", "PENDING") for number in range(busy)]
        found = waiting_places(client, [*done, refused, *waiting, delayed, *running])
        assert set(found) == {"a", "b", "c"}
        return [found[name].estimated_seconds for name in "abc"]

    assert estimates(0) == [0.0, 600.0, 1200.0]
    assert client.asked == [f"old{number}" for number in range(10, 30)]
    assert estimates(1) == [600.0, 1200.0, 1800.0]
    assert estimates(2) == [600.0, 600.0, 1200.0]


def test_without_finished_studies_there_is_no_estimate() -> None:
    """Nothing is guessed before a study was processed."""
    found = waiting_places(Timed(), [record("a", "ENQUEUED"), record("refused", "SUCCESS", state="refused")])
    assert str(found["a"]) == "place 1 of 1 in the queue, priority normal, no estimate"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "a moment"), (20.0, "a minute"), (60.0, "1 min"), (3000.0, "50 min"), (10800.0, "3 h")],
)
def test_estimate_is_rounded(seconds: float, text: str) -> None:
    """An estimate is no more exact than it is."""
    assert str(Waiting(1, 2, "high", seconds)).endswith(f"priority high, begun in about {text}")


def test_sender_is_no_part_of_the_data_set(tmp_path: Path) -> None:
    """The same instance from another AE title has the same data set: it is a duplicate, not a conflict."""
    write(tmp_path / "a", "1", "PACS")
    write(tmp_path / "b", "1", "ER_MR")
    one, other = (dcmread(next((tmp_path / name).rglob("*.dcm"))) for name in "ab")
    assert one == other
    assert one.file_meta != other.file_meta
