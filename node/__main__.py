"""Entry point: ``glionode`` and ``python -m node``."""

from __future__ import annotations

import os

from node.cli.main import glionode


def main() -> None:
    """Run the command line."""
    # OpenMP reads this when torch loads it: waiting threads must sleep. Layers are short, and on a busy machine threads
    # that spin between layers took up to ten times the CPU seconds of the work itself (docs/performance.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # pydantic reads this when the config's classes are made: else it looks through every installed distribution, which
    # takes a tenth of a short command's time, and lets any of them change how the config is read.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    glionode(prog_name="glionode")


if __name__ == "__main__":
    main()
