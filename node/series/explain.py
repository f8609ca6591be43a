"""The selection as JSON values, as a table and as one line per contrast."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from node.series.by_hand import EVIDENCE
from node.study import Contrast, Selection, Verdict

_ABOUT_AGENT = ("contrast", "overlay", "agent", "bolus")


def selection_as_dict(selection: Selection) -> dict[str, Any]:
    """The selection as plain JSON values. The format is stable: keys may be added, but none is renamed or removed.

    ``chosen`` maps T1, T1c, T2, FLAIR to Series Instance UIDs (empty: the selection was refused); ``series`` lists
    every series of the study with its verdict (``contrast`` is null for anything else), evidence and note; ``short``
    holds one line per chosen contrast; ``cautions`` are sentences.
    """
    return {
        "study_instance_uid": selection.study_instance_uid,
        "chosen": {str(contrast): series.series_instance_uid for contrast, series in selection.chosen.items()},
        "series": [
            {
                "series_instance_uid": verdict.series_instance_uid,
                "series_number": verdict.series_number,
                "series_description": verdict.series_description,
                "part": verdict.part or None,
                "contrast": str(verdict.contrast) if verdict.contrast else None,
                "chosen": verdict.chosen,
                "evidence": list(verdict.evidence),
                "note": verdict.note,
            }
            for verdict in selection.verdicts
        ],
        "short": list(short_lines(selection)),
        "cautions": list(selection.cautions),
    }


def selection_table(selection: Selection) -> Table:
    """One row per series: number, description, verdict, evidence, and whether it was chosen or why not.

    Text from DICOM headers is never interpreted as markup.
    """
    caption = Text("; ".join(selection.cautions)) if selection.cautions else None
    table = Table(title="Which series is which", caption=caption)
    for column in ("series", "description", "verdict", "evidence", "chosen, or why not"):
        table.add_column(column, justify="right" if column == "series" else "left")
    for verdict in selection.verdicts:
        table.add_row(
            Text("?" if verdict.series_number is None else str(verdict.series_number)),
            Text("\n".join(filter(None, (verdict.series_description, verdict.part)))),
            Text(str(verdict.contrast) if verdict.contrast else "other"),
            Text("\n".join(verdict.evidence)),
            Text(verdict.note),
            style="bold" if verdict.chosen else None,
        )
    return table


def short_lines(selection: Selection) -> tuple[str, ...]:
    """One line per chosen contrast: the series, its most decisive evidence, and among how many it was chosen.

    For example ``T1c: series 801 'T1 3D C': 'C' says after contrast; chosen of 2 (3-D with 1.5 mm slices)``.
    """
    by_key = {verdict.key: verdict for verdict in selection.verdicts}
    lines = []
    for contrast, series in selection.chosen.items():
        verdict = by_key[series.key]
        reasons = dict.fromkeys((_main_evidence(verdict, contrast), _choice_reason(verdict)))
        lines.append(f"{contrast}: {series.label}: {'; '.join(reasons)}")
    return tuple(lines)


def _main_evidence(verdict: Verdict, contrast: Contrast) -> str:
    """For T1c the evidence for the contrast agent, else the evidence for the weighting."""
    if contrast is Contrast.T1C and verdict.evidence[:1] != (EVIDENCE,):
        about_agent = [text for text in verdict.evidence if any(word in text.casefold() for word in _ABOUT_AGENT)]
        if about_agent:
            return about_agent[0]
    return verdict.evidence[0] if verdict.evidence else "no evidence"


def _choice_reason(verdict: Verdict) -> str:
    """Shorten a note: ``chosen of 2: thinner; runner-up ...`` to ``chosen of 2 (thinner)``, ``chosen: X`` to ``X``."""
    first = verdict.note.partition("; runner-up")[0]
    head, _, reason = first.partition(": ")
    return f"{head} ({reason})" if head.startswith("chosen of") else reason or head
