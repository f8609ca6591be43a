"""One set-up of the log: an event name with key/values, the study bound as context, never patient data."""

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
    """``value`` with every UID in its texts shortened, however deep they lie."""
    if isinstance(value, str):
        return shortened(value)
    if isinstance(value, dict):
        return {key: _shortened(each) for key, each in value.items()}
    return type(value)(map(_shortened, value)) if isinstance(value, list | tuple) else value


class _LossyLogger(structlog.PrintLogger):
    """Loses a line that cannot be written, on a full disk or to a reader that is gone, instead of raising.

    Lines are logged where an error would end what must go on: the loop that takes connections, an instance being kept.
    """

    def msg(self, message: str) -> None:
        """Write one line, if that is possible."""
        with suppress(OSError, ValueError):  # ValueError: the stream was closed
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def set_up_log(section: LogSection) -> None:
    """Configure structlog on standard error. Called once, by the command line."""
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
    # these libraries repeat attribute values, patient data among them, in what they log and warn about
    for library in ("pynetdicom", "pydicom", "highdicom", "dicom2nifti"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    for library in ("pydicom", "highdicom"):
        warnings.filterwarnings("ignore", module=rf"{library}(\.|$)")


@contextmanager
def study_context(study_instance_uid: str, **more: str) -> Iterator[None]:
    """Bind the study (and more) to every event logged inside."""
    with structlog.contextvars.bound_contextvars(study_instance_uid=study_instance_uid, **more):
        yield
