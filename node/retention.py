"""What is deleted, and when; and why the rest is held. The deleting itself is in ``removal.py``.

Inputs go when every destination has the results and the days of the config have passed; never the last copy of a study
that has no result anywhere. Results go later. In doubt, nothing goes.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from node.commitment import Commitments
from node.config import Config
from node.engine import ACTIVE, WorkflowClient
from node.forgetting import forget_studies
from node.ledger import LedgerLine, read_ledger
from node.order import Wish, order_study
from node.removal import (
    Contents,
    contents,
    is_held,
    remove_folder,
    remove_rest,
    remove_study,
    studies_held,
    take_up_leftovers,
)
from node.uids import is_valid_uid

log = structlog.get_logger()

_WITH_RESULTS = ("reported", "delivered", "committed")
_HAS_IT = {"delivered": ("delivered", "committed", "committing"), "committed": ("committed",)}
_CLOCKS_DIFFER = timedelta(minutes=5)
"""By how much the clocks of the node's machines may differ before one is taken for set back."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What the spool holds of one study; ``arrived``: its latest instance; ``held_because`` None: it may be deleted."""

    study_instance_uid: str
    instances: int
    bytes: int
    arrived: datetime | None
    state: str
    held_because: str | None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; stable: keys are only ever added."""
        return asdict(self) | {"arrived": None if self.arrived is None else self.arrived.isoformat()}


@dataclass(frozen=True, slots=True)
class Stock:
    """Ledger and spool at one moment. ``at_work``: ids of the workflows that are not over."""

    now: datetime
    lines: list[LedgerLine]
    held: list[Holding]
    at_work: frozenset[str]


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What went: Study Instance UIDs of inputs, names of results' folders, how many requests for commitment."""

    studies: list[str]
    results: list[str]
    commitments: int


def take_stock(config: Config) -> Stock:
    """Read ledger and spool, and judge every study.

    Raises:
        EngineError: the database does not answer.
    """
    with closing(WorkflowClient(config)) as client:
        orders = [each for each in client.workflows("process") if each.engine_status in ACTIVE]
        deliveries = [each for each in client.workflows("deliver") if each.engine_status in ACTIVE]
        lines = read_ledger(config, client)
    processing = frozenset(each.about["study_instance_uid"] for each in orders)
    now = datetime.now(UTC)
    at_work = frozenset(each.workflow_id for each in (*orders, *deliveries))
    return Stock(now, lines, holdings(config, lines, now, processing), at_work)


def holdings(config: Config, lines: list[LedgerLine], now: datetime, processing: Collection[str] = ()) -> list[Holding]:
    """Every study in the spool, and why it is held; sorted by UID.

    ``processing``: studies of which a workflow is not over, be it the latest or an earlier one.
    """
    by_study = {line.study_instance_uid: line for line in lines}
    clock = "the clock was set back: the ledger holds later times" if _is_clock_behind(lines, now) else None
    found = []
    for uid in studies_held(config.spool_folder):
        there, line = contents(config.spool_folder, uid), by_study.get(uid)
        because = clock or _why_held(config, line, there, now)
        if because is None and uid in processing:
            because = "a workflow of it is not over"
        if because is None and line is not None:
            because = _why_late(config, line, there)
        state = "receiving" if line is None else line.state
        found.append(Holding(uid, there.instances, there.bytes, there.arrived, state, because))
    return found


def _is_clock_behind(lines: list[LedgerLine], now: datetime) -> bool:
    return any(max(line.since, line.ordered or line.since) > now + _CLOCKS_DIFFER for line in lines)


def _why_held(config: Config, line: LedgerLine | None, there: Contents, now: datetime) -> str | None:
    if line is None or line.state == "receiving" or line.ordered is None:
        return "not processed yet"
    section = config.retention
    if line.state == "refused":
        if section.refused_days == 0:
            return "refused, and the inputs of refused studies are kept (retention.refused_days)"
        return _why_young(config, line, there, section.refused_days, now)
    if line.state in ("failed", "cancelled"):
        return f"{line.state}: no destination may have results of it"
    if line.state not in _WITH_RESULTS:
        return f"work on it is under way ({line.state})"
    return _why_undelivered(config, line) or _why_young(config, line, there, section.input_days, now)


def _why_undelivered(config: Config, line: LedgerLine) -> str | None:
    if not config.destination:
        return "no destination is configured"
    after = config.retention.after
    for section in config.destination:
        text = line.deliveries.get(section.name, "not ordered")
        enough = _HAS_IT[after] if section.commitment or after == "delivered" else _HAS_IT["delivered"]
        if text.partition(":")[0] not in enough:
            return f"destination {section.name} is not {after}: {text}"
    return None


def _why_young(config: Config, line: LedgerLine, there: Contents, days: float, now: datetime) -> str | None:
    arrived = there.arrived or line.since
    begun = max(line.since, arrived)
    # a study is processed once it is complete, be more of it arriving; without the rest, what comes would be no study
    quiet = timedelta(seconds=max(config.assembly.stable_seconds, config.assembly.ceiling_seconds))
    until = max(begun + timedelta(days=min(days, 36500)), arrived + quiet)
    if begun > now:
        return "the clock was set back: its times are later than now"
    return f"kept until {until:%Y-%m-%d %H:%M} UTC" if now < until else None


def _why_late(config: Config, line: LedgerLine, there: Contents) -> str | None:
    """Instances that came after the order wait to be judged, unless the study with them gives that same order."""
    if there.changed is None or line.ordered is None or there.changed <= line.ordered:
        return None
    late = "instances that arrived after it was ordered are not judged yet"
    try:
        order = order_study(config.spool_folder / line.study_instance_uid, config, Wish(line.study_instance_uid))
    except OSError:  # moved meanwhile
        return late
    return None if order.workflow_id == line.folder or order.instances in line.judged else late


