"""When a study is offered for processing: stable, complete, or at the ceiling.

An association's release means nothing, for one study arrives in several. Quiet time counts only while the node was
listening: after a restart the timers start anew. Other receivers may write into the same study: before its time is up,
the study is looked at, and what changed there since the last look counts as if it had arrived just now.
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
class _Round:
    """From a study's first instance until it is stable or at the ceiling."""

    first: float
    last_by_series: dict[str, float] = field(default_factory=dict)
    judged: set[str] = field(default_factory=set)  # quiet series that completeness was last asked of
    own: set[str] = field(default_factory=set)  # series that came here since the last look
    seen: Mapping[str, int] | None = None  # what the last look saw
    is_handed_over: bool = False  # as complete
    is_open: bool = True  # something came, or was still coming, that was not handed over

    def arrived(self, series_instance_uid: str, now: float) -> None:
        self.last_by_series[series_instance_uid] = now
        self.judged.discard(series_instance_uid)
        self.is_open = True


class Assembly:
    """Which studies are due. Time is passed in, in monotonic seconds. For one thread.

    A study is due once it is stable (no instance for ``stable_seconds``), or complete (``is_complete`` says so of its
    series that were quiet for ``series_stable_seconds``, while others may still arrive), or at the ceiling
    (``ceiling_seconds`` after the first instance). What arrives beside or after a study handed over as complete makes
    it due once more, when it is stable. Being stable or at the ceiling ends the round; a later instance starts another.

    Args:
        is_complete: asked with the study and its quiet series whenever those grew; it may read files.
        look: gives for each series of a study a number that differs once anybody stored an instance of it.
    """

    def __init__(
        self,
        section: AssemblySection,
        is_complete: Callable[[str, frozenset[str]], bool],
        look: Callable[[str], Mapping[str, int]] = lambda _: {},
    ) -> None:
        self._section = section
        self._is_complete = is_complete
        self._look = look
        self._rounds: dict[str, _Round] = {}

    def instance_stored(self, study_instance_uid: str, series_instance_uid: str, now: float) -> None:
        """An instance was received at ``now``, be it new or a duplicate: its sender is still at work."""
        assembled = self._rounds.setdefault(study_instance_uid, _Round(now))
        assembled.arrived(series_instance_uid, now)
        assembled.own.add(series_instance_uid)

    def resume(self, studies_with_series: Mapping[str, Iterable[str]], now: float) -> None:
        """Take up what the spool holds after a restart, as if it had all arrived ``now``."""
        for study_instance_uid, series in studies_with_series.items():
            for series_instance_uid in series:
                self.instance_stored(study_instance_uid, series_instance_uid, now)

    def offer_again(self, study_instance_uid: str, now: float) -> None:
        """Make a study that was not taken over due once more, when it is stable (counted from ``now`` if it was)."""
        self._rounds.setdefault(study_instance_uid, _Round(now)).is_open = True

    def due(self, now: float) -> list[tuple[str, frozenset[str] | None]]:
        """Studies to be processed, each with the quiet series that it is complete with; None: with all it has."""
        due: list[tuple[str, frozenset[str] | None]] = []
        for study_instance_uid, assembled in list(self._rounds.items()):
            if assembled.own or assembled.seen is None:  # from here on, other changes are to be seen
                self._see(study_instance_uid, assembled, now)
            if self._is_over(assembled, now) and not self._goes_on(study_instance_uid, assembled, now):
                del self._rounds[study_instance_uid]
                if assembled.is_open:
                    due.append((study_instance_uid, None))
            elif not assembled.is_handed_over:
                quiet = self._quiet_series_if_complete(study_instance_uid, assembled, now)
                if quiet is not None:
                    assembled.is_handed_over = True
                    assembled.is_open = quiet != assembled.last_by_series.keys()
                    due.append((study_instance_uid, quiet))
        return due

    def _see(self, study_instance_uid: str, assembled: _Round, now: float) -> None:
        """Look at the study; what changed, other than what came here, arrived at another receiver."""
        before = assembled.seen
        seen, trouble = _tried(self._look, study_instance_uid)
        if seen is None:  # the timers of what came here decide
            log.warning("changes_unknown", study_instance_uid=study_instance_uid, reason=trouble)
            seen = before or {}
        for series_instance_uid in seen.keys() - assembled.own:
            if before is not None and seen[series_instance_uid] != before.get(series_instance_uid):
                assembled.arrived(series_instance_uid, now)
        assembled.seen = seen
        assembled.own.clear()

    def _goes_on(self, study_instance_uid: str, assembled: _Round, now: float) -> bool:
        """True if a study whose time is up goes on arriving elsewhere."""
        self._see(study_instance_uid, assembled, now)
        return not self._is_over(assembled, now)

    def _is_over(self, assembled: _Round, now: float) -> bool:
        last = max(assembled.last_by_series.values(), default=assembled.first)
        return now - last >= self._section.stable_seconds or now - assembled.first >= self._section.ceiling_seconds

    def _quiet(self, assembled: _Round, now: float) -> frozenset[str]:
        seconds = self._section.series_stable_seconds
        return frozenset(series for series, last in assembled.last_by_series.items() if now - last >= seconds)

    def _quiet_series_if_complete(
        self, study_instance_uid: str, assembled: _Round, now: float
    ) -> frozenset[str] | None:
        if self._quiet(assembled, now) <= assembled.judged:
            return None
        self._see(study_instance_uid, assembled, now)
        quiet = self._quiet(assembled, now)
        if quiet <= assembled.judged:
            return None
        assembled.judged = set(quiet)
        is_complete, trouble = _tried(self._is_complete, study_instance_uid, quiet)
        if trouble is not None:  # not to be judged now; the study's own timer decides
            log.warning("completeness_unknown", study_instance_uid=study_instance_uid, reason=trouble)
        return quiet if is_complete else None


