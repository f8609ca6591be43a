from __future__ import annotations

import json
from io import StringIO

from rich.console import Console

from node.series.explain import selection_as_dict, selection_table, short_lines
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
