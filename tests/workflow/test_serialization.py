"""Every value that the engine keeps is a JSON record, and no record becomes code."""

from __future__ import annotations

import base64
import json
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dbos
import pytest
from old_database import Payload, pickled

from node import errors
from node.errors import DefectError, DeliveryError, SelectionRefused, SelectionUndecided, UnreadableRecordError
from node.study import Contrast, Selection, Verdict
from node.workflow.serialization import OtherError, RecordSerializer, engine_serializer
from node.workflow.states import StudyState

RECORDS = RecordSerializer()


def recorded(value: Any) -> Any:
    """The value after it was in the database."""
    return RECORDS.deserialize(RECORDS.serialize(value))


@pytest.mark.parametrize(
    "value",
    [
        None, True, 7, 0.1, "Größe \x00 \ud800", [], {}, [1, [2.5, None]], {"state": {"reason": ["a"]}},
        datetime(2026, 11, 29, 12, 30, tzinfo=UTC), float("inf"), {"args": [1], "kwargs": {"a": 1}},
    ],
)  # fmt: skip
def test_value_comes_back(value: Any) -> None:
    """JSON values, times and infinite numbers come back as they were."""
    assert recorded(value) == value


def test_arguments_come_back_as_a_tuple() -> None:
    """The engine passes on the arguments of a workflow as it gave them."""
    assert recorded({"args": ("a", [1], None), "kwargs": {}}) == {"args": ("a", [1], None), "kwargs": {}}


def test_enumeration_is_recorded_as_its_text() -> None:
    """A state is recorded as plain text, so that a later version reads it wherever the enumeration has moved."""
    assert type(recorded([StudyState.REPORTED])[0]) is str


OWN = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.GlionodeError)]


@pytest.mark.parametrize("kind", OWN)
def test_own_error_comes_back(kind: type[Exception]) -> None:
    """Each of glionode's errors keeps kind and text."""
    found = recorded(kind("no FLAIR"))
    assert (type(found), str(found)) == (kind, "no FLAIR")


def test_refusal_keeps_its_verdicts() -> None:
    """What a refused selection considered is there after a restart, for ``result.json``."""
    verdict = Verdict("1.2", 4, "t1", Contrast.T1, ("TE 10 ms",), chosen=False, note="no FLAIR")
    found = recorded(SelectionUndecided("undecided", Selection("1", {}, (verdict,))))
    assert isinstance(found, SelectionUndecided)
    assert found.considered == Selection("1", {}, (verdict,))
    assert recorded(SelectionRefused("no")).considered is None


def test_text_of_another_error_is_not_kept() -> None:
    """Of an error that is not glionode's own only the kind is kept, however often it is recorded."""

    class DeliveryError(Exception):
        """Another one of the same name."""

    assert "Doe" not in RECORDS.serialize(KeyError("Doe^Jane"))
    found = recorded(recorded(KeyError("Doe^Jane")))
    assert (type(found), str(found)) == (OtherError, "KeyError")
    assert type(recorded(DeliveryError("Doe^Jane"))) is OtherError


@pytest.mark.parametrize("value", [{1: "a"}, {"$datetime": "x"}, {1, 2}, b"a", Path("a"), DeliveryError])
def test_value_without_a_form_is_a_defect(value: Any) -> None:
    """What is no plain value is refused when it is recorded, and named by its type, not by its content."""
    with pytest.raises(DefectError):
        RECORDS.serialize({"list": [value]})


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "7", '"text"', "[]", "{}", "{", '{"value":1,"call":[]}', '{"other":1}', '{"call":{}}',
        '{"error":"KeyError"}', '{"error":{"kind":7}}', '{"error":{"kind":"a b","text":"c"}}', "[" * 100_000,
        '{"value":{"$datetime":"yesterday"}}', '{"value":{"$float":[]}}',
        '{"error":{"kind":"SelectionRefused","text":"no","considered":{"chosen":7}}}', pickled({"value": 1}),
    ],
)  # fmt: skip
def test_other_text_is_unreadable(text: str) -> None:
    """Text that is no record is an error, never another value."""
    with pytest.raises(UnreadableRecordError):
        RECORDS.deserialize(text)


def test_error_that_a_record_names_is_never_imported() -> None:
    """A record can name glionode's own errors and no other class: any other name stays a name."""
    found = RECORDS.deserialize('{"error":{"kind":"SystemExit","text":"bye"}}')
    assert (type(found), str(found)) == (OtherError, "SystemExit")


def test_engine_unpickles_nothing(tmp_path: Path) -> None:
    """A row that names the engine's own form is refused, and its pickle is not run; without glionode it would be."""
    flag = tmp_path / "flag"
    text = pickled(Payload(flag))
    serializer = engine_serializer()
    for read in (dbos._serialization.deserialize_value, dbos._serialization.deserialize_exception):
        for form in ("py_pickle", None):
            with pytest.raises(UnreadableRecordError):
                read(text, form, serializer)
    with pytest.raises(UnreadableRecordError):
        dbos._serialization.deserialize_args(text, "py_pickle", serializer)
    assert not flag.exists()
    pickle.loads(base64.b64decode(text)).close()
    assert flag.exists()


def test_engine_has_one_place_that_unpickles() -> None:
    """The engine's source reads pickles in the one method that is replaced: a release with another fails here."""
    sources = Path(dbos.__file__).parent.rglob("*.py")
    lines = [
        (file.name, line.strip())
        for file in sources
        for line in file.read_text("utf-8").splitlines()
        if any(word in line for word in ("pickle.load", "import pickle", "jsonpickle", "dill", "marshal.load"))
    ]
    assert lines == [("_serialization.py", "import pickle"), ("_serialization.py", "return pickle.loads(pickled_data)")]


def test_records_are_small() -> None:
    """The form adds a few characters only."""
    assert RECORDS.serialize({"state": "reported"}) == '{"value":{"state":"reported"}}'
    assert json.loads(RECORDS.serialize(DeliveryError("no"))) == {"error": {"kind": "DeliveryError", "text": "no"}}
