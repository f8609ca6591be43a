"""Entry point: ``glionode`` and ``python -m node``."""

from __future__ import annotations

from node.cli import glionode


def main() -> None:
    """Run the command line."""
    glionode(prog_name="glionode")


if __name__ == "__main__":
    main()
