"""Waits of workflows: as long as asked, whatever becomes of the clock."""

from __future__ import annotations

import time
from typing import Any

import pytest

from node.workflow.durable import DurableSteps


def test_clock_that_was_set_back_does_not_prolong_a_wait() -> None:
    """A wait whose recorded end lies an hour ahead, for the clock was set back since, lasts no longer than asked."""

    class SetBack(DurableSteps):
        def step(self, name: str, function: Any, *arguments: Any) -> Any:
            return function(*arguments) + 3600.0

    begun = time.monotonic()
    SetBack().sleep(0.05)
    assert time.monotonic() - begun < 3600.0


def test_clock_that_was_set_forward_ends_a_wait() -> None:
    """A wait whose recorded end has passed, for the clock was set forward since, is over at once."""

    class SetForward(DurableSteps):
        def step(self, name: str, function: Any, *arguments: Any) -> Any:
            return function(*arguments) - 7200.0

    begun = time.monotonic()
    SetForward().sleep(3600.0)
    assert time.monotonic() - begun < 3600.0


class Mailbox(DurableSteps):
    """Steps whose message comes at the look of that number, if ever; the recorded begin of a wait is ``shift`` off."""

    def __init__(self, shift: float = 0.0, comes_at: int = 0) -> None:
        self.looks = 0
        self._shift, self._comes_at = shift, comes_at

    def step(self, name: str, function: Any, *arguments: Any) -> Any:
        """As recorded by a clock that differs."""
        return function(*arguments) + self._shift

    def _look(self, topic: str) -> Any:
        self.looks += 1
        return "message" if self.looks == self._comes_at else None


@pytest.mark.parametrize("shift", [0.0, 3600.0], ids=["right", "set back since"])
def test_silence_lasts_as_long_as_asked(shift: float) -> None:
    """Without a message the whole wait passes, no more, and the last look comes after it."""
    steps, begun = Mailbox(shift), time.monotonic()
    assert steps.receive("commitment", 0.7) is None
    assert 0.7 <= time.monotonic() - begun < 3600.0
    assert steps.looks == 3


def test_wait_that_passed_before_a_restart_is_not_repeated() -> None:
    """A wait whose recorded begin lies far back, also if the clock was only set forward, is over at once."""
    steps, begun = Mailbox(-7200.0), time.monotonic()
    assert steps.receive("commitment", 3600.0) is None
    assert time.monotonic() - begun < 3600.0


def test_looks_are_as_many_whatever_passed() -> None:
    """Each look has its place among the recorded steps, so that their number does not depend on the clock."""
    late, soon = Mailbox(-7200.0), Mailbox(-2.0)
    assert (late.receive("commitment", 2.0), soon.receive("commitment", 2.0)) == (None, None)
    assert late.looks == soon.looks


def test_an_hour_of_silence_costs_few_looks() -> None:
    """Rounds grow: a hundred deliveries that wait are next to nothing for the database."""
    steps = Mailbox(-7200.0)
    steps.receive("commitment", 3600.0)
    assert steps.looks < 40


@pytest.mark.parametrize("comes_at", [1, 2])
def test_message_ends_the_wait(comes_at: int) -> None:
    """What is there already is received without a pause, what comes later at the next look."""
    steps, begun = Mailbox(comes_at=comes_at), time.monotonic()
    assert steps.receive("commitment", 3600.0) == "message"
    assert time.monotonic() - begun < 3600.0
    assert steps.looks == comes_at
