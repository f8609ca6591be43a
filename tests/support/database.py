"""The engine's database of a node that has started once."""

from __future__ import annotations

from node.config import Config
from node.workflow.client import WorkflowClient


def make_database(config: Config) -> None:
    """Create it without any workflow, as a receiver does at its start."""
    WorkflowClient(config).close()
