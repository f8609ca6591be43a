"""Which fault strikes what, when and for how long: a pure function of a seed, so that a run can be repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """What happens to a process, a wire or the database."""

    KILL = "kill -9"
    STOP = "SIGSTOP and SIGCONT"
    NO_SPACE = "full disk"
    BAD_DISK = "EIO"
    SLOW_SYNC = "slow fsync"
    CLOCK = "clock jump"
    CUT = "connections reset"
    SILENCE = "partition"
    RESTART = "database restarted"
    FAILOVER = "database failed over"


OF_PROCESS = (
    FaultKind.KILL, FaultKind.STOP, FaultKind.NO_SPACE, FaultKind.BAD_DISK, FaultKind.SLOW_SYNC, FaultKind.CLOCK,
)  # fmt: skip
OF_WIRE = (FaultKind.CUT, FaultKind.SILENCE)

WEIGHTS = {
    FaultKind.KILL: 4, FaultKind.STOP: 22, FaultKind.NO_SPACE: 11, FaultKind.BAD_DISK: 11, FaultKind.SLOW_SYNC: 12,
    FaultKind.CLOCK: 10, FaultKind.CUT: 15, FaultKind.SILENCE: 12, FaultKind.RESTART: 0.4, FaultKind.FAILOVER: 0.2,
}  # fmt: skip
_JUMPS_SECONDS = (-86400, -7200, -600, -30, 30, 600, 7200, 86400)


@dataclass(frozen=True, slots=True)
class FaultOrder:
    """One fault: ``pause_seconds`` after the one before, for ``seconds``. ``amount``: seconds of a clock's jump."""

    pause_seconds: float
    kind: FaultKind
    target: str
    seconds: float
    amount: int = 0


def fault_orders(
    seed: int, processes: Sequence[str], wires: Sequence[str], kinds: Sequence[FaultKind], mean_pause_seconds: float
) -> Iterator[FaultOrder]:
    """Faults without end: of ``processes`` and ``wires`` by name, and of the database, whose target is named so."""
    chance = random.Random(seed)
    weights = [WEIGHTS[kind] for kind in kinds]
    while True:
        kind = chance.choices(kinds, weights)[0]
        target = chance.choice(processes if kind in OF_PROCESS else wires if kind in OF_WIRE else ("database",))
        pause, seconds = chance.uniform(0.2, 1.8) * mean_pause_seconds, chance.uniform(0.2, 1.5)
        if kind is FaultKind.STOP and chance.random() < 0.04:
            seconds = 9.0  # longer than a worker may be without a heartbeat: another takes its studies over
        yield FaultOrder(pause, kind, target, seconds, chance.choice(_JUMPS_SECONDS) if kind is FaultKind.CLOCK else 0)
