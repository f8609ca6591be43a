"""The set-up of the log. Each event has a name, key/values and the study as context, and never holds patient data."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any

import structlog

from node.config_sections import LogSection
from node.dicom.uids import shortened

_UID_KEYS = ("study_instance_uid", "series_instance_uid", "sop_instance_uid")


def _hide_uids(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in _UID_KEYS:
        if key in event:
            event[key] = "hidden"
    return {key: _shortened(value) for key, value in event.items()}


def _shortened(value: Any) -> Any:
    """``value`` with every UID in its texts shortened, at any depth of nesting."""
    if isinstance(value, str):
        return shortened(value)
    if isinstance(value, dict):
        return {key: _shortened(each) for key, each in value.items()}
    return type(value)(map(_shortened, value)) if isinstance(value, list | tuple) else value


class _LossyLogger(structlog.PrintLogger):
    """Drops a line that cannot be written, because the disk is full or the reader is gone, instead of raising an error.

    An error of the log must not end the loop that accepts connections, or the storage of an instance.
    """

    def msg(self, message: str) -> None:
        """Write one line if possible."""
        with suppress(OSError, ValueError):  # ValueError: the stream was closed
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def set_up_log(section: LogSection) -> None:
    """Configure structlog to write to standard error. The command line calls this once."""
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    is_json = section.format == "json"
    if is_json:
        processors.append(structlog.processors.dict_tracebacks)
    if section.hide_uids:
        processors.append(_hide_uids)
    if is_json:
        processors.append(structlog.processors.JSONRenderer())
    else:
        processors.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, section.level.upper())),
        logger_factory=lambda *_: _LossyLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # The log messages and warnings of these libraries repeat attribute values, which may be patient data.
    for library in ("pynetdicom", "pydicom", "highdicom", "dicom2nifti"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    for library in ("pydicom", "highdicom"):
        warnings.filterwarnings("ignore", module=rf"{library}(\.|$)")


@contextmanager
def study_context(study_instance_uid: str, **more: str) -> Iterator[None]:
    """Add the study, and the keys of ``more``, to every event logged within the block."""
    with structlog.contextvars.bound_contextvars(study_instance_uid=study_instance_uid, **more):
        yield
