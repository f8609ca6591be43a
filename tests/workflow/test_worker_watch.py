"""Workers are judged by their heartbeats, and ids by how long they were seen."""

from __future__ import annotations

from node.workflow.worker_watch import OverdueIds, WorkerWatch


def test_worker_whose_count_stands_still_is_silent():
    """A count that did not change for dead_seconds means a dead worker; any other count means a living one."""
    watch = WorkerWatch("b", 10.0)
    for count, other, now, silent in [
        (1, 7, 0.0, set()),
        (2, 7, 9.9, set()),
        (3, 7, 10.0, {"a"}),
        (4, 1, 11.0, set()),  # it was started again
        (5, 1, 21.0, {"a"}),
    ]:
        watch.look({"b": count, "a": other}, (), now)
        assert (watch.silent, watch.living) == (silent, {"a", "b"} - silent)


def test_worker_without_heartbeat_is_given_time():
    """A worker that never gave a heartbeat, such as one under an earlier name, is silent after dead_seconds."""
    watch = WorkerWatch("b", 10.0)
    watch.look({"b": 1}, ["renamed"], 100.0)
    watch.look({"b": 2}, ["renamed"], 109.0)
    assert (watch.silent, watch.living) == (set(), {"b"})
    watch.look({"b": 3}, ["renamed"], 110.0)
    assert watch.silent == {"renamed"}
    watch.look({"b": 4}, [], 111.0)
    assert watch.silent == set()


def test_one_of_the_living_is_first():
    """Of several living workers one is the first; if that one dies, too, the next one is."""
    first, second = WorkerWatch("b", 10.0), WorkerWatch("c", 10.0)
    for watch in (first, second):
        watch.look({"a": 1, "b": 1, "c": 1}, (), 0.0)
        assert not watch.is_first
        watch.look({"a": 1, "b": 2, "c": 2}, (), 10.0)
    assert (first.is_first, second.is_first) == (True, False)
    second.look({"a": 1, "b": 2, "c": 9}, (), 20.0)
    assert second.is_first


def test_own_silence_is_no_death():
    """A worker whose own heartbeat could not be written does not take itself for dead."""
    watch = WorkerWatch("b", 10.0)
    watch.look({"b": 1}, ["b"], 0.0)
    watch.look({"b": 1}, ["b"], 30.0)
    assert (watch.silent, watch.living, watch.is_first) == (set(), {"b"}, True)


def test_id_is_due_after_it_was_given_for_so_long():
    """An id is due once it was given at every look for so long; one that was missing at a look begins anew."""
    overdue = OverdueIds(10.0)
    assert overdue.due({"w", "x"}, 0.0) == set()
    assert overdue.due({"w"}, 5.0) == set()
    assert overdue.due({"w", "x"}, 10.0) == {"w"}
    assert overdue.due({"w", "x"}, 11.0) == set()
    assert overdue.due({"w", "x"}, 20.0) == {"x"}
