"""The command ``process``: the whole pipeline on a folder of DICOM files, without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from node.cli.options import ConfigOption, StudyFolder, configure, progress_bar
from node.errors import GlionodeError, RefusedError


@click.command()
@click.argument("study_dir", type=StudyFolder)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the results.")
@click.option("--model", help="Model pack. Default: the first of segmentation.models that fits.")
@click.option("--device", help="auto, cpu, cuda or cuda:N. Default: segmentation.device of the config.")
@ConfigOption
def process(study_dir: Path, out: Path, model: str | None, device: str | None, config_file: Path | None) -> None:
    """Process one study from a folder of DICOM files. No network is used.

    Writes seg.dcm, sr.dcm, label_map.nii.gz and result.json.
    """
    from node.methods.registry import listed_cards
    from node.processing.pipeline import Pipeline
    from node.processing.request import build_request, with_first_creation_time
    from node.workflow.steps import DirectSteps

    config = configure(config_file, quiet=True, as_caller=True).with_segmentation(
        models=(model,) if model else None, device=device
    )
    listed_cards(config.segmentation.models, config.models_folder)  # a wrong name ends here, before any image is read
    from node.segmentation.enhancement import compare_enhancement
    from node.segmentation.exam_reader import ExamReader

    reader = ExamReader()
    compare = compare_enhancement if config.series.compare_images else None
    request = build_request(study_dir, config, compare=compare, why_unusable=reader.why_unusable)
    request = with_first_creation_time(request, out)
    with progress_bar() as progress:
        pipeline = Pipeline(config.without_destinations(), progress, force=True, reader=reader)
        outcome = pipeline.process(DirectSteps(), request.as_json(), str(out))
    if outcome["state"] == "refused":
        raise RefusedError(outcome["reason"])
    if outcome["state"] == "failed":
        raise GlionodeError(outcome["reason"])
    result = json.loads((out / "result.json").read_text("utf-8"))
    _print_result(result, out)


def _print_result(result: dict[str, Any], out: Path) -> None:
    table = Table("region", "volume / mL", title="Glioma segmentation (automatic; for research)")
    for region, volume in result["volumes_ml"].items():
        table.add_row(region.replace("_", " "), f"{volume:.2f}")
    Console().print(table)
    for caution in result["cautions"]:
        click.echo(f"caution: {caution}")
    click.echo(f"written to {out}: seg.dcm, sr.dcm, label_map.nii.gz, result.json")
