"""Separates errors of a step that may pass (the study is retried) from programming errors (the study has failed)."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from node.errors import DefectError, GlionodeError, UnforeseenError

T = TypeVar("T")

_OWN_CODE = Path(__file__).parents[1]


def guarded(function: Callable[..., T], *arguments: Any) -> T:
    """Call ``function``; turn an error that is not glionode's own into one that says whether to retry the study.

    Raises:
        GlionodeError: what ``function`` raised.
        UnforeseenError: an error of disk, memory or device, which may pass.
        DefectError: any other error.
    """
    try:
        return function(*arguments)
    except GlionodeError:
        raise
    except OSError as error:
        raise UnforeseenError(f"{error.filename or 'the disk'}: {error.strerror or type(error).__name__}") from None
    except Exception as error:  # noqa: BLE001 - an error in one study must not end the worker
        # the error's text may repeat a header's value, so only its kind and place are reported
        text = f"{type(error).__name__} in {_place(error)}"
        raise (UnforeseenError(text) if may_pass(error) else DefectError(text)) from None


def may_pass(error: Exception) -> bool:
    """True for errors that memory, device or driver may cause; all others are caused by the program or the input.

    torch and SimpleITK raise RuntimeError for a device that ran out of memory or was lost, but for other errors, too.
    """
    is_defect = isinstance(error, NotImplementedError | RecursionError)
    return isinstance(error, MemoryError | RuntimeError) and not is_defect


def _place(error: Exception) -> str:
    """File and line that raised ``error``; if they are a library's, also the line of glionode that called it."""
    frames = traceback.extract_tb(error.__traceback__)
    raised = frames[-1]
    place = f"{Path(raised.filename).name}:{raised.lineno}"
    own = [each for each in frames if Path(each.filename).is_relative_to(_OWN_CODE) and each.filename != __file__]
    if not own or own[-1] is raised:
        return place
    return f"{place}, called from {Path(own[-1].filename).relative_to(_OWN_CODE).as_posix()}:{own[-1].lineno}"
