"""Decides when a study is due for processing: when it is stable, complete, or at the ceiling.

The release of an association says nothing, because one study arrives over several associations. Quiet time counts only
while the node listens: after a restart the timers start again. Other receivers may store instances of the same study:
before a study is due, its folder is read, and a series that changed since the last reading counts as received now.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from node.config_sections import AssemblySection
from node.errors import GlionodeError

log = structlog.get_logger()

_POLL_SECONDS = 0.2

T = TypeVar("T")


@dataclass(slots=True)
class _OpenStudy:
    """The timers of a study from its first instance until it is stable or at the ceiling."""

    first: float
    last_by_series: dict[str, float] = field(default_factory=dict)
    judged: set[str] = field(default_factory=set)  # quiet series at the last completeness check
    own: set[str] = field(default_factory=set)  # series that this receiver stored since the last reading
    seen: Mapping[str, int] | None = None  # result of the last reading of the study's folder
    is_handed_over: bool = False  # because it was complete
    is_open: bool = True  # some instances arrived, or were still arriving, that were not handed over

    def arrived(self, series_instance_uid: str, now: float) -> None:
        self.last_by_series[series_instance_uid] = now
        self.judged.discard(series_instance_uid)
        self.is_open = True


class Assembly:
    """Decides which studies are due. The caller passes the time, in monotonic seconds. Not thread-safe.

    A study is due once it is stable (no instance for ``stable_seconds``), or complete (``is_complete`` returns True for
    the series that were quiet for ``series_stable_seconds``, while others may still arrive), or at the ceiling
    (``ceiling_seconds`` after the first instance). Instances that arrive while or after a study is handed over as
    complete make it due once more, when it is stable. A study that is stable or at the ceiling is closed; a later
    instance opens it again.

    Args:
        is_complete: called with the study and its quiet series whenever a series became quiet; it may read files.
        read_changes: returns, for each series of a study, a number that changes whenever any receiver stores an
            instance of it.
    """

    def __init__(
        self,
        section: AssemblySection,
        is_complete: Callable[[str, frozenset[str]], bool],
        read_changes: Callable[[str], Mapping[str, int]] = lambda _: {},
    ) -> None:
        self._section = section
        self._is_complete = is_complete
        self._read_changes = read_changes
        self._open_studies: dict[str, _OpenStudy] = {}

    def instance_stored(self, study_instance_uid: str, series_instance_uid: str, now: float) -> None:
        """Note an instance received at ``now``. A duplicate counts, too: its sender is still sending."""
        study = self._open_studies.setdefault(study_instance_uid, _OpenStudy(now))
        study.arrived(series_instance_uid, now)
        study.own.add(series_instance_uid)

    def resume(self, studies_with_series: Mapping[str, Iterable[str]], now: float) -> None:
        """Note the studies in the spool after a restart, as if all their series had arrived ``now``."""
        for study_instance_uid, series in studies_with_series.items():
            for series_instance_uid in series:
                self.instance_stored(study_instance_uid, series_instance_uid, now)

    def offer_again(self, study_instance_uid: str, now: float) -> None:
        """Make a study due again whose hand-over failed: when it is stable, counted from ``now`` if it was closed."""
        self._open_studies.setdefault(study_instance_uid, _OpenStudy(now)).is_open = True

    def due(self, now: float) -> list[tuple[str, frozenset[str] | None]]:
        """Studies to be processed, each with the quiet series that make it complete; None: with all its series."""
        due: list[tuple[str, frozenset[str] | None]] = []
        for study_instance_uid, study in list(self._open_studies.items()):
            if study.own or study.seen is None:  # later changes are compared with this reading
                self._note_changes(study_instance_uid, study, now)
            if self._is_over(study, now) and not self._still_arrives(study_instance_uid, study, now):
                del self._open_studies[study_instance_uid]
                if study.is_open:
                    due.append((study_instance_uid, None))
            elif not study.is_handed_over:
                quiet = self._quiet_series_if_complete(study_instance_uid, study, now)
                if quiet is not None:
                    study.is_handed_over = True
                    study.is_open = quiet != study.last_by_series.keys()
                    due.append((study_instance_uid, quiet))
        return due

    def _note_changes(self, study_instance_uid: str, study: _OpenStudy, now: float) -> None:
        """Read the study's folder: series that changed, without an instance from here, arrived at another receiver."""
        before = study.seen
        seen, trouble = _tried(self._read_changes, study_instance_uid)
        if seen is None:  # the timers of the instances received here decide
            log.warning("changes_unknown", study_instance_uid=study_instance_uid, reason=trouble)
            seen = before or {}
        for series_instance_uid in seen.keys() - study.own:
            if before is not None and seen[series_instance_uid] != before.get(series_instance_uid):
                study.arrived(series_instance_uid, now)
        study.seen = seen
        study.own.clear()

    def _still_arrives(self, study_instance_uid: str, study: _OpenStudy, now: float) -> bool:
        """True if another receiver still stores instances of a study that is stable here."""
        self._note_changes(study_instance_uid, study, now)
        return not self._is_over(study, now)

    def _is_over(self, study: _OpenStudy, now: float) -> bool:
        last = max(study.last_by_series.values(), default=study.first)
        return now - last >= self._section.stable_seconds or now - study.first >= self._section.ceiling_seconds

    def _quiet(self, study: _OpenStudy, now: float) -> frozenset[str]:
        seconds = self._section.series_stable_seconds
        return frozenset(series for series, last in study.last_by_series.items() if now - last >= seconds)

    def _quiet_series_if_complete(
        self, study_instance_uid: str, study: _OpenStudy, now: float
    ) -> frozenset[str] | None:
        if self._quiet(study, now) <= study.judged:
            return None
        self._note_changes(study_instance_uid, study, now)
        quiet = self._quiet(study, now)
        if quiet <= study.judged:
            return None
        study.judged = set(quiet)
        is_complete, trouble = _tried(self._is_complete, study_instance_uid, quiet)
        if trouble is not None:  # not known now; the study's own timer decides
            log.warning("completeness_unknown", study_instance_uid=study_instance_uid, reason=trouble)
        return quiet if is_complete else None


