"""One round of retention in a process of its own, which is killed when the step is over.

A thread that hangs in a disk would keep the lock of retention, and all later rounds would wait for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from node.config import Config
from node.errors import GlionodeError, UnforeseenError
from node.log import set_up_log
from node.retention.cleanup import retention_round
from node.workflow.killable_process import KillableProcess, ProcessDied, serve_calls

COMMAND = (sys.executable, "-P", "-m", "node.retention.retention_process")
"""The command line of the process."""


def killable_retention_round(config: Config, command: Sequence[str] = COMMAND) -> dict[str, int]:
    """As `node.retention.cleanup.retention_round`; returns its counts.

    Raises:
        UnforeseenError: the round failed, or its process ended; the log has the kind of error.
    """
    process = KillableProcess(command, config.model_dump_json(exclude_unset=True))
    try:
        answer = process.call("round")
    except ProcessDied as error:
        raise UnforeseenError(f"the round of retention ended: {error}") from None
    finally:
        process.stop()
    if answer["counts"] is None:
        raise UnforeseenError("the round of retention failed")
    return dict(answer["counts"])


def _functions(greeting: str) -> Mapping[str, Callable[..., Any]]:
    config = Config.model_validate_json(greeting)
    set_up_log(config.log)

    def run() -> dict[str, Any]:
        try:
            return {"counts": retention_round(config)}
        except (GlionodeError, OSError):  # logged by the round
            return {"counts": None}

    return {"round": run}


if __name__ == "__main__":
    serve_calls(int(sys.argv[1]), _functions)
