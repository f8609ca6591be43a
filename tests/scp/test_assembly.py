"""When studies are due: a table of timings on a simulated clock, and the loop that hands the studies over."""

from __future__ import annotations

import threading

import pytest
import structlog
from faults import wait_until

from node.config_sections import AssemblySection
from node.errors import RetryableError
from node.scp.assembly import Assembly, AssemblyLoop

SECTION = AssemblySection(stable_seconds=60, series_stable_seconds=15, ceiling_seconds=600)


def due_times(arrivals, complete_from=None, until=2000, section=SECTION):
    """The whole seconds at which study "1.2" is due, and is checked, for ``arrivals`` as (second, series)."""
    now, judged = 0, []

    def is_complete(_study, _quiet_series):
        judged.append(now)
        return complete_from is not None and now >= complete_from

    assembly, due = Assembly(section, is_complete), []
    for now in range(until):
        for second, series in arrivals:
            if second == now:
                assembly.instance_stored("1.2", series, now)
        due += [now for _ in assembly.due(now)]
    return due, judged


@pytest.mark.parametrize(
    ("arrivals", "complete_from", "due"),
    [
        pytest.param([], None, [], id="nothing came"),
        pytest.param([(0, "a")], None, [60], id="stable"),
        pytest.param([(0, "a"), (59, "a")], None, [119], id="each instance restarts the quiet time"),
        pytest.param([(0, "a"), (40, "b"), (80, "c")], None, [140], id="another series restarts it too"),
        pytest.param([(0, "a"), (5, "b")], 20, [20], id="complete once the last series is quiet"),
        pytest.param([(0, "a"), (14, "b"), (20, "a")], 30, [35], id="interleaved series"),
        pytest.param([(0, "a"), (10, "b")], 0, [15, 70], id="complete while another series arrives, then stable"),
        pytest.param(
            [(second, "b") for second in range(0, 80, 10)] + [(0, "a")], 0, [15, 130], id="handed over as complete once"
        ),
        pytest.param([(0, "a"), (30, "b")], 40, [45], id="not complete at 15, complete at 45"),
        pytest.param([(0, "a")], 30, [60], id="judged once per change, so the study timer decides"),
        pytest.param([(second, "a") for second in range(0, 700, 10)], None, [600, 750], id="ceiling, then a new round"),
        pytest.param([(0, "a"), (100, "a")], None, [60, 160], id="a late instance starts a new round"),
        pytest.param([(0, "a"), (16, "b")], 0, [15, 76], id="a late series after completion waits until stable"),
        pytest.param([(0, "a"), (16, "a")], 0, [15, 76], id="so does a late instance of a known series"),
        pytest.param([(0, "a"), (100, "b")], 0, [15, 115], id="long after, it starts a new round"),
    ],
)
def test_timing(arrivals, complete_from, due):
    """A study is due when stable, complete or at the ceiling, and once more if instances came after it was complete."""
    assert due_times(arrivals, complete_from)[0] == due


def test_completeness_is_judged_once_per_change():
    """The completeness check, which reads files, runs once each time that another series has become quiet."""
    assert due_times([(0, "a"), (5, "b"), (30, "c")], None)[1] == [15, 20, 45]


def test_a_series_that_went_on_is_judged_again():
    """A series that receives more instances after its check is checked again when it is quiet again."""
    assert due_times([(0, "a"), (20, "a")], None)[1] == [15, 35]


def test_completeness_is_asked_of_the_quiet_series_alone():
    """A series that still arrives is neither checked nor handed over, and delays none of the quiet series."""
    asked = []
    assembly = Assembly(SECTION, lambda study, quiet: asked.append((study, quiet)) or len(quiet) == 2)
    for second, series in ((0, "a"), (4, "b"), (9, "c")):
        assembly.instance_stored("1.2", series, second)
    assert assembly.due(15) == []
    assert assembly.due(19) == [("1.2", frozenset("ab"))]
    assert asked == [("1.2", frozenset("a")), ("1.2", frozenset("ab"))]
    assert assembly.due(30) == []
    assert assembly.due(69) == [("1.2", None)]


def test_study_timer_shorter_than_the_series_timer():
    """If stable_seconds is shorter than series_stable_seconds, it alone decides."""
    section = AssemblySection(stable_seconds=10, series_stable_seconds=15, ceiling_seconds=600)
    assert due_times([(0, "a")], 0, section=section) == ([10], [])


def test_studies_do_not_disturb_each_other():
    """Instances of one study do not prolong another's quiet time."""
    assembly = Assembly(SECTION, lambda _study, _quiet: False)
    assembly.instance_stored("1.2", "a", 0)
    assembly.instance_stored("1.3", "b", 30)
    assert assembly.due(60) == [("1.2", None)]
    assert assembly.due(90) == [("1.3", None)]


