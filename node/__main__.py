"""Entry point: ``glionode`` and ``python -m node``."""

from __future__ import annotations

import os

from node.cli.main import glionode


def main() -> None:
    """Run the command line."""
    # Read when torch loads OpenMP: threads that wait must sleep. Layers are short, and spinning between them took up to
    # ten times the CPU seconds of the work itself whenever something else ran (docs/performance.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    glionode(prog_name="glionode")


if __name__ == "__main__":
    main()
