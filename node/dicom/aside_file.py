"""Writes a file so that a reader finds the old content or the new one, never a part of either."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_aside(file: Path) -> Iterator[Path]:
    """A path beside ``file`` for new content, which replaces ``file`` when the block ends without an error.

    No other process writes to that path: an attempt that still runs when the next one has begun cannot mix its bytes
    with the other's. After an error the new content is deleted. The path keeps the ending of ``file``.
    """
    aside = file.with_name(f".part.{uuid.uuid4().hex}.{file.name}")
    try:
        yield aside
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)
