"""The retention status of a study: whether its inputs may be deleted, and if not, why they are held.

Inputs may be deleted when every destination of the study's request has the results, and the days of the config have
passed. The last copy of a study without results is never deleted. In case of doubt, nothing is deleted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from node.config import Config
from node.config_sections import DestinationSection
from node.errors import StorageError
from node.processing.report_anew import with_own_identity
from node.processing.request import RequestOptions, build_request
from node.processing.study_status import StudyStatus
from node.scp.aside import WITHDRAWN
from node.scp.removal import Contents, contents, studies_held
from node.workflow.states import DeliveryState, DeliveryStatus, StudyState

_WITH_RESULTS = (StudyState.REPORTED, StudyState.DELIVERED, StudyState.PRESENT, StudyState.COMMITTED)
_COMMITTED = (DeliveryState.COMMITTED,)
_PRESENT = (DeliveryState.PRESENT, *_COMMITTED)
_HAS_IT = {
    "delivered": (DeliveryState.DELIVERED, DeliveryState.COMMITTING, *_PRESENT),
    "present": _PRESENT,
    "committed": _COMMITTED,
}
"""The states of a delivery that satisfy each value of ``retention.after``: each one satisfies those before it.

A destination that refused to commit is in none of them, for its delivery is retried or failed.
"""
_CLOCKS_DIFFER = timedelta(minutes=5)
"""Tolerated difference between the clocks of the node's machines; beyond it, a clock counts as set back."""


@dataclass(frozen=True, slots=True)
class RetentionStatus:
    """The inputs of one study in the spool.

    ``arrived``: when the latest instance arrived; ``held_because`` None: the inputs may be deleted.
    """

    study_instance_uid: str
    instances: int
    bytes: int
    arrived: datetime | None
    state: StudyState
    held_because: str | None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values. Later versions may add keys, and remove or rename none."""
        return asdict(self) | {"arrived": None if self.arrived is None else self.arrived.isoformat()}


def retention_statuses(
    config: Config, lines: list[StudyStatus], now: datetime, processing: Collection[str] = ()
) -> list[RetentionStatus]:
    """The retention status of every study in the spool, sorted by UID.

    ``processing``: studies with an unfinished workflow, the latest or an earlier one.
    """
    by_study = {line.study_instance_uid: line for line in lines}
    clock = "the clock was set back: the ledger holds later times" if is_clock_behind(lines, now) else None
    busy = "a workflow of it is not over"
    found = []
    for uid in studies_held(config.spool_folder):
        line = by_study.get(uid)
        try:
            found.append(_holding(config, uid, line, now, clock or (busy if uid in processing else None)))
        except OSError as error:
            because = f"it cannot be read: {error.strerror or type(error).__name__}"
            found.append(RetentionStatus(uid, 0, 0, None, _state(line), because))
    return found


def _holding(config: Config, uid: str, line: StudyStatus | None, now: datetime, others: str | None) -> RetentionStatus:
    """``others``: a reason to hold it that does not depend on this study's own status."""
    there = contents(config.spool_folder, uid)
    because = others or _why_held(config, line, there, now)
    if because is None and line is not None:
        because = _why_late(config, line, there)
    return RetentionStatus(uid, there.instances, there.bytes, there.arrived, _state(line), because)


def _state(line: StudyStatus | None) -> StudyState:
    return StudyState.RECEIVING if line is None else line.state


def is_clock_behind(lines: list[StudyStatus], now: datetime) -> bool:
    """True if most times lie in the future. A few may come from a period when the clock was ahead."""
    return 2 * sum(_is_ahead(line, now) for line in lines) > len(lines)


def _is_ahead(line: StudyStatus, now: datetime) -> bool:
    return max(line.since, line.ordered or line.since) > now + _CLOCKS_DIFFER


def has_results(config: Config, line: StudyStatus) -> bool:
    """True if the study has results, even if their delivery failed to a destination that is no longer in the config."""
    names = {section.name for section in config.destination}
    is_lost = any(
        name not in names and delivery.state == DeliveryState.FAILED for name, delivery in line.deliveries.items()
    )
    return line.state in _WITH_RESULTS or (line.state == StudyState.FAILED and is_lost)


def _why_held(config: Config, line: StudyStatus | None, there: Contents, now: datetime) -> str | None:
    if line is None or line.state == StudyState.RECEIVING or line.ordered is None:
        return "not processed yet"
    if _is_ahead(line, now):
        return "the clock was set back: what the ledger says of it is later than now"
    section = config.retention
    if line.state == StudyState.REFUSED:
        if section.refused_days == 0:
            return "refused, and the inputs of refused studies are kept (retention.refused_days)"
        return _why_young(config, line, there, section.refused_days, now)
    if has_results(config, line):
        return why_undelivered(config, line) or _why_young(config, line, there, section.input_days, now)
    if line.state in (StudyState.FAILED, StudyState.CANCELLED):
        return f"{line.state}: no destination may have results of it"
    return f"work on it is under way ({line.state})"


def why_undelivered(config: Config, line: StudyStatus) -> str | None:
    """Which destination lacks the results; None: every destination of the request that the config still has got them.

    A destination that was added to the config later does not count. If the config has none of the request's
    destinations any more, all of these must have the results.
    """
    if not line.deliveries:
        return "its results were ordered to no destination" if config.destination else "no destination is configured"
    sections = {section.name: section for section in config.destination}
    for name in sections.keys() & line.deliveries.keys() or line.deliveries.keys():
        delivery = line.deliveries[name]
        if not _has_it(config.retention.after, sections.get(name), delivery):
            return f"destination {name} is not {config.retention.after}: {delivery}"
    return None


def _has_it(after: str, section: DestinationSection | None, delivery: DeliveryStatus) -> bool:
    if section is None and after != "delivered":
        # The config no longer says whether the destination was to commit. A delivery that ends without a reason is one
        # that was not asked to.
        is_asked_for_no_more = delivery == DeliveryStatus(DeliveryState.DELIVERED)
        return delivery.state in _HAS_IT[after] or is_asked_for_no_more
    enough = after if section is None or section.commitment else "delivered"
    return delivery.state in _HAS_IT[enough]


def _why_young(config: Config, line: StudyStatus, there: Contents, days: float, now: datetime) -> str | None:
    arrived = there.arrived or line.since
    begun = max(line.since, arrived)
    # A study is processed once it is complete, while more instances may still arrive. If the inputs were deleted now,
    # these instances alone would make an incomplete study.
    quiet = timedelta(seconds=max(config.assembly.stable_seconds, config.assembly.ceiling_seconds))
    until = max(begun + timedelta(days=min(days, 36500)), arrived + quiet)
    if begun > now:
        return "the clock was set back: its times are later than now"
    return f"kept until {until:%Y-%m-%d %H:%M} UTC" if now < until else None


def _why_late(config: Config, line: StudyStatus, there: Contents) -> str | None:
    """Instances later than the request are not judged yet, unless the study with them gives the same request.

    Nor are withdrawals, which change no file of the study.
    """
    is_changed = there.changed is not None and line.ordered is not None and there.changed > line.ordered
    if not is_changed and not (config.spool_folder / WITHDRAWN / line.study_instance_uid).is_dir():
        return None
    late = "instances that arrived after it was ordered are not judged yet"
    try:
        request = build_request(
            config.spool_folder / line.study_instance_uid, config, RequestOptions(line.study_instance_uid)
        )
        request = with_own_identity(request, config.work_folder)
    except (OSError, StorageError):  # moved in the meantime
        return late
    return None if request.workflow_id == line.folder or request.instances in line.judged else late
