"""The levels by which studies wait: their names and numbers."""

from __future__ import annotations

from node.workflow.states import NORMAL_PRIORITY

LEVELS = {"urgent": 10, "high": 20, "normal": NORMAL_PRIORITY, "low": 40}
"""The named levels; any other number from 1 may be given as it is."""

BY_HAND = "priority_by_hand"
"""Attribute of a workflow: the number that an admin gave it; later requests of the study have it, too."""


def priority_of_level(level: str | int) -> int:
    """The number of a level."""
    return LEVELS[level] if isinstance(level, str) else level


def level_of_priority(priority: int) -> str:
    """The name of a number, or the number as text."""
    return next((name for name, number in LEVELS.items() if number == priority), str(priority))