def _tried(function: Callable[..., T], *arguments: object) -> tuple[T | None, str | None]:
    """The result of ``function`` and None; or None and the reason why it failed."""
    try:
        return function(*arguments), None
    except GlionodeError as error:
        return None, str(error)
    except OSError as error:  # its text may hold a path
        return None, error.strerror or type(error).__name__
    except Exception as error:  # noqa: BLE001 - a boundary: one study must not end the loop for all others
        return None, type(error).__name__


class AssemblyLoop:
    """A thread that hands over each study that an `Assembly` says is due. ``instance_stored`` is thread-safe.

    Args:
        on_ready: called with a study and the quiet series that make it complete; None: with all its series.
    """

    def __init__(
        self,
        assembly: Assembly,
        on_ready: Callable[[str, frozenset[str] | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._assembly = assembly
        self._on_ready = on_ready
        self._clock = clock
        # C-STORE must not wait for a completeness check: instances are queued for the loop's thread
        self._arrivals: queue.SimpleQueue[tuple[str, str, float]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._resumed: Mapping[str, Iterable[str]] = {}
        self._judged: Callable[[], Collection[str]] = lambda: ()
        self._thread = threading.Thread(target=self._run, name="assembly")

    @property
    def is_alive(self) -> bool:
        """False before the start, after the stop, or if an unexpected error ended the loop."""
        return self._thread.is_alive()

    def start(
        self, studies_with_series: Mapping[str, Iterable[str]], judged: Callable[[], Collection[str]] = lambda: ()
    ) -> None:
        """Start the thread with the studies in the spool.

        ``judged`` returns those of the studies whose instances were all processed before: they are not handed over.
        """
        self._resumed, self._judged = studies_with_series, judged
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it. A study that was not handed over is found in the spool at the next start."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def instance_stored(self, study_instance_uid: str, series_instance_uid: str) -> None:
        """Note an instance received now."""
        self._arrivals.put((study_instance_uid, series_instance_uid, self._clock()))

    def _run(self) -> None:
        judged, trouble = _tried(self._judged)
        if trouble is not None:  # then every study is handed over
            log.warning("judged_studies_unknown", reason=trouble)
        open_studies = {study: series for study, series in self._resumed.items() if study not in (judged or ())}
        self._assembly.resume(open_studies, self._clock())
        log.info("studies_resumed", studies=len(open_studies), judged=len(self._resumed) - len(open_studies))
        while not self._stopping.wait(_POLL_SECONDS):
            self._hand_over()

    def _hand_over(self) -> None:
        while not self._arrivals.empty():
            self._assembly.instance_stored(*self._arrivals.get())
        for study_instance_uid, series in self._assembly.due(self._clock()):
            _, trouble = _tried(self._on_ready, study_instance_uid, series)
            if trouble is not None:
                log.error("study_not_handed_over", study_instance_uid=study_instance_uid, reason=trouble)
                self._assembly.offer_again(study_instance_uid, self._clock())
