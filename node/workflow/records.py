"""Steps whose results are typed records, kept in the engine's database as plain JSON values.

The same type reads records of earlier versions: a field may only be added, and with a default value; unknown keys are
ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from node.errors import UnreadableRecordError
from node.workflow.serialization import why_invalid
from node.workflow.steps import Steps

R = TypeVar("R")


def recorded_step(steps: Steps, name: str, record_type: type[R], function: Callable[..., R], *arguments: Any) -> R:
    """Run the step ``name``, which calls ``function``; its result is a ``record_type``, also after a restart.

    Raises:
        UnreadableRecordError: the recorded value is no ``record_type``.
    """
    adapter: TypeAdapter[R] = TypeAdapter(record_type)

    def plain(*given: Any) -> Any:
        return adapter.dump_python(function(*given), mode="json")

    value = steps.step(name, plain, *arguments)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        text = f"engine.database: workflow {steps.workflow_id}, operation_outputs, step '{name}': {why_invalid(error)}"
        raise UnreadableRecordError(text) from None
