"""The metrics, once. Labels hold names from the config and fixed words, never identifiers or patient data."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Counters and gauges of one process, on a registry of their own (no global state)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.instances = Counter(
            "glionode_instances_received", "C-STORE requests by outcome", ["outcome"], registry=self.registry
        )
        self.received_bytes = Counter("glionode_received_bytes", "Bytes of stored instances", registry=self.registry)
        self.associations = Gauge("glionode_associations", "Associations open now", registry=self.registry)
        self.studies = Counter("glionode_studies_started", "Workflows started", registry=self.registry)
        self.free_bytes = Gauge("glionode_spool_free_bytes", "Free bytes of the spool's disk", registry=self.registry)
        self.store_seconds = Histogram(
            "glionode_store_seconds", "From C-STORE request to response", registry=self.registry
        )
