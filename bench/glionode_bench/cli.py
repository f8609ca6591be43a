"""``glionode bench``: the benchmarks of docs/performance.md, as a command that this distribution adds to glionode."""

from __future__ import annotations

import click

from node.cli.lazy_group import Deferred, LazyGroup

COMMANDS = {
    "cascade": Deferred(
        "glionode_bench.commands:bench_cascade",
        "Measure wall and CPU seconds, peak memory and speed of each form of the cascade, and their ratio in one run.",
    ),
    "plausibility": Deferred(
        "glionode_bench.commands:bench_plausibility",
        "Measure how often a deliberate lie in an exam is found, and how often an honest exam is doubted.",
    ),
    "receive": Deferred(
        "glionode_bench.commands:bench_receive",
        "Compare the receiver with DCMTK's storescp, measure the cost of flushing to disk, and the receiver's memory.",
    ),
    "scale": Deferred(
        "glionode_bench.commands:bench_scale",
        "Measure lists, page, start and orders of a node that has processed many studies.",
    ),
    "series": Deferred(
        "glionode_bench.commands:bench_series",
        "Measure how often the word rules find the right contrast, also with whole groups left out, and how fast.",
    ),
    "start": Deferred(
        "glionode_bench.commands:bench_start",
        "Measure how long each short command takes from its start to its end, beside Python alone.",
    ),
    "surgery": Deferred(
        "glionode_bench.commands:bench_surgery",
        "Measure how often traces of surgery are found where they were made, and where there are none.",
    ),
    # processes that the benchmarks start
    "form": Deferred("glionode_bench.commands:bench_form"),
    "receiver": Deferred("glionode_bench.commands:bench_receiver"),
    "select": Deferred("glionode_bench.commands:bench_select"),
    "worker": Deferred("glionode_bench.commands:bench_worker_process"),
}
"""Each command's place, and its summary, which the command's own help begins with."""


@click.group(cls=LazyGroup, deferred=COMMANDS)
def bench() -> None:
    """The benchmarks of docs/performance.md."""
