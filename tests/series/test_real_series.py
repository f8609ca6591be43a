from __future__ import annotations

import pytest

from node.errors import SelectionRefused
from node.series.fact_reader import read_facts
from node.series.headers import read_study
from node.series.select import select
from node.study import Contrast


@pytest.mark.slow
def test_brainix(data_folder, vocabulary):
    """A real examination whose twins differ in name by nothing: the four right series, explained."""
    selection = select(read_study(data_folder / "brainix"), vocabulary)
    assert {str(contrast): series.series_number for contrast, series in selection.chosen.items()} == {
        "T1": 601,
        "T1c": 801,
        "T2": 301,
        "FLAIR": 401,
    }
    verdicts = {verdict.series_number: verdict for verdict in selection.verdicts}
    assert "runner-up series 701" in verdicts[801].note
    assert "'C' says after contrast" in verdicts[801].evidence
    assert any("acquired 14:44" in text for text in verdicts[801].evidence)
    assert any("overlay" in text for text in verdicts[801].evidence)
    assert verdicts[701].contrast is Contrast.T1C
    assert verdicts[501].contrast is None
    assert verdicts[702].evidence == ("'sous' reads as subtraction",)


@pytest.mark.parametrize(
    ("folder", "reason"),
    [("Knee", "Body Part Examined is KNEE"), ("Phenix", "modality CT"), ("Beaufix", "no T1"), ("Knix", "no T1")],
)
def test_what_is_no_brain_mr_is_refused(data_folder, vocabulary, folder, reason):
    """Knees, CT and compressed body MR are read and refused with a plain reason."""
    with pytest.raises(SelectionRefused, match=reason):
        select(read_study(data_folder / "stress" / "compressed_and_negative" / "Database" / folder), vocabulary)


def test_philips_enhanced_multi_frame(data_folder):
    """A real enhanced multi-frame T1 gives the facts of its classic neighbours."""
    folder = data_folder / "stress" / "philips_enhanced_t1" / "In" / "Philips" / "401_T1W_FFE_Sno_CS2"
    (series,) = read_study(folder).series
    facts = read_facts(series)
    assert facts.is_multiframe
    assert (facts.slice_count, facts.slice_step_mm, facts.body_part_examined) == (24, 5.5, "BRAIN")
    assert facts.echo_time_ms == pytest.approx(3.568)
    assert facts.acquisition_datetime is not None
