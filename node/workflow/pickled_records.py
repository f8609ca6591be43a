"""Reads the pickled records of glionode 0.1.0 without running what they name. Only the migration does so.

A pickle names classes and functions, and the ordinary reader imports and calls them. This one imports nothing: it knows
the three classes of the standard library that a time consists of, and has stand-ins for all other names that records of
0.1.0 hold. A stand-in keeps its arguments and does nothing else.
"""

from __future__ import annotations

import base64
import binascii
import io
import pickle
from datetime import datetime, timedelta, timezone
from typing import Any

from node.errors import DefectError, UnreadableRecordError
from node.workflow.serialization import RecordSerializer, error_record, record_text

_TIMES = {("datetime", each.__name__): each for each in (datetime, timedelta, timezone)}
_STATUS = ("dbos._sys_db", "WorkflowStatus")
_FAULTS = (
    pickle.UnpicklingError, binascii.Error, EOFError, AttributeError, IndexError, KeyError, TypeError, ValueError,
    OverflowError, MemoryError, RecursionError, DefectError,
)  # fmt: skip
"""What is raised for bytes that are no pickle, for one that may not be read, and for a value that has no form."""


class _StandIn:
    """In place of an object of a class that is not imported."""

    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *arguments: Any) -> _StandIn:
        made = super().__new__(cls)
        made.arguments = arguments
        return made

    def __init__(self, *_: Any) -> None:
        """Nothing: ``__new__`` keeps the arguments."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reader(pickle.Unpickler):
    """``is_error``: the record is an error, of any class; only its name is used."""

    def __init__(self, pickled: bytes, is_error: bool) -> None:
        super().__init__(io.BytesIO(pickled))
        self._is_error = is_error

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The class, or a stand-in for it; never an import."""
        name = (module_name, global_name)
        if name in _TIMES:
            return _TIMES[name]
        if name == _STATUS or self._is_error:
            return type(global_name.rpartition(".")[2], (_StandIn,), {"named": name})
        raise pickle.UnpicklingError("a name that no record of glionode 0.1.0 holds")


def record_of_pickle(text: str, is_error: bool = False) -> str:
    """The record of this version for a pickled value of 0.1.0, or for an error of which kind and text are kept.

    Raises:
        UnreadableRecordError: it is no value that glionode 0.1.0 recorded.
    """
    try:
        value = _Reader(base64.b64decode(text, validate=True), is_error).load()
        if is_error:
            return _error_of(value)
        return RecordSerializer().serialize(_plain(value))
    except _FAULTS:
        raise UnreadableRecordError("it is no record of glionode 0.1.0") from None


def _error_of(value: Any) -> str:
    if not isinstance(value, _StandIn) or not type(value).__name__.isidentifier():
        raise ValueError("no error")
    text = value.arguments[0] if value.arguments and isinstance(value.arguments[0], str) else None
    own = type(value).named[0] == "node.errors"  # type: ignore[attr-defined]
    return record_text(error_record(type(value).__name__, text if own else None))


def _plain(value: Any) -> Any:
    """The value without stand-ins: of a workflow's status, 0.1.0 used the attributes only."""
    if isinstance(value, _StandIn):
        state = value.state if isinstance(value.state, dict) else {}
        return {"attributes": state.get("attributes") or {}, "priority": None}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict) and value.keys() == {"args", "kwargs"}:
        return {"args": tuple(_plain(each) for each in value["args"]), "kwargs": value["kwargs"]}
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, dict) else value
