"""The selection for humans and for scripts."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from node.study import Selection


def selection_as_dict(selection: Selection) -> dict[str, Any]:
    """The selection as plain JSON values; stable: keys are only ever added.

    ``chosen`` maps T1, T1c, T2, FLAIR to Series Instance UIDs; ``series`` lists every series of the study with its
    verdict (``contrast`` is null for anything else), evidence and note; ``cautions`` are sentences.
    """
    return {
        "study_instance_uid": selection.study_instance_uid,
        "chosen": {str(contrast): series.series_instance_uid for contrast, series in selection.chosen.items()},
        "series": [
            {
                "series_instance_uid": verdict.series_instance_uid,
                "series_number": verdict.series_number,
                "series_description": verdict.series_description,
                "contrast": str(verdict.contrast) if verdict.contrast else None,
                "chosen": verdict.chosen,
                "evidence": list(verdict.evidence),
                "note": verdict.note,
            }
            for verdict in selection.verdicts
        ],
        "cautions": list(selection.cautions),
    }


def selection_table(selection: Selection) -> Table:
    """One row per series: number, description, verdict, evidence, chosen or why not. Text is never read as markup."""
    table = Table(title="Which series is which", caption="; ".join(selection.cautions) or None)
    for column in ("series", "description", "verdict", "evidence", "chosen, or why not"):
        table.add_column(column, justify="right" if column == "series" else "left")
    for verdict in selection.verdicts:
        table.add_row(
            Text("?" if verdict.series_number is None else str(verdict.series_number)),
            Text(verdict.series_description or ""),
            Text(str(verdict.contrast) if verdict.contrast else "other"),
            Text("\n".join(verdict.evidence)),
            Text(verdict.note),
            style="bold" if verdict.chosen else None,
        )
    return table