def test_timers_start_anew_after_a_restart():
    """A study in the spool at the start is due after a full quiet time of listening, or once complete."""
    assembly = Assembly(SECTION, lambda study, _quiet: study == "1.3")
    assembly.resume({"1.2": ["a", "b"], "1.3": ["c"]}, 1000)
    assert assembly.due(1014) == []
    assert assembly.due(1015) == [("1.3", frozenset("c"))]
    assert assembly.due(1059) == []
    assert assembly.due(1060) == [("1.2", None)]


def test_offered_again_after_the_quiet_time():
    """A study whose hand-over failed is due again after stable_seconds, without a completeness check."""
    assembly = Assembly(SECTION, lambda _study, _quiet: True)
    assembly.offer_again("1.2", 100)
    assert assembly.due(159) == []
    assert assembly.due(160) == [("1.2", None)]
    assert assembly.due(1000) == []


def test_offered_again_does_not_hide_a_new_round():
    """A study whose hand-over failed while new instances arrived is due once, by the timer of those instances."""
    assembly = Assembly(SECTION, lambda _study, _quiet: False)
    assembly.instance_stored("1.2", "a", 90)
    assembly.offer_again("1.2", 100)
    assert assembly.due(150) == [("1.2", None)]
    assert assembly.due(1000) == []


def test_unknown_completeness_leaves_it_to_the_study_timer():
    """A completeness check that fails is logged, and the study is due when stable."""

    def is_complete(_study, _quiet_series):
        raise RetryableError("spool unreadable")

    assembly = Assembly(SECTION, is_complete)
    assembly.instance_stored("1.2", "a", 0)
    with structlog.testing.capture_logs() as events:
        assert assembly.due(15) == []
    assert [event["event"] for event in events] == ["completeness_unknown"]
    assert assembly.due(60) == [("1.2", None)]


@pytest.mark.slow
@pytest.mark.parametrize("error", [OSError(116, "Stale file handle"), FileNotFoundError(2, "gone"), KeyError("x")])
def test_failed_check_of_one_study_holds_up_no_other(error):
    """If the check of one study raises any exception, other studies are handed over, and this one when stable."""
    ready, section = [], AssemblySection(stable_seconds=0.4, series_stable_seconds=0.1, ceiling_seconds=600)

    def is_complete(study, _quiet):
        if study == "1.2":
            raise error
        return True

    loop = AssemblyLoop(Assembly(section, is_complete), lambda study, _series: ready.append(study))
    with structlog.testing.capture_logs() as events:
        loop.start({"1.2": ["a"], "1.3": ["b"]})
        try:
            wait_until(lambda: ready == ["1.3", "1.2"])
        finally:
            loop.stop()
    assert [event["event"] for event in events] == ["studies_resumed", "completeness_unknown"]


@pytest.mark.parametrize("error", [None, OSError(5, "Input/output error")])
def test_judged_studies_do_not_come_up_again(error):
    """After a restart only studies not processed yet are handed over; if these are unknown, all studies are."""
    ready, section = [], AssemblySection(stable_seconds=0.2, series_stable_seconds=0.1, ceiling_seconds=600)

    def judged():
        if error:
            raise error
        return {"1.2"}

    loop = AssemblyLoop(Assembly(section, lambda _study, _quiet: False), lambda study, _series: ready.append(study))
    loop.start({"1.2": ["a"], "1.3": ["b"]}, judged)
    try:
        wait_until(lambda: ready == (["1.2", "1.3"] if error else ["1.3"]))
    finally:
        loop.stop()


class Shared:
    """A study that another receiver stores instances of, too; each change increases a number."""

    def __init__(self, complete_with=99):
        self.changes, self.looks, self._complete_with = {}, 0, complete_with
        self.assembly = Assembly(SECTION, lambda _study, quiet: len(quiet) >= complete_with, self._look)

    def _look(self, _study):
        self.looks += 1
        return dict(self.changes)

    def comes_elsewhere(self, series):
        """The other receiver stores an instance."""
        self.changes[series] = self.changes.get(series, 0) + 1

    def comes_here(self, series, now):
        """This receiver stores an instance."""
        self.comes_elsewhere(series)
        self.assembly.instance_stored("1.2", series, now)


def test_study_that_goes_on_arriving_elsewhere_is_not_stable():
    """A change by another receiver restarts the timer, in a series of its own or in one that arrives here, too."""
    study = Shared()
    study.comes_here("a", 0)
    assert study.assembly.due(0) == []
    study.comes_elsewhere("b")
    assert study.assembly.due(60) == []
    assert study.assembly.due(119) == []
    study.comes_elsewhere("a")
    assert study.assembly.due(120) == []
    assert study.assembly.due(180) == [("1.2", None)]


