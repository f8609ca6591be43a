"""What TR, TE, TI, Scanning Sequence and Image Type say about the contrast of a series.

Limits: long TE from 60 ms; short TE below 40 ms; T2-FLAIR nulls fluid with TI above 1.5 s; STIR nulls fat with TI of
100 to 300 ms; T1-FLAIR and MPRAGE lie between. 3-D turbo spin echo (SPACE, CUBE, VISTA) states the long TE of its echo
train.
"""

from __future__ import annotations

from node.series.facts import SeriesFacts
from node.study import Contrast

SHORT_TE_MS = 40.0
LONG_TE_MS = 60.0
LONG_TR_MS = 1800.0
FLUID_TI_MS = 1500.0
NAMED_FLUID_TI_MS = 1200.0
FAT_TI_MS = (50.0, 300.0)

_IMAGE_TYPES = {
    "localizer": ("LOCALIZER",),
    "projection": ("MIP", "MINIP", "MAXIMUM", "MINIMUM", "MAX_IP", "MIN_IP", "PROJECTION IMAGE"),
    "reformat": ("MPR", "REFORMATTED", "CPR", "CURVED_MPR"),
    "subtraction": ("SUB", "SUBTRACT", "SUBTRACTION"),
    "diffusion": ("ADC", "EADC", "DIFFUSION", "TRACEW", "FA", "TENSOR"),
    "arterial spin labelling": ("ASL",),
    "perfusion": ("PERFUSION", "CBF", "CBV", "MTT", "TTP", "RELCBV", "RELCBF"),
    "map": ("T1 MAP", "T2 MAP", "T2_STAR MAP", "R2 MAP", "T1_MAP", "T2_MAP", "FIELD_MAP"),
    "phase image": ("P", "PHASE", "PHASE MAP", "PHASE_MAP"),
    "Dixon part": ("FAT", "IN_PHASE", "OUT_PHASE", "OPP_PHASE", "FAT_FRACTION"),
    "screenshot": ("SCREEN SAVE", "SCREENSAVE"),
}


_NO_MAGNITUDE = frozenset(["PHASE", "REAL", "IMAGINARY", "MIXED"])  # PS3.3 C.8.13.3.1.2
_CALCULATED = {  # PS3.3 C.8.16.2.1.3
    "MAX_IP": "projection",
    "MIN_IP": "projection",
    "VOLUME_RENDER": "projection",
    "SURFACE_RENDER": "projection",
    "MPR": "reformat",
    "CURVED_MPR": "reformat",
}


def kind_by_header(facts: SeriesFacts) -> tuple[str, str] | None:
    """(kind, evidence) if the header alone shows that the series is none of the four contrasts, whatever its name."""
    if facts.made_by_software:
        return facts.made_by_software
    values = {value.upper() for value in facts.image_type}
    if facts.image_component in _NO_MAGNITUDE:
        return "phase image", f"Complex Image Component (0008,9208) is {facts.image_component}"
    if facts.calculation_technique in _CALCULATED:
        text = f"Volume Based Calculation Technique (0008,9207) is {facts.calculation_technique}"
        return _CALCULATED[facts.calculation_technique], text
    for kind, marks in _IMAGE_TYPES.items():
        hit = next((mark for mark in marks if mark in values), None)
        if hit:
            return kind, f"Image Type holds {hit}: {kind}"
    if facts.diffusion_b_value is not None and facts.diffusion_b_value > 0:
        return "diffusion", f"b-value {facts.diffusion_b_value:g} s/mm²: diffusion"
    if "EP" in facts.scanning_sequence:
        return "echo planar", "Scanning Sequence holds EP: echo planar"
    return None