def _tried(function: Callable[..., T], *arguments: object) -> tuple[T | None, str | None]:
    """What ``function`` returns; or None, and why it failed."""
    try:
        return function(*arguments), None
    except GlionodeError as error:
        return None, str(error)
    except OSError as error:  # its text may name a file
        return None, error.strerror or type(error).__name__
    except Exception as error:  # noqa: BLE001 - a boundary: one study must not end the loop for all others
        return None, type(error).__name__


class AssemblyLoop:
    """Asks an `Assembly` what is due, and hands each study over. ``instance_stored`` may be called by any thread.

    Args:
        on_ready: takes a study over, with the quiet series that it is complete with; None: with all it has.
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
        # receiving must not wait for a completeness check: arrivals queue up for the loop's thread
        self._arrivals: queue.SimpleQueue[tuple[str, str, float]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._resumed: Mapping[str, Iterable[str]] = {}
        self._settled: Callable[[], Collection[str]] = lambda: ()
        self._thread = threading.Thread(target=self._run, name="assembly")

    @property
    def is_alive(self) -> bool:
        """False before the start, after the stop, or if an unforeseen error ended the loop."""
        return self._thread.is_alive()

    def start(
        self, studies_with_series: Mapping[str, Iterable[str]], settled: Callable[[], Collection[str]] = lambda: ()
    ) -> None:
        """Take up what the spool holds and begin.

        ``settled`` says of which of these studies everything was judged already: they do not keep new ones waiting.
        """
        self._resumed, self._settled = studies_with_series, settled
        self._thread.start()

    def stop(self) -> None:
        """End the loop and wait for it. What was not yet handed over is found again in the spool."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def instance_stored(self, study_instance_uid: str, series_instance_uid: str) -> None:
        """An instance was received just now."""
        self._arrivals.put((study_instance_uid, series_instance_uid, self._clock()))

    def _run(self) -> None:
        settled, trouble = _tried(self._settled)
        if trouble is not None:  # each is judged anew, then
            log.warning("settled_studies_unknown", reason=trouble)
        open_studies = {study: series for study, series in self._resumed.items() if study not in (settled or ())}
        self._assembly.resume(open_studies, self._clock())
        log.info("studies_resumed", studies=len(open_studies), settled=len(self._resumed) - len(open_studies))
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