def test_what_came_here_alone_is_due_in_its_time():
    """Instances received here change the folder, too, but do not prolong the timer, and the folder is read seldom."""
    study = Shared()
    for second, series in ((0, "a"), (5, "b"), (9, "a")):
        study.comes_here(series, second)
        assert study.assembly.due(second) == []
    assert [second for second in range(10, 200) for _ in study.assembly.due(second)] == [69]
    assert study.looks < 8


def test_series_from_elsewhere_make_a_study_complete():
    """A series at the other receiver counts for completeness once it was quiet for series_stable_seconds."""
    study = Shared(complete_with=2)
    study.comes_here("a", 0)
    assert study.assembly.due(0) == []
    study.comes_elsewhere("b")
    assert study.assembly.due(15) == []
    study.comes_elsewhere("b")
    assert study.assembly.due(30) == []
    assert study.assembly.due(44) == []
    assert study.assembly.due(45) == [("1.2", frozenset("ab"))]


def test_ceiling_counts_wherever_the_study_arrives():
    """A study that another receiver stores instances of without a pause is due at the ceiling."""
    study, due = Shared(), []
    study.comes_here("a", 0)
    for now in range(700):
        study.comes_elsewhere("b")
        due += [now for _ in study.assembly.due(now)]
    assert due == [600]


def test_what_lay_there_before_is_no_news():
    """A series stored earlier does not prolong the timer, neither beside a late series nor after a failed hand-over."""
    study = Shared()
    study.comes_elsewhere("old")
    study.comes_here("late", 0)
    assert [second for second in range(100) for _ in study.assembly.due(second)] == [60]
    study.assembly.offer_again("1.2", 100)
    assert [second for second in range(100, 300) for _ in study.assembly.due(second)] == [160]


def test_folder_that_cannot_be_looked_at_leaves_it_to_the_own_timer():
    """A folder that cannot be read is logged, and the study is due by the instances received here."""

    def look(_study):
        raise PermissionError(13, "Permission denied")

    assembly = Assembly(SECTION, lambda _study, _quiet: False, look)
    assembly.instance_stored("1.2", "a", 0)
    with structlog.testing.capture_logs() as events:
        assert assembly.due(60) == [("1.2", None)]
    assert {event["reason"] for event in events if event["event"] == "changes_unknown"} == {"Permission denied"}


class Clock:
    """A simulated clock."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_loop_hands_over_what_is_due_and_ends():
    """The loop hands over resumed and arriving studies, each once, and leaves no thread when stopped."""
    clock, ready = Clock(), []
    loop = AssemblyLoop(
        Assembly(SECTION, lambda _study, _quiet: False), lambda study, _series: ready.append(study), clock
    )
    loop.start({"1.2": ["a"]})
    assert loop.is_alive
    loop.instance_stored("1.3", "b")
    clock.now = 60.0
    loop.instance_stored("1.4", "c")
    wait_until(lambda: ready == ["1.2", "1.3"])
    clock.now = 120.0
    wait_until(lambda: ready == ["1.2", "1.3", "1.4"])
    loop.stop()
    assert not loop.is_alive
    assert "assembly" not in {thread.name for thread in threading.enumerate()}


def test_loop_offers_again_what_was_not_taken():
    """A study whose hand-over fails is handed over again after stable_seconds, and delays no other study."""
    clock, ready = Clock(), []

    def on_ready(study, _series):
        ready.append(study)
        if ready == ["1.2"]:
            raise RetryableError("database is away")

    loop = AssemblyLoop(Assembly(SECTION, lambda _study, _quiet: False), on_ready, clock)
    loop.start({"1.2": ["a"], "1.3": ["b"]})
    try:
        clock.now = 60.0
        wait_until(lambda: ready == ["1.2", "1.3"])
        clock.now = 120.0
        wait_until(lambda: ready == ["1.2", "1.3", "1.2"])
    finally:
        loop.stop()


def test_loop_stopped_before_it_started():
    """Stopping a loop that never ran is no error."""
    AssemblyLoop(Assembly(SECTION, lambda _study, _quiet: False), lambda _study, _series: None).stop()


def test_a_complete_study_that_was_not_taken_is_offered_when_stable():
    """A complete study whose hand-over failed is handed over when it is stable."""
    assembly = Assembly(SECTION, lambda _study, _quiet: True)
    assembly.instance_stored("1.2", "a", 0)
    assert assembly.due(15) == [("1.2", frozenset("a"))]
    assembly.offer_again("1.2", 15)
    assert assembly.due(59) == []
    assert assembly.due(60) == [("1.2", None)]
