from __future__ import annotations

import json
from io import StringIO

from rich.console import Console

from node.series.explain import selection_as_dict, selection_rows, selection_table, short_lines
from node.series.select import select_by_facts


def selection_of(builder, vocabulary):
    builder.add(1, "T2 [red]", 1, slice_step_mm=5.0).add(2, "FLAIR", 2).add(3, "T1", 3).add(4, "T1 KM", 4).add(
        5, "DWI", 5
    )
    return select_by_facts(builder.study(), builder.facts, vocabulary)


def test_the_dict_is_json_and_complete(builder, vocabulary):
    """Every series appears with verdict, evidence and note, and the four chosen by UID."""
    selection = selection_of(builder, vocabulary)
    found = json.loads(json.dumps(selection_as_dict(selection)))
    assert found["chosen"] == {"T1": "1.2.3.3", "T1c": "1.2.3.4", "T2": "1.2.3.1", "FLAIR": "1.2.3.2"}
    assert [one["contrast"] for one in found["series"]] == ["T2", "FLAIR", "T1", "T1c", None]
    assert all(one["note"] for one in found["series"])
    assert len(found["cautions"]) == 1


def test_the_table_shows_every_series_and_no_markup(builder, vocabulary):
    """One row per series; a description that looks like markup is shown as it is."""
    console = Console(width=200, record=True, file=StringIO())
    console.print(selection_table(selection_of(builder, vocabulary)))
    shown = console.export_text()
    assert "T2 [red]" in shown
    assert "'km' says after contrast" in shown
    assert "none of the four" in shown


def test_the_short_lines_say_which_series_and_why(builder, vocabulary):
    """For T1c the evidence on contrast agent counts, for the others that on the weighting."""
    builder.add(6, "T1 SE KM", 6, slice_step_mm=5.0)
    assert short_lines(selection_of(builder, vocabulary)) == (
        "T1: series 3 'T1': 't1' reads as T1; the only T1",
        "T1c: series 4 'T1 KM': 'km' says after contrast; chosen of 2 (3-D with 1 mm slices)",
        "T2: series 1 'T2 [red]': 't2' reads as T2; the only T2",
        "FLAIR: series 2 'FLAIR': 'flair' reads as FLAIR; the only FLAIR",
    )


def test_the_table_cuts_nothing_in_80_columns(builder, vocabulary):
    """Names and reasons longer than their column go on in the next line."""
    name = "t1_mprage_sag_p2_iso_0.9mm_averaged_twice_without_any_blank"
    builder.add(6, name, 9, coverage_mm=30.0)
    selection = selection_of(builder, vocabulary)
    console = Console(width=80, record=True, file=StringIO())
    console.print(selection_table(selection))
    lines = [line for line in console.export_text().splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert name in "".join(cell[1] for cell in cells)
    reasons = "".join(cell[3] for cell in cells).replace(" ", "")
    assert all(text.replace(" ", "") in reasons for one in selection.verdicts for text in (*one.evidence, one.note))
    assert max(map(len, lines)) <= 80
    assert "…" not in console.export_text()


def test_rows_are_one_line_per_series_whatever_the_header_holds(builder, vocabulary):
    """Each has all columns and the whole UID; a tab or a line feed in a description breaks no line."""
    builder.add(6, "T1\tpost\nGd", 9)
    rows = [line.split("\t") for line in selection_rows(selection_of(builder, vocabulary))]
    assert rows[0][:4] == ["series_number", "series_instance_uid", "contrast", "chosen"]
    assert {len(row) for row in rows} == {8}
    assert ["6", "1.2.3.6", "T1c", "yes", "T1 post Gd"] in [row[:5] for row in rows]


def test_the_short_lines_never_say_the_only_one_of_several(builder, vocabulary):
    """Others of the contrast that could not be used, or may be of it, are named with the reason."""
    builder.add(6, "T1 SE KM", 6, coverage_mm=40.0).add(7, "T1 COR", None)
    lines = short_lines(selection_of(builder, vocabulary))
    undecided = "series 7 'T1 COR': undecided before or after contrast"
    assert lines[:2] == (
        f"T1: series 3 'T1': 't1' reads as T1; the only usable T1 of 2 (not {undecided})",
        "T1c: series 4 'T1 KM': 'km' says after contrast; "
        f"the only usable T1c of 3 (not series 6 'T1 SE KM': covers only 40 mm; {undecided})",
    )


def test_the_note_names_all_that_could_not_be_used(builder, vocabulary):
    """The long form has the whole reason."""
    builder.add(6, "T1 SE KM", 6, coverage_mm=40.0)
    note = next(one.note for one in selection_of(builder, vocabulary).verdicts if one.series_number == 4)
    assert note == (
        "chosen: the only usable T1c of 2; not usable: series 6 'T1 SE KM': covers only 40 mm: not the whole brain"
    )
