"""Steps with typed results: plain values in the database, the record's type in the workflow."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pytest
from memory_steps import MemorySteps

from node.errors import UnreadableRecordError
from node.workflow.records import recorded_step


class Colour(StrEnum):
    """Anything with names."""

    RED = "red"


@dataclass(frozen=True, slots=True)
class Part:
    """A record within a record."""

    name: str


@dataclass(frozen=True, slots=True)
class Record:
    """What a step returns."""

    colour: Colour
    parts: list[Part] = field(default_factory=list)
    note: str | None = None


def read(recorded: Any) -> Record:
    """The record that a restarted worker gets from ``recorded``."""
    steps = MemorySteps([("look", json.dumps(recorded))])
    return recorded_step(steps, "look", Record, lambda: pytest.fail("the step must not run again"))


def test_the_result_is_the_record_at_first_and_after_a_restart() -> None:
    """The database holds plain JSON values; both the first run and a restarted one get the record itself."""
    record = Record(Colour.RED, [Part("one")], "kept")
    steps = MemorySteps()
    assert recorded_step(steps, "look", Record, lambda: record) == record
    ((name, text),) = steps.recorded
    assert (name, json.loads(text)) == ("look", {"colour": "red", "parts": [{"name": "one"}], "note": "kept"})
    assert read(json.loads(text)) == record


def test_records_of_other_versions_are_read() -> None:
    """A key that is missing has its default, and an unknown one is ignored."""
    assert read({"colour": "red", "unknown": 1}) == Record(Colour.RED)


@pytest.mark.parametrize("recorded", [{"colour": "blue"}, {}, None, {"colour": "red", "parts": ["one"]}])
def test_what_is_no_record_is_an_error(recorded: Any) -> None:
    """A value that the type does not allow is never guessed at; the error names workflow and step, not the value."""
    with pytest.raises(UnreadableRecordError, match=r"workflow .*, operation_outputs, step 'look': ") as error:
        read(recorded)
    assert "blue" not in str(error.value)
