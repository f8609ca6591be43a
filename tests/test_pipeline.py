"""What becomes of a study: its order, the workflow around the steps, and delivery until it is taken."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from faults import FakePacs, Fault, free_port
from instances import make_instance, write_instance_file
from node_process import write_config
from pydicom.uid import MRImageStorage
from small_study import all_instances, make_small_study, study_instance_uid, write_small_study

from node.config import Config, load_config
from node.engine import DELIVERY_QUEUE
from node.errors import ContentRefused, DeliveryError, ModelPackError
from node.order import Order, order_study, with_earlier_moment
from node.pipeline import RESULT_FILES, Pipeline
from node.study import Contrast, Destination

OUT_OF_RESOURCES, CANNOT_UNDERSTAND, COERCED = 0xA700, 0xC000, 0xB000


class RecordingSteps:
    """Runs each step at once, and keeps what a workflow did; its clock only moves when the workflow sleeps."""

    def __init__(self, **instead: Callable[..., Any]) -> None:
        self.names: list[str] = []
        self.told: list[str] = []
        self.pauses: list[float] = []
        self.started: list[tuple[Any, ...]] = []
        self._instead = instead
        self._now = time.time()

    def step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``function``, or what stands in for the step of this name."""
        if function is time.time:
            return self._now
        self.names.append(name)
        return self._instead.get(name, function)(*arguments)

    def tell(self, state: str) -> None:
        """Keep it."""
        self.told.append(state)

    def sleep(self, seconds: float) -> None:
        """Let that time pass."""
        self.pauses.append(seconds)
        self._now += seconds

    def start(self, queue: str, name: str, workflow_id: str, *arguments: Any) -> None:
        """Keep what was started."""
        self.started.append((queue, name, workflow_id, *arguments))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A node's config."""
    return load_config(write_config(tmp_path / "node"))


def config_with(tmp_path: Path, *destinations: Destination, **sections: dict[str, Any]) -> Config:
    """A config that sends to ``destinations``."""
    return load_config(write_config(tmp_path / "node", destinations, **sections))


# ---- the order -------------------------------------------------------------------------------------------------


def test_small_study_is_selected(tmp_path: Path, config: Config) -> None:
    """The small study of these tests holds all four contrasts, so that what is refused is what a test spoilt."""
    study = make_small_study()
    order = order_study(write_small_study(tmp_path / "study", study), config)
    assert order.refusal is None
    assert order.selection is not None
    assert {str(contrast): series.series_instance_uid for contrast, series in order.selection.chosen.items()} == {
        contrast: str(instances[0].SeriesInstanceUID) for contrast, instances in study.items()
    }
    assert order.study_instance_uid == study_instance_uid(study)


def test_order_does_not_depend_on_file_names(tmp_path: Path, config: Config) -> None:
    """The same instances under other names, in other folders, in another order, give the same workflow id."""
    study = make_small_study()
    first = order_study(write_small_study(tmp_path / "first", study), config)
    for number, instance in enumerate(reversed(list(all_instances(study)))):
        folder = tmp_path / "second" / str(number % 7)
        folder.mkdir(parents=True, exist_ok=True)
        write_instance_file(folder, instance).rename(folder / f"IM{number:03}")
    second = order_study(tmp_path / "second", config)
    assert second.workflow_id == first.workflow_id


def test_order_does_not_depend_on_what_is_not_used(tmp_path: Path, config: Config) -> None:
    """A late localizer leaves the workflow id as it is: the selected instances are the same."""
    folder = write_small_study(tmp_path / "study", make_small_study())
    first = order_study(folder, config)
    localizer = make_instance(99, study_instance_uid=first.study_instance_uid, series_instance_uid="1.2.3.99")
    localizer.SeriesDescription, localizer.SeriesNumber = "localizer", 99
    write_instance_file(folder, localizer)
    assert order_study(folder, config).workflow_id == first.workflow_id


def test_order_depends_on_instances_and_settings(tmp_path: Path, config: Config) -> None:
    """One instance less, or another mode, gives another workflow id; the device does not."""
    study = make_small_study()
    folder = write_small_study(tmp_path / "study", study)
    whole = order_study(folder, config)
    assert order_study(folder, config.with_segmentation(device="cpu")).workflow_id == whole.workflow_id
    published = order_study(folder, config.with_segmentation(mode="published"))
    (folder / f"{study['T1'][-1].SOPInstanceUID}.dcm").unlink()
    less = order_study(folder, config)
    assert less.selection is not None
    assert len({whole.workflow_id, published.workflow_id, less.workflow_id}) == 3


