"""The log may be lost; what logs goes on."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
import structlog

from node.config_sections import LogSection
from node.log import set_up_log


@pytest.fixture
def set_up(monkeypatch):
    """Configure the log on a stream, and undo it."""
    before = structlog.get_config()

    def on(stream, **section):
        monkeypatch.setattr(sys, "stderr", stream)
        set_up_log(LogSection(**section))

    yield on
    structlog.configure(**before)


@pytest.mark.parametrize("form", ["console", "json"])
def test_line_goes_to_standard_error(set_up, form):
    """An event is one line with its values, in either form."""
    stream = io.StringIO()
    set_up(stream, format=form)
    structlog.get_logger().warning("something_happened", count=3)
    assert len(stream.getvalue().splitlines()) == 1
    assert "something_happened" in stream.getvalue()


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical", "exception"])
def test_line_that_cannot_be_written_is_lost(set_up, level):
    """A line for a reader that is gone is no error for whoever logs it, at any level, nor are those after it."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1) as stream:  # noqa: PTH123 - a descriptor
        set_up(stream, level="debug")
        for _ in range(3):
            getattr(structlog.get_logger(), level)("something_happened", text="x" * 9000)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, writer)  # what is still buffered goes there
        os.close(null)


def test_line_on_a_full_disk_is_lost():
    """A process whose log cannot be written (a full disk) does its work to the end."""
    program = (
        "import structlog; from node.log import set_up_log; from node.config_sections import LogSection;"
        "set_up_log(LogSection()); [structlog.get_logger().error('x' * 9000) for _ in range(9)]; print('done')"
    )
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, text=True, timeout=60, check=False
        )
    assert done.stdout == "done\n"
