"""Pauses between attempts: they grow up to a limit, and end after the days of the config."""

from __future__ import annotations

from node.config_sections import DeliverySection
from node.workflow.retry_pauses import RetryPauses


def make_pauses(give_up_seconds: float) -> RetryPauses:
    """Pauses of 1 to 4 s."""
    section = DeliverySection(first_retry_seconds=1.0, longest_retry_seconds=4.0, give_up_days=give_up_seconds / 86400)
    return RetryPauses(section)


def test_pauses_double_up_to_the_longest() -> None:
    """Each pause is twice the one before, and none is longer than delivery.longest_retry_seconds."""
    pauses = make_pauses(100.0)
    assert [pauses.next_seconds() for _ in range(5)] == [1.0, 2.0, 4.0, 4.0, 4.0]


def test_pauses_and_waits_count_until_they_are_over() -> None:
    """Pauses and other waits without success add up to delivery.give_up_days; a restart counts anew."""
    pauses = make_pauses(10.0)
    pauses.count(7.0)
    pauses.next_seconds()
    assert not pauses.is_over
    pauses.next_seconds()
    assert pauses.is_over
    pauses.restart()
    assert not pauses.is_over
    assert pauses.next_seconds() == 1.0
