"""``glionode`` called inside the test's process, without what a command leaves behind in it."""

from __future__ import annotations

import logging
import os

import structlog
from click.testing import CliRunner, Result

from node.cli.main import glionode

_SILENCED = ("pynetdicom", "pydicom", "highdicom", "dicom2nifti")  # by the command's log set-up


def run_glionode(*arguments: object, env: dict[str, str] | None = None) -> Result:
    """Run a command. ``exit_code`` and ``output`` as a shell sees them; an exception that escapes fails the test."""
    levels = {name: logging.getLogger(name).level for name in _SILENCED}
    umask = os.umask(0o022)
    try:
        result = CliRunner(env=env).invoke(glionode, [str(argument) for argument in arguments])
    finally:
        os.umask(umask)
        structlog.reset_defaults()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