def timing(facts: SeriesFacts) -> str:
    """TE, TR, TI and Scanning Sequence, as far as the header has them, for evidence texts."""
    named = (("TE", facts.echo_time_ms), ("TR", facts.repetition_time_ms), ("TI", facts.inversion_time_ms))
    parts = [f"{name} {value:.4g} ms" for name, value in named if value]
    if facts.scanning_sequence:
        parts.append("sequence " + "\\".join(facts.scanning_sequence))
    return ", ".join(parts)


def is_mprage(facts: SeriesFacts) -> bool:
    """True for an original, inversion-prepared 3-D gradient echo: "MPR" in its name stands for MPRAGE, not reformat."""
    is_original = bool(facts.image_type) and facts.image_type[0] == "ORIGINAL"
    inversion = FAT_TI_MS[1] < (facts.inversion_time_ms or 0.0) < FLUID_TI_MS
    return is_original and is_gradient_echo(facts) and inversion and facts.mr_acquisition_type != "2D"


def is_gradient_echo(facts: SeriesFacts) -> bool:
    """True for a gradient echo without spin echo (GRASE has both in Scanning Sequence)."""
    return "GR" in facts.scanning_sequence and "SE" not in facts.scanning_sequence


def contrast_by_physics(facts: SeriesFacts) -> Contrast | None:
    """The contrast that the timing alone suggests (T1 stands for T1 and T1c); None if it suggests none clearly."""
    te, tr, ti = facts.echo_time_ms, facts.repetition_time_ms, facts.inversion_time_ms or 0.0
    if te is None or tr is None or kind_by_header(facts) or FAT_TI_MS[0] <= ti <= FAT_TI_MS[1]:
        return None
    if is_gradient_echo(facts):
        inverted = FAT_TI_MS[1] < ti < FLUID_TI_MS
        return Contrast.T1 if te < 8 and (inverted or (tr < 40 and (facts.flip_angle or 0) >= 10)) else None
    if not {"SE", "IR"} & set(facts.scanning_sequence):
        return None
    if te >= LONG_TE_MS and tr >= LONG_TR_MS:
        return Contrast.FLAIR if ti > FLUID_TI_MS else Contrast.T2 if not ti else None
    if te < SHORT_TE_MS and (tr <= 1200 or (FAT_TI_MS[1] < ti < FLUID_TI_MS and tr <= 4000)):
        return Contrast.T1
    return None


def contradiction(contrast: Contrast, facts: SeriesFacts) -> str | None:
    """Why the timing cannot belong to ``contrast``, or None."""
    te, tr, ti = facts.echo_time_ms, facts.repetition_time_ms, facts.inversion_time_ms or 0.0
    spin_echo = bool({"SE", "IR"} & set(facts.scanning_sequence))
    if contrast in (Contrast.T1, Contrast.T1C):
        if te is not None and te >= LONG_TE_MS and (tr is None or tr >= LONG_TR_MS):
            return f"TE {te:g} ms is too long for T1"
        if spin_echo and te is not None and tr is not None and tr > 4000 and not ti:
            return f"TR {tr:g} ms without inversion is too long for T1"
        return None
    if is_gradient_echo(facts):
        return f"a gradient echo gives no {contrast}"
    if contrast is Contrast.T2:
        if ti > FLUID_TI_MS:
            return f"TI {ti:g} ms suppresses fluid: FLAIR, not T2"
        if FAT_TI_MS[0] <= ti <= FAT_TI_MS[1] and "IR" in facts.scanning_sequence:
            return f"TI {ti:g} ms suppresses fat: STIR, not T2"
        return f"TE {te:g} ms is too short for T2" if te is not None and te < SHORT_TE_MS else None
    # named FLAIR, with a long echo: 3-D FLAIR with short TR or T2 preparation nulls fluid at a shorter TI than others
    if 0 < ti < (NAMED_FLUID_TI_MS if te is not None and te >= LONG_TE_MS else FLUID_TI_MS):
        return f"TI {ti:g} ms does not suppress fluid"
    return f"TE {te:g} ms is too short for FLAIR" if te is not None and te < SHORT_TE_MS else None
