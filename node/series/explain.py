"""The selection as JSON values, as a table, as lines for other programs, and as one line per contrast."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from node.series.by_hand import EVIDENCE
from node.series.candidate import NOT_USABLE
from node.series.order import UNDECIDED
from node.study import Contrast, Selection, Verdict

_ROW_COLUMNS: tuple[str, ...] = (
    "series_number", "series_instance_uid", "contrast", "chosen", "series_description", "part", "evidence", "note",
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_MOST_NAMED = 3  # series that could not be used, in a short line
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
    table = Table(title="Which series is which", caption=caption, show_lines=True, padding=(0, 1))
    # "fold" cuts nothing: what is longer than its column goes on in the next line
    table.add_column("series", justify="right", overflow="fold")
    table.add_column("description", overflow="fold", max_width=20)
    table.add_column("verdict", overflow="fold")
    table.add_column("evidence; chosen, or why not", overflow="fold")
    for verdict in selection.verdicts:
        table.add_row(
            Text("?" if verdict.series_number is None else str(verdict.series_number)),
            Text("\n".join(filter(None, (verdict.series_description, verdict.part)))),
            Text(str(verdict.contrast) if verdict.contrast else "other"),
            Text("\n".join((*verdict.evidence, f"→ {verdict.note}"))),
            style="bold" if verdict.chosen else None,
        )
    return table


def selection_rows(selection: Selection) -> list[str]:
    """One line per series or part, columns separated by tabs, for other programs; the first line names the columns.

    Control characters of a text from DICOM headers become blanks, so that a line is one series.
    """
    lines = [_ROW_COLUMNS]
    for one in selection.verdicts:
        number = "" if one.series_number is None else str(one.series_number)
        contrast, chosen = str(one.contrast) if one.contrast else "other", "yes" if one.chosen else "no"
        texts = (one.series_description or "", one.part, "; ".join(one.evidence), one.note)
        lines.append((number, one.series_instance_uid, contrast, chosen, *texts))
    return ["\t".join(_CONTROL.sub(" ", text) for text in line) for line in lines]


def short_lines(selection: Selection) -> tuple[str, ...]:
    """One line per chosen contrast: the series, its most decisive evidence, and among how many it was chosen.

    For example ``T1c: series 801 'T1 3D C': 'C' says after contrast; chosen of 2 (3-D with 1.5 mm slices)``.
    """
    by_key = {verdict.key: verdict for verdict in selection.verdicts}
    lines = []
    for contrast, series in selection.chosen.items():
        verdict = by_key[series.key]
        reasons = dict.fromkeys(
            (_main_evidence(verdict, contrast), _choice_reason(verdict, contrast, selection.verdicts))
        )
        lines.append(f"{contrast}: {series.label}: {'; '.join(reasons)}")
    return tuple(lines)


def _main_evidence(verdict: Verdict, contrast: Contrast) -> str:
    """For T1c the evidence for the contrast agent, else the evidence for the weighting."""
    if contrast is Contrast.T1C and verdict.evidence[:1] != (EVIDENCE,):
        about_agent = [text for text in verdict.evidence if any(word in text.casefold() for word in _ABOUT_AGENT)]
        if about_agent:
            return about_agent[0]
    return verdict.evidence[0] if verdict.evidence else "no evidence"


def _choice_reason(verdict: Verdict, contrast: Contrast, verdicts: Sequence[Verdict]) -> str:
    """Shorten a note: ``chosen of 2: thinner; runner-up ...`` to ``chosen of 2 (thinner)``, ``chosen: X`` to ``X``.

    Where others of ``contrast`` cannot be used, they are named with the reason: it was not the only one.
    """
    out = [one for one in verdicts if _is_out(one, contrast)]
    if verdict.note.startswith("chosen: the only") and out:
        named = [f"{_label(one)}: {_why_out(one).partition(': ')[0]}" for one in out[:_MOST_NAMED]]
        more = [f"and {len(out) - _MOST_NAMED} more"] if len(out) > _MOST_NAMED else []
        return f"the only usable {contrast} of {len(out) + 1} (not {'; '.join([*named, *more])})"
    first = verdict.note.partition("; runner-up")[0]
    head, _, reason = first.partition(": ")
    return f"{head} ({reason})" if head.startswith("chosen of") else reason or head


def _is_out(one: Verdict, contrast: Contrast) -> bool:
    """True if ``one`` is, or may be, of ``contrast``, but cannot be used."""
    may_be = contrast in (Contrast.T1, Contrast.T1C) and _why_out(one).startswith(UNDECIDED)
    return not one.chosen and bool(_why_out(one)) and (one.contrast is contrast or may_be)


def _why_out(one: Verdict) -> str:
    return one.note.removeprefix(NOT_USABLE) if one.note.startswith(NOT_USABLE) else ""


def _label(one: Verdict) -> str:
    number = "?" if one.series_number is None else one.series_number
    return f"series {number} '{one.series_description or ''}'"
