"""The history checker's proof: two machines under faults drawn from a seed lose nothing and report nothing twice.

``GLIONODE_CHAOS_SEED=N`` repeats the faults, the studies and what clients send of a run; the seed is printed.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest
from fault_schedule import FaultKind
from length import IS_FULL
from tempest import Plan, Tempest

SEED = int(os.environ.get("GLIONODE_CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))
FULL = Plan(SEED, faults=2000, studies=12, mean_pause_seconds=0.55)
SHORT = Plan(
    SEED, faults=16, studies=2, mean_pause_seconds=0.35, open_studies=2, probability=0.0, calm_seconds=120.0,
    kinds=[kind for kind in FaultKind if kind is not FaultKind.FAILOVER],
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.long(60)
@pytest.mark.timeout(3600)
def test_a_history_under_faults_has_no_violation(tmp_path: Path) -> None:
    """Each acknowledged instance is kept unchanged or legitimately superseded; each report goes out once."""
    sys.stdout.write(f"\nGLIONODE_CHAOS_SEED={SEED}\n")
    tempest = Tempest(tmp_path, FULL if IS_FULL else SHORT)
    found = tempest.run()
    figures = tempest.figures
    sys.stdout.write(
        f"{figures.total()} faults in {figures.storm_seconds:.0f} s and {figures.calm_seconds:.0f} s after it: "
        f"{dict(figures.faults)}, {figures.deaths} deaths by their own hand; {figures.hits} calls of the disk struck; "
        f"{figures.studies} studies, {figures.corrected} corrected, {figures.withdrawn} withdrawn in part; "
        f"C-STORE {dict(figures.stores)}; "
        f"{figures.given} results given for {figures.results} requests; "
        f"machines {'in network namespaces' if tempest.is_apart else 'share loopback: no root'}\n"
    )
    assert found == [], f"GLIONODE_CHAOS_SEED={SEED}: {tempest.lines}"
    assert figures.total() >= tempest.plan.faults
    # the few faults of the short form may strike while no call is under way; test_faulty_libc shows that they would
    assert figures.hits > 0 or not IS_FULL