def clean(
    config: Config, held: list[Holding], dry_run: bool, is_needed: Callable[[str], bool] = lambda _: False
) -> list[str]:
    """Delete the inputs that may go; the Study Instance UIDs of what went (``dry_run``: of what would go).

    What a kill left of an earlier round is settled first. A study that the disk will not let go is logged and stays,
    and so does one that ``is_needed`` says was ordered since ``held`` was judged.
    """
    deletable = [each for each in held if each.held_because is None]
    if dry_run:
        return [each.study_instance_uid for each in deletable]
    gone = []
    with _alone(config):
        try:
            take_up_leftovers(config.spool_folder)
        except OSError as error:
            log.error("leftovers_not_settled", reason=error.strerror)
        for each in deletable:
            expected = Contents(each.instances, each.bytes, each.arrived, None)
            try:
                is_gone = remove_study(config.spool_folder, each.study_instance_uid, expected, is_needed)
            except OSError as error:
                log.error("input_not_deleted", study_instance_uid=each.study_instance_uid, reason=error.strerror)
                continue
            if is_gone:
                gone.append(each.study_instance_uid)
                facts = {"instances": each.instances, "bytes": each.bytes}
                log.info("input_deleted", study_instance_uid=each.study_instance_uid, **facts)
    return gone


@contextmanager
def _alone(config: Config) -> Iterator[None]:
    """One at a time deletes, be it a worker or the command line."""
    with (config.folder / "retention.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def clean_results(config: Config, stock: Stock, gone: Collection[str], dry_run: bool) -> list[str]:
    """Delete results that are old enough; the names of their folders. ``gone``: studies whose inputs went just now."""
    if _is_clock_behind(stock.lines, stock.now):
        return []
    by_folder = {line.folder: line for line in stock.lines if line.folder}
    studies = {line.study_instance_uid for line in stock.lines}
    busy = {workflow_id.partition("-")[0].partition(".")[0] for workflow_id in stock.at_work}
    deleted = []
    with _alone(config):
        if not dry_run:
            remove_rest(config.work_folder)
        for folder in sorted(config.work_folder.glob("[!.]*")):
            since = _results_since(config, folder, by_folder.get(folder.name), studies)
            if since is None or folder.name in busy or not _is_past(config, since[1], stock.now):
                continue
            if since[0] in gone or not is_held(config.spool_folder, since[0]):
                deleted.append(folder.name)
                if not dry_run:
                    remove_folder(folder)
    return deleted


def _is_past(config: Config, moment: datetime, now: datetime) -> bool:
    return moment <= now and now - moment >= timedelta(days=min(config.retention.result_days, 36500))


def _results_since(
    config: Config, folder: Path, line: LedgerLine | None, studies: Collection[str]
) -> tuple[str, datetime] | None:
    """Study and moment from which these results count as old; None: they stay."""
    if line is not None:
        is_over = line.state == "refused" or (line.state in _WITH_RESULTS and not _why_undelivered(config, line))
        return (line.study_instance_uid, line.since) if is_over else None
    file = folder / "result.json"
    if not file.is_file():
        return None
    uid = json.loads(file.read_text("utf-8")).get("study_instance_uid")
    # the ledger knows the study by a later workflow: these results are superseded
    return (uid, datetime.fromtimestamp(file.stat().st_mtime, UTC)) if uid in studies else None


def clean_commitments(config: Config, stock: Stock) -> int:
    """Delete requests for commitment that were never answered and that no workflow waits for; how many."""
    commitments, count = Commitments(config.commitments_folder), 0
    for file in sorted(config.commitments_folder.glob("*.json")):
        if not is_valid_uid(file.stem) or commitments.workflow_of(file.stem) in stock.at_work:
            continue
        if _is_past(config, datetime.fromtimestamp(file.stat().st_mtime, UTC), stock.now):
            commitments.forget(file.stem)
            count += 1
    return count


def clean_all(config: Config, stock: Stock, dry_run: bool) -> Cleaned:
    """Delete all that may go (``dry_run``: only name it).

    Raises:
        EngineError: the database does not answer.
    """
    with closing(WorkflowClient(config)) as client:

        def is_needed(uid: str) -> bool:
            orders = client.workflows("process", about={"study_instance_uid": uid})
            return any(each.engine_status in ACTIVE for each in orders)

        studies = clean(config, stock.held, dry_run, is_needed)
    results = clean_results(config, stock, studies, dry_run)
    return Cleaned(studies, results, 0 if dry_run else clean_commitments(config, stock))


def retention_round(config: Config) -> dict[str, int]:
    """Delete all that may go, if the config wants it; plain JSON counts. May run twice, and while the node runs.

    Raises:
        EngineError: the database does not answer.
    """
    if not config.retention.enabled:
        return {}
    stock = take_stock(config)
    sizes = {each.study_instance_uid: each.bytes for each in stock.held}
    cleaned = clean_all(config, stock, dry_run=False)
    forget_studies(config, stock.lines, lambda moment: _is_past(config, moment, stock.now))
    counts = {
        "studies": len(cleaned.studies),
        "bytes": sum(sizes[uid] for uid in cleaned.studies),
        "studies_held": len(stock.held) - len(cleaned.studies),
        "results": len(cleaned.results),
        "commitments": cleaned.commitments,
    }
    log.info("retention_round", **counts)
    return counts
