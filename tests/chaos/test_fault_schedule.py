"""The schedule of faults is a function of its seed."""

from __future__ import annotations

import itertools

from fault_schedule import FaultKind, FaultOrder, fault_orders

PROCESSES, WIRES = ("receiver", "worker"), ("to receiver", "to pacs")


def first(seed: int, kinds: tuple[FaultKind, ...] = tuple(FaultKind)) -> list[FaultOrder]:
    """Two thousand faults."""
    return list(itertools.islice(fault_orders(seed, PROCESSES, WIRES, kinds, 0.5), 2000))


def test_a_seed_gives_the_same_faults_again():
    """And another seed gives others."""
    assert first(1) == first(1)
    assert first(1) != first(2)


def test_each_kind_strikes_each_target_that_it_can_strike():
    """Nothing is left out in a long run; what is not asked for does not come."""
    found = {(order.kind, order.target) for order in first(3)}
    assert {kind for kind, _ in found} == set(FaultKind)
    assert {target for kind, target in found if kind is FaultKind.KILL} == set(PROCESSES)
    assert {target for kind, target in found if kind is FaultKind.CUT} == set(WIRES)
    assert {target for kind, target in found if kind is FaultKind.FAILOVER} == {"database"}
    assert {order.kind for order in first(3, (FaultKind.STOP,))} == {FaultKind.STOP}


def test_faults_are_short_and_close():
    """Each is in effect for a fifth of a second at least; the mean pause is the one asked for."""
    orders = first(4)
    assert min(order.seconds for order in orders) >= 0.2
    assert 0.45 < sum(order.pause_seconds for order in orders) / len(orders) < 0.55
    assert all((order.amount != 0) == (order.kind is FaultKind.CLOCK) for order in orders)
