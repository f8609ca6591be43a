"""The two files of a worker in the node's folder: a lock that it holds, and a file that is there until it stops.

``<worker>.lock`` keeps a second worker of the same name away. ``<worker>.alive`` remains after a crash only (see
`crash_counter`). Several hosts may share the folder if its file system shows the locks of one host to the others, as
NFS does.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from node.errors import ConfigError

WORKER_ROLE = "work"

_LOCK, _ALIVE = ".lock", ".alive"
# Held while a worker opens and locks its own file, and while files are removed: else a worker could lock a file that
# another process is just removing, and a third one would lock a new file of the same name.
_GUARD = "workers.lock"


@contextmanager
def worker_lock(folder: Path, worker: str) -> Iterator[None]:
    """Hold the worker's lock until the block ends.

    Raises:
        ConfigError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with (folder / _GUARD).open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            handle = stack.enter_context((folder / f"{worker}{_LOCK}").open("w"))
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"node.folder: another worker runs here ({worker}{_LOCK} is locked)") from None
        yield


def alive_file(folder: Path, worker: str) -> Path:
    """The file that is there as long as the worker runs, and after a crash."""
    return folder / f"{worker}{_ALIVE}"


def workers_with_files(folder: Path) -> set[str]:
    """The workers that have a lock file or an alive file."""
    return {file.stem for suffix in (_LOCK, _ALIVE) for file in folder.glob(f"*-{WORKER_ROLE}-*{suffix}")}


def remove_files(folder: Path, worker: str, is_needed: Callable[[], bool]) -> bool:
    """Remove the worker's files unless the worker runs or starts, or ``is_needed`` returns True.

    ``is_needed`` is called while the worker cannot start. Returns whether the files are gone.
    """
    with ExitStack() as stack:
        try:
            guard = stack.enter_context((folder / _GUARD).open("w"))
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock = folder / f"{worker}{_LOCK}"
            fcntl.flock(stack.enter_context(lock.open("a")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if is_needed():
            return False
        alive_file(folder, worker).unlink(missing_ok=True)
        lock.unlink()
        return True