def test_refused_order_changes_when_the_missing_series_arrives(tmp_path: Path, config: Config) -> None:
    """A study without FLAIR is ordered as refused, always under one id; complete, under another."""
    study = make_small_study()
    flair = study.pop("FLAIR")
    folder = write_small_study(tmp_path / "study", study)
    refused = order_study(folder, config)
    assert refused.selection is None
    assert "no FLAIR" in (refused.refusal or "")
    assert order_study(folder, config).workflow_id == refused.workflow_id
    write_small_study(folder, {"FLAIR": flair})
    complete = order_study(folder, config)
    assert complete.selection is not None
    assert complete.workflow_id != refused.workflow_id


def test_unreadable_study_is_ordered_as_refused(tmp_path: Path, config: Config) -> None:
    """A folder without a readable instance gives an order, too: refused, under the name it is known by."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "1.2.3.dcm").write_bytes(b"not DICOM")
    order = order_study(folder, config, "1.2.3.4")
    assert (order.study_instance_uid, order.selection) == ("1.2.3.4", None)
    assert "1.2.3.dcm: not a DICOM Part 10 file" in (order.refusal or "")
    assert order_study(folder, config, "1.2.3.4").workflow_id == order.workflow_id
    (folder / "1.2.4.dcm").write_bytes(b"nor this")
    assert order_study(folder, config, "1.2.3.4").workflow_id != order.workflow_id


def test_earlier_moment_is_kept(tmp_path: Path) -> None:
    """An order takes over when it was first made from its own result, and only from its own."""
    earlier, now = datetime(2020, 1, 2, 3, 4, 5, 678, tzinfo=UTC), datetime.now(UTC)
    order = Order("a" * 32, "1.2.3", None, "a reason", now)
    assert with_earlier_moment(order, tmp_path) == order
    result = {"workflow_id": "b" * 32, "created": earlier.isoformat()}
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert with_earlier_moment(order, tmp_path) == order
    (tmp_path / "result.json").write_text(json.dumps(result | {"workflow_id": order.workflow_id}))
    assert with_earlier_moment(order, tmp_path) == replace(order, created=earlier)


# ---- the workflow of a study -----------------------------------------------------------------------------------


@pytest.fixture
def order(tmp_path: Path, config: Config) -> Order:
    """The small study's order."""
    return order_study(write_small_study(tmp_path / "study", make_small_study()), config)


def test_study_goes_its_way(tmp_path: Path, order: Order) -> None:
    """Segment, report, then one delivery for each destination under an id of its own, in that order."""
    peers = [Destination(name, "PACS", "127.0.0.1", 104) for name in ("archive", "reading")]
    steps = RecordingSteps(segment=lambda *_: {"facts": 1}, report=lambda *_: {"volumes_ml": {"whole_tumour": 2.0}})
    outcome = Pipeline(config_with(tmp_path, *peers)).process(steps, order, "folder")
    assert outcome == {"state": "reported", "reason": None, "volumes_ml": {"whole_tumour": 2.0}}
    assert (steps.names, steps.told) == (["segment", "report"], ["selected", "segmented", "reported"])
    assert steps.started == [
        (DELIVERY_QUEUE, "deliver", f"{order.workflow_id}-{peer.name}", order.study_instance_uid, "folder", peer.name)
        for peer in peers
    ]


def test_refusal_by_a_step_ends_the_way(tmp_path: Path, config: Config, order: Order) -> None:
    """A study that a step refuses is refused with that reason; nothing is sent; the selection is kept."""

    def refuse(*_: object) -> None:
        raise ContentRefused("no brain was found")

    steps = RecordingSteps(segment=refuse)
    outcome = Pipeline(config).process(steps, order, str(tmp_path / "work"))
    assert outcome == {"state": "refused", "reason": "no brain was found", "volumes_ml": None}
    assert (steps.names, steps.told, steps.started) == (["segment", "refuse"], ["selected", "refused"], [])
    result = json.loads((tmp_path / "work" / "result.json").read_text("utf-8"))
    assert (result["state"], result["reason"]) == ("refused", "no brain was found")
    assert set(result["selection"]["chosen"]) == {str(contrast) for contrast in Contrast}


