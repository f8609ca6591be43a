"""All metrics. Labels hold fixed values and names from the config, never identifiers or patient data."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class Metrics:
    """Counters and gauges of one process, in a separate registry (no global state)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.instances = Counter(
            "glionode_instances_received", "C-STORE requests by outcome", ["outcome"], registry=self.registry
        )
        self.commitment_reports = Counter(
            "glionode_commitment_reports",
            "Reports of storage commitment by the status answered",
            ["status"],
            registry=self.registry,
        )
        self.received_bytes = Counter("glionode_received_bytes", "Bytes of stored instances", registry=self.registry)
        self.associations = Gauge("glionode_associations", "Associations open now", registry=self.registry)
        self.corrections = Counter(
            "glionode_corrections", "Instances replaced by the same image with another identity", registry=self.registry
        )
        self.open_conflicts = Gauge(
            "glionode_conflicts_open", "Versions of instances that wait for a decision", registry=self.registry
        )
        self.studies = Counter("glionode_studies_started", "Workflows started", registry=self.registry)
        self.free_bytes = Gauge("glionode_spool_free_bytes", "Free bytes of the spool's disk", registry=self.registry)
        self.audit_written = Counter("glionode_audit_messages", "Audit messages written", registry=self.registry)
        self.audit_lost = Counter(
            "glionode_audit_messages_lost", "Audit messages that could not be written", registry=self.registry
        )
        self.audit_unsent = Gauge(
            "glionode_audit_unsent_bytes", "Audit trail not yet sent to the collector", registry=self.registry
        )
        self.store_seconds = Histogram(
            "glionode_store_seconds", "From C-STORE request to response", registry=self.registry
        )


class StudyCounts(Collector):
    """Studies by state, and refused studies by kind of error, counted at each scrape.

    Args:
        read: returns state and kind of every study.
    """

    def __init__(self, read: Callable[[], Iterable[tuple[str, str | None]]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """The two gauges: studies by state, and refused studies by kind of error."""
        studies = list(self._read())
        states = GaugeMetricFamily("glionode_studies", "Studies by their present state", labels=["state"])
        for state, count in sorted(Tally(state for state, _ in studies).items()):
            states.add_metric([state], count)
        yield states
        kinds = GaugeMetricFamily("glionode_studies_refused", "Refused studies by kind of error", labels=["kind"])
        refused = Tally(kind or "unknown" for state, kind in studies if state == "refused")
        for kind, count in sorted(refused.items()):
            kinds.add_metric([kind], count)
        yield kinds


class StepAges(Collector):
    """The age of the steps that workers run now, asked for at each scrape.

    Args:
        read: returns step and age in seconds of every step under way.
    """

    def __init__(self, read: Callable[[], Iterable[tuple[str, float]]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """The gauge: the oldest step of each name."""
        oldest: dict[str, float] = {}
        for step, seconds in self._read():
            oldest[step] = max(seconds, oldest.get(step, 0.0))
        ages = GaugeMetricFamily(
            "glionode_step_age_seconds", "How long the oldest running step of this name has run", labels=["step"]
        )
        for step, seconds in sorted(oldest.items()):
            ages.add_metric([step], seconds)
        yield ages
