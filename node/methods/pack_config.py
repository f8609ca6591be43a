"""JSON files of packs: read as data, checked against what a method needs of them."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from node.errors import ModelPackError
from node.methods.card_fields import first_fault


class PackConfig(BaseModel):
    """A part of a config of other software. Types are not converted; keys without a meaning here are left alone."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


C = TypeVar("C", bound=PackConfig)


def read_json(content: bytes, path: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: names the file in errors.

    Raises:
        ModelPackError: it is no JSON, or holds no object.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelPackError(f"{path}: not JSON ({type(error).__name__})") from None
    if not isinstance(values, dict):
        raise ModelPackError(f"{path}: an object is wanted")
    return values


def checked(values: dict[str, Any], path: str, wanted: type[C], key: str = "") -> C:
    """``values``, which lie at ``key`` of the file ``path`` (empty: all of it), as ``wanted``.

    Raises:
        ModelPackError: a key is missing, or its value is none that is supported; the text names file and key.
    """
    try:
        return wanted.model_validate_json(json.dumps(values))  # as JSON, in which a list is a tuple even if strict
    except ValidationError as error:
        raise ModelPackError(f"{path}: {key}{'.' * bool(key)}{first_fault(error)}") from None
