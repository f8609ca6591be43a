"""Nothing lost, nothing twice: kills at random moments while studies stream in and a PACS fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from faults import FakePacs
from lab import Orthanc
from length import IS_FULL
from postgres import running_postgres
from pydicom.uid import EnhancedSRStorage, SegmentationStorage
from small_study import all_instances, study_instance_uid
from storm import Plan, Storm, fickle_plan


def weather(folder: Path, plan: Plan) -> None:
    """Run one storm, print its figures, and assert that nothing is missing and nothing is there twice."""
    fickle = FakePacs(fickle_plan(plan.seed, 20 * plan.studies), sop_classes=[SegmentationStorage, EnhancedSRStorage])
    with fickle, Orthanc("NOBODY", 1) as pacs:
        storm = Storm(folder, plan, pacs, fickle)
        figures = storm.run()
        made, archive, given = storm.results_made(), storm.at_archive(), storm.at_fickle()
    sys.stdout.write(
        f"\n{plan.studies} studies, {len(figures.acknowledged)} instances acknowledged, {figures.total_kills()} kills "
        f"{figures.kills}, {figures.sent_twice} acknowledged again, {len(fickle.received)} stores at the failing PACS "
        f"for {len(given)} results, {figures.delivered_in_storm} studies delivered while the storm blew, "
        f"{figures.seconds:.0f} s\n"
    )
    uids = {study_instance_uid(study) for study in storm.studies}
    sent = {str(instance.SOPInstanceUID) for study in storm.studies for instance in all_instances(study)}
    assert figures.acknowledged == sent
    assert storm.missing_instances() == set()
    assert set(made) == uids
    assert archive == {uid: ([seg], [report]) for uid, (seg, report) in made.items()}
    assert set(given) == {uid for pair in made.values() for uid in pair}
    assert [uid for uid, contents in given.items() if len(contents) != 1] == []
    assert figures.total_kills() >= plan.kills
    assert 2 * figures.delivered_in_storm >= plan.studies


@pytest.mark.slow
@pytest.mark.long(80)
@pytest.mark.timeout(3600)
def test_kills_lose_nothing_and_send_nothing_twice(tmp_path: Path) -> None:
    """After all kills each acknowledged instance is kept, and each study has one SEG and one SR at each destination."""
    plan = Plan(studies=52, kills=300, receiver_probability=0.002, worker_probability=0.01)
    short = Plan(studies=3, kills=10, receiver_probability=0.004, worker_probability=0.006)
    weather(tmp_path, plan if IS_FULL else short)


@pytest.mark.slow
@pytest.mark.long(80)
@pytest.mark.timeout(3600)
def test_kills_of_two_workers_on_postgres(tmp_path: Path) -> None:
    """The same with PostgreSQL and two workers, each of which may be killed while it is at a study."""
    with running_postgres() as url:
        plan = Plan(
            studies=12 if IS_FULL else 2, kills=60 if IS_FULL else 6,
            receiver_probability=0.004, worker_probability=0.01 if IS_FULL else 0.006, workers=2, database=url,
        )  # fmt: skip
        weather(tmp_path, plan)
