"""How processes that a test starts are ended."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STOP_SECONDS = 120.0


@contextmanager
def stopped_in_the_end(process: subprocess.Popen[bytes], log_file: Path) -> Iterator[None]:
    """``process`` ends by SIGTERM and with status 0 unless the block has ended it; a failure shows its log's end."""
    try:
        yield
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(_STOP_SECONDS) == 0
    except BaseException as error:
        error.add_note(f"the worker's log ends:\n{log_file.read_text('utf-8')[-4000:]}")
        raise
    finally:
        process.kill()
        process.wait()
