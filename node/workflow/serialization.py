"""The form of every value in the engine's database: JSON records that no reading turns into code.

::

    {"value": ...}                                a result, a message or an event
    {"call": [...]}                               the arguments of a workflow
    {"error": {"kind": ..., "text": ...}}         one of glionode's own errors
    {"error": {"kind": ...}}                      any other error, whose text may repeat a header's value

Values are plain JSON. Two kinds that JSON lacks are objects of one key: ``{"$datetime": ISO 8601}``, which the engine
needs for its schedules, and ``{"$float": "nan"}``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn, cast

from pydantic import TypeAdapter, ValidationError

from node import errors
from node.errors import DefectError, GlionodeError, SelectionRefused, UnreadableRecordError
from node.study import Selection

if TYPE_CHECKING:
    from dbos import Serializer

FORMAT_NAME = "glionode_json"
"""The name that the engine writes beside each record of this form."""

_LONGEST_KIND = 100
_FOREIGN = "it is no record of this version of glionode"


class OtherError(Exception):
    """A recorded error that is not glionode's own; ``str(error)`` is its kind."""


class RecordSerializer:
    """The engine's interface to this form."""

    def name(self) -> str:
        """The name of the form."""
        return FORMAT_NAME

    def serialize(self, data: Any) -> str:
        """The record of ``data``: an error, the arguments of a workflow, or any other value.

        Raises:
            DefectError: a value is of a type that has no form; the text names the type, never the value.
        """
        if isinstance(data, BaseException):
            record: dict[str, Any] = {"error": _error_as_json(data)}
        elif isinstance(data, dict) and data.keys() == {"args", "kwargs"} and not data["kwargs"]:
            record = {"call": [_as_json(each) for each in data["args"]]}
        else:
            record = {"value": _as_json(data)}
        return record_text(record)

    def deserialize(self, serialized_data: str) -> Any:
        """What `serialize` was given; tuples are lists.

        Raises:
            UnreadableRecordError: the text is no record of this form.
        """
        try:
            record = json.loads(serialized_data)
            ((form, content),) = record.items()
            if form == "value":
                return _from_json(content)
            if form == "call" and isinstance(content, list):
                return {"args": tuple(_from_json(each) for each in content), "kwargs": {}}
            if form == "error":
                return _error_from_json(content)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            pass
        raise UnreadableRecordError(_FOREIGN)


def record_text(record: dict[str, Any]) -> str:
    """A record as the database holds it."""
    return json.dumps(record, allow_nan=False, separators=(",", ":"))


def engine_serializer() -> Serializer:
    """The serializer for the engine. From now on, the engine of this process unpickles nothing.

    The engine reads a row by the name of the form that stands in the row itself. A row that names the engine's own
    form would be unpickled, whatever serializer it was given, and unpickling runs code that whoever wrote the row
    chose. There is no setting for this, so the method that would do it is replaced.
    """
    from dbos import _serialization

    reader: Any = _serialization.DefaultSerializer
    reader.deserialize = _refuse_to_unpickle
    return cast("Serializer", RecordSerializer())


def _refuse_to_unpickle(_serializer: Any, _serialized_data: str) -> NoReturn:
    raise UnreadableRecordError("it is pickled, and glionode unpickles nothing")


def read_attributes(text: Any) -> Any:
    """The column ``attributes`` of a workflow, as the engine is to read it; a text if it is no JSON.

    The engine reads many rows at once, and an error of one would be an error for all. `WorkflowRecord` names the text,
    which no attributes are.
    """
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return "it is no JSON"


@cache
def _own_errors() -> dict[str, type[GlionodeError]]:
    """Every error of `node.errors`, by its name: the only classes that a record can name."""
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, GlionodeError)]
    return {each.__name__: each for each in found}


_SELECTIONS: TypeAdapter[Selection | None] = TypeAdapter(Selection | None)


def error_record(kind: str, text: str | None = None) -> dict[str, Any]:
    """The record of an error of which only kind and text are known."""
    return {"error": {"kind": kind, "text": text} if kind in _own_errors() and text is not None else {"kind": kind}}


def _error_as_json(error: BaseException) -> dict[str, Any]:
    kind = str(error) if isinstance(error, OtherError) else type(error).__name__
    if _own_errors().get(kind) is not type(error):
        return {"kind": kind}
    content: dict[str, Any] = {"kind": kind, "text": str(error)}
    if isinstance(error, SelectionRefused) and error.considered is not None:
        content["considered"] = _SELECTIONS.dump_python(error.considered, mode="json")
    return content


def _error_from_json(content: Mapping[str, Any]) -> Exception:
    kind, text = content["kind"], content.get("text")
    if not isinstance(kind, str) or not kind.isidentifier() or len(kind) > _LONGEST_KIND:
        raise ValueError("no kind of error")
    if kind not in _own_errors() or not isinstance(text, str):
        return OtherError(kind)
    own = _own_errors()[kind]
    if issubclass(own, SelectionRefused):
        return own(text, _SELECTIONS.validate_python(content.get("considered")))
    return own(text)


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, list | tuple):
        return [_as_json(each) for each in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {str(key): _as_json(each) for key, each in value.items()}
        raise DefectError("a key of a record is no text, or begins with a dollar sign")
    raise DefectError(f"a record holds a {type(value).__name__}, which is no plain value")


def _from_json(content: Any) -> Any:
    if isinstance(content, list):
        return [_from_json(each) for each in content]
    if not isinstance(content, dict):
        return content
    if "$datetime" in content:
        return datetime.fromisoformat(content["$datetime"])
    if "$float" in content:
        return float(content["$float"])
    return {key: _from_json(each) for key, each in content.items()}


def why_invalid(error: ValidationError) -> str:
    """Place and kind of the first fault of a record, without the value that is there."""
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'the record'}: {first['type']}"