def test_refused_order_computes_nothing(tmp_path: Path, config: Config) -> None:
    """A study without a selection is only written down: its reason, its UID, and that there was none."""
    order = Order("a" * 32, "", None, "the folder holds 2 studies", datetime.now(UTC))
    steps = RecordingSteps()
    assert Pipeline(config).process(steps, order, str(tmp_path / "work"))["state"] == "refused"
    assert steps.names == ["refuse"]
    result = json.loads((tmp_path / "work" / "result.json").read_text("utf-8"))
    assert result["study_instance_uid"] is result["selection"] is None


def test_missing_model_is_no_refusal(tmp_path: Path, config: Config, order: Order) -> None:
    """The node's own trouble is not the study's: a model that is not installed fails, naming the command."""
    with pytest.raises(ModelPackError, match="glionode models pull"):
        Pipeline(config).process(RecordingSteps(), order, str(tmp_path / "work"))
    assert not (tmp_path / "work" / "result.json").exists()


# ---- delivery --------------------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder with two instances where SEG and SR would be."""
    folder = tmp_path / "results"
    folder.mkdir()
    for number, name in enumerate(RESULT_FILES):
        write_instance_file(folder, make_instance(number)).rename(folder / name)
    return folder


def deliver(config: Config, results: Path, steps: RecordingSteps) -> dict[str, Any]:
    """Run the delivery workflow."""
    return Pipeline(config).deliver(steps, "1.2.3", str(results), "pacs")


def test_delivery_tries_again_with_growing_pauses(tmp_path: Path, results: Path) -> None:
    """Refused, aborted, half answered and refused again: each pause doubles up to the longest, until all is taken."""
    plan: list[int | Fault] = [OUT_OF_RESOURCES, 0, Fault.ABORT, 0, OUT_OF_RESOURCES, Fault.HALF_ANSWER, 0, COERCED]
    section = {"first_retry_seconds": 30.0, "longest_retry_seconds": 100.0, "timeout_seconds": 2.0}
    steps = RecordingSteps()
    with FakePacs(plan, sop_classes=[MRImageStorage]) as pacs:
        outcome = deliver(config_with(tmp_path, pacs.destination, delivery=section), results, steps)
    assert outcome == {"state": "delivered", "reason": None, "attempts": 5}
    assert steps.pauses == [30.0, 60.0, 100.0, 100.0]
    assert [told.split(":")[0] for told in steps.told] == ["retrying"] * 4 + ["delivered"]
    assert {instance.sop_instance_uid for instance in pacs.received} == {
        str(make_instance(number).SOPInstanceUID) for number in range(len(RESULT_FILES))
    }


def test_repeated_results_are_byte_identical(tmp_path: Path, results: Path) -> None:
    """What is sent a second time, for the other half was refused, is the same to the byte."""
    with FakePacs([0, OUT_OF_RESOURCES], sop_classes=[MRImageStorage]) as pacs:
        deliver(config_with(tmp_path, pacs.destination), results, RecordingSteps())
    first, again, _ = pacs.received
    assert first == again


def test_permanent_refusal_ends_the_delivery(tmp_path: Path, results: Path) -> None:
    """A refusal that will not pass ends as failed with destination and status, after one attempt, without a pause."""
    steps = RecordingSteps()
    with (
        FakePacs([0, CANNOT_UNDERSTAND], sop_classes=[MRImageStorage]) as pacs,
        pytest.raises(DeliveryError, match="pacs: 0xC000 cannot understand"),
    ):
        deliver(config_with(tmp_path, pacs.destination), results, steps)
    assert (steps.names, steps.pauses) == (["send"], [])


def test_delivery_gives_up_in_the_end(tmp_path: Path, results: Path) -> None:
    """A PACS that never answers is tried for as long as the config says, then the delivery fails with the reason."""
    nobody = Destination("pacs", "PACS", "127.0.0.1", free_port())
    section = {"first_retry_seconds": 3600.0, "longest_retry_seconds": 43200.0, "give_up_days": 1.0}
    steps = RecordingSteps()
    with pytest.raises(DeliveryError, match=r"pacs: PACS at 127\.0\.0\.1:\d+ cannot be reached"):
        deliver(config_with(tmp_path, nobody, delivery=section), results, steps)
    assert 86400 < sum(steps.pauses) < 86400 + 43200


def test_destination_that_was_removed_fails(results: Path, config: Config) -> None:
    """A delivery to a destination that the config no longer has fails by naming it."""
    with pytest.raises(DeliveryError, match="destination pacs is no longer in the config"):
        deliver(config, results, RecordingSteps())
