from __future__ import annotations

import pytest

from node.series.classify import DECIDED, classify_description, classify_text
from node.series.facts import SeriesFacts
from node.series.vocabulary import load_vocabulary
from node.study import Contrast

VOCABULARY = load_vocabulary()


def label(description, **columns):
    return classify_text(description, columns, VOCABULARY)


@pytest.mark.parametrize(
    "description",
    [
        "AX T1 SE",
        "t1_mprage_sag_p2_iso",
        "SAG FSPGR BRAVO",
        "Ax T1 FLAIR",
        "t1_tirm_tra_dark-fluid",
        "T1_PRE_GD",
        "T1 ohne KM",
        "T1 ohne i.v. KM",
        "T1 avant gado",
        "T1 w/o contrast",
        "T1 sans gado",
        "T1 SIN CONTRASTE",
        "T1 senza mdc",
        "T1 s/gado",
        "T1 utan Gd",
        "T1 zonder contrast",
        "T1 nativ",
        "T1 без контраста",
        "T1平扫",
        "T1 単純",
        "Т1 ВИ",
        "T1 C-",
        "T1 tra C5-C7",
        "T1 preop",
        "t1_mpr_ns_sag_p2_iso",
        "T1W_MPR",
        "SAG CUBE T1",
        "T1 FOV 5 cm",
        "t1_tse_fs-dixon_tra_W",
        "T1_mprage_1mm_p2_pos50",
        "s3DT1_ISO_1mm",
        "t1_mpr_AX_MPRAGE",
        "Ax T1 FSE AIR Recon DL",
        "T1 brez kontrasta",
        "T1 ilma kontrastita",
        "T1 be k/m",
        "T1 ללא חומר ניגוד",
        "T1 조영(-)",
        "T1 ก่อนฉีดสี",
        "T1 bedoon tazrigh",
        "T1 ES ax IV-",
        "T1 AXIAL W/O",
        "T1 ΠΡΟ ΣΚΙΑΓΡΑΦΙΚΟΥ",
        "FAT SAT T1",
        "T1 πριν γαδολίνιο",
    ],
)
def test_t1_without_contrast(description):
    """A T1 without a word for contrast, or with a negated one, is T1."""
    assert label(description) == "T1"


@pytest.mark.parametrize(
    "description",
    [
        "AX T1 +C",
        "T1 C+",
        "T1/3D/FFE/C",
        "T1W_SPIRC",
        "t1_se_tra-FSGD",
        "T1 post",
        "Ax T1 POST GAD",
        "T1 tra nach KM",
        "T1 apres gado",
        "T1 CON GADOLINIO",
        "3D T1 PÓS-CONTRASTE",
        "T1 con mdc",
        "T1 po kontraście",
        "T1 s kontrastem",
        "T1 с контрастом",
        "T1增强",
        "造影 T1",
        "MPRAGE Gd",
        "BRAVO+c",
        "T1 FLAIR +C",
        "T1 no FS post GD",
        "T1 sans fatsat post gado",
        "T1 preop KM",
        "CE-T1WI",
        "+c Ax T1 Stealth bravo",
        "T1 med kontrast",
        "T1 na contrast",
        "T1 IV kontrast",
        "AX T1 MPRAGE POST : Processed",
        "T1 FLOW COMP POST",
        "AX FSPGR 3D ASSET C+",
        "+C 3D MT SPGR",
        "t1_se_tra_mtc_gd",
        "COR T1 FS m/k",
        "T1 cor +TA",
        "T1 k.a. után",
        "T1 με γαδολίνιο",
        "t1_space_mKM",
        "T1 AVEC PDC",
        "T1 s KS",
        "T1 打藥後",
        "T1 หลังฉีดสี",
        "T1 با تزریق",
        "T1 AXIAL W/",
        "T1 WITH CONTARST",
        "T1 POSTCON",
        "GK T1 MPRAGE DOUBLE DOSE",
        "AX VIBE POST",
        "WATER: +C COR T1 FSE Flex",
    ],
)
def test_t1_after_contrast(description):
    """A T1 with a word for contrast agent, in any language and glued or not, is T1c."""
    assert label(description) == "T1c"


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("sT2/TSE/T", "T2"),
        ("T2 TSE post KM", "T2"),
        ("T2 FRFSE", "T2"),
        ("Sag CUBE T2", "T2"),
        ("CSF T2 DRIVE", "T2"),
        ("t2_tirm_tra_dark-fluid", "FLAIR"),
        ("sT2W/FLAIR", "FLAIR"),
        ("FLAIR post gado", "FLAIR"),
        ("+C Sag CUBE T2 FLAIR", "FLAIR"),
        ("T2 darkfluid", "FLAIR"),
        ("压水 T2", "FLAIR"),
        ("FLIAR AXIAL", "FLAIR"),
        ("Ax T2FLAIR PROPELLER AIR Recon DL", "FLAIR"),
        ("t2_space_dark-fluid_sag_p2_ns-t2prep", "FLAIR"),
        ("Ax T2 FLAIR ASSET", "FLAIR"),
    ],
)
def test_t2_and_flair_keep_their_weighting(description, expected):
    """Contrast words change nothing on T2 and FLAIR."""
    assert label(description) == expected


@pytest.mark.parametrize(
    "description",
    [
        "T2*",
        "T2 GRE",
        "T2_FFE",
        "T2 étoile",
        "t2_swi_tra",
        "T2W/FE-EPI",
        "ep2d_diff_T2",
        "T1 perfusion",
        "SOUS T1",
        "T1 SUB",
        "T1 MIP",
        "T1 MPR tra",
        "MPRAGE_MPR_cor",
        "3-pl loc T1",
        "T1 map",
        "T1 C spine",
        "T2 STIR",
        "PD T2",
        "TOF",
        "T1_Dixon_F",
        "T1 T2",
        "hello",
        "effort1",
        "T2 FIESTA",
        "T1 reformat",
        "PJN:Sag CUBE T1 +C",
        "FLAIR sub",
        "ASSET calibration",
        "FAT: Ax T1 Flex Post",
        "Ax T1 mDIXON TSE_IP",
        "AX T1 MPR FROM MPRAGE + GAD",
        "Dose Report",
        "2D GRE - MT",
        "T1 MT",
        "T2 stjerne tra",
        "COL:Ax T1 CUBE +C",
        "Sag T2 kaelalülid",
        "SAG T2 αμσσ",
        "SAG T2 עמוד שדרה צווארי",
        "SAG T2 กระดูกสันหลังส่วนคอ",
    ],
)
def test_everything_else_is_other(description):
    """A word for another technique decides whatever weighting stands beside it."""
    assert label(description) == "other"


def test_the_evidence_quotes_the_words_that_decided():
    """The evidence names the word for the weighting and the word for contrast."""
    found = classify_description("T1 tra mit KM", None, VOCABULARY)
    assert found.contrast is Contrast.T1C
    assert found.evidence == ("'t1' reads as T1", "'km' says after contrast")


def test_agreeing_physics_raises_confidence():
    """TE and TR of the named contrast are shown and make the verdict surer."""
    facts = SeriesFacts(echo_time_ms=100, repetition_time_ms=4500, scanning_sequence=("SE",))
    found = classify_description("T2 TSE", facts, VOCABULARY)
    assert found.contrast is Contrast.T2
    assert found.confidence > classify_description("T2 TSE", None, VOCABULARY).confidence
    assert "agree" in found.evidence[-1]


@pytest.mark.parametrize(
    ("description", "te", "tr", "ti"),
    [("T1 SE", 100, 5000, None), ("T2 TSE", 100, 9000, 2500), ("T2 TSE", 12, 500, None), ("T2 FLAIR", 100, 9000, 180)],
)
def test_contradicting_physics_is_shown_and_undecides(description, te, tr, ti):
    """Timing that cannot belong to the named contrast keeps the verdict but drops its confidence below DECIDED."""
    facts = SeriesFacts(echo_time_ms=te, repetition_time_ms=tr, inversion_time_ms=ti, scanning_sequence=("SE",))
    found = classify_description(description, facts, VOCABULARY)
    assert found.contrast is not None
    assert found.confidence < DECIDED
    assert found.evidence[-1].startswith("contradicted")


@pytest.mark.parametrize(("agent", "expected"), [("", "T1"), ("NONE", "T1"), ("Gadavist 7 ml", "T1c")])
def test_a_bolus_tag_makes_an_unmarked_t1_a_t1c(agent, expected):
    """Contrast/Bolus Agent counts when it names an agent, not when it spells out that there was none."""
    assert label("AX T1 SE", ContrastBolusAgent=agent) == expected


@pytest.mark.parametrize("agent", ["kein KM", "nativ", "w/o", "ohne", "sin contraste", "нет", "n/a", "not given", "-"])
def test_an_agent_that_is_spelled_out_as_none_is_none(agent):
    """In whatever language the technologist wrote it."""
    assert label("AX T1 SE", ContrastBolusAgent=agent) == "T1"


_NO_MAGNITUDE = [
    {"image_component": "PHASE"},
    {"calculation_technique": "MAX_IP"},
    {"image_type": ("DERIVED", "PRIMARY", "T1", "MAXIMUM")},
]


@pytest.mark.parametrize("facts", _NO_MAGNITUDE)
def test_frames_of_enhanced_objects_that_are_no_plain_images(facts):
    """Phase, projections and reformats of enhanced MR are none of the four, whatever their name."""
    assert classify_description("T1 3D KM", SeriesFacts(**facts), VOCABULARY).contrast is None


_MPRAGE = {"scanning_sequence": ("GR", "IR"), "inversion_time_ms": 900.0, "mr_acquisition_type": "3D"}


@pytest.mark.parametrize(
    ("image_type", "expected"), [(("ORIGINAL", "PRIMARY", "M"), Contrast.T1), (("DERIVED", "SECONDARY", "MPR"), None)]
)
def test_an_mpr_as_acquired_is_an_mprage(image_type, expected):
    """'t1_mpr_sag' is cut short for MPRAGE if the header says so, else a reformat."""
    facts = SeriesFacts(image_type=image_type, **_MPRAGE)
    assert classify_description("t1_mpr_sag", facts, VOCABULARY).contrast is expected
    assert label("t1_mpr_sag") == "other"
    assert classify_description("t1_mprage_sag_MPR_tra", facts, VOCABULARY).contrast is None


@pytest.mark.parametrize(
    ("description", "timing"),
    [("FLAIR 3D", (119.0, 4800.0, 1442.0, ("SE", "IR"))), ("T2 TSE", (98.0, 4500.0, 50.0, ("SE",)))],
)
def test_timing_at_the_edge_contradicts_no_words(description, timing):
    """A 3-D FLAIR with short TR nulls fluid early, and a TI without inversion recovery is a filler value."""
    te, tr, ti, sequence = timing
    facts = SeriesFacts(echo_time_ms=te, repetition_time_ms=tr, inversion_time_ms=ti, scanning_sequence=sequence)
    assert classify_description(description, facts, VOCABULARY).confidence > DECIDED


def test_words_win_over_a_bolus_tag():
    """The tag is often set at registration: a description that says before contrast is believed, and the tag shown."""
    found = classify_description("T1 pre", SeriesFacts(contrast_bolus_agent="Dotarem"), VOCABULARY)
    assert found.contrast is Contrast.T1
    assert "Dotarem" in found.evidence[-1]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"EchoTime": "10", "RepetitionTime": "500", "ScanningSequence": "SE"}, "T1"),
        ({"EchoTime": "100", "RepetitionTime": "4000", "ScanningSequence": "SE"}, "T2"),
        ({"EchoTime": "110", "RepetitionTime": "9000", "InversionTime": "2500", "ScanningSequence": "SE\\IR"}, "FLAIR"),
        ({"EchoTime": "3", "RepetitionTime": "2000", "InversionTime": "900", "ScanningSequence": "GR\\IR"}, "T1"),
        ({"EchoTime": "nan", "RepetitionTime": "x"}, "other"),
        ({"ProtocolName": "FLAIR axial"}, "FLAIR"),
        ({"SequenceName": "*tfl3d1_16ns"}, "T1"),
        ({"SequenceName": "T1TFE"}, "T1"),
        ({"SequenceName": "*ep_b1000#1"}, "other"),
        ({"SequenceName": "*tfl3d1_16ns", "ProtocolName": "T2 SPACE"}, "T2"),
        ({"SequenceName": "*tse2d1_15", "EchoTime": "100", "RepetitionTime": "4000", "ScanningSequence": "SE"}, "T2"),
        ({"SequenceName": "*tfl3d1_16ns", "EchoTime": "100", "RepetitionTime": "4000"}, "T1"),
    ],
)
def test_a_silent_description_is_judged_by_protocol_and_sequence_name_then_physics(columns, expected):
    """When no word of the description tells, Protocol Name, then Sequence Name, then the timing decide."""
    assert label("SAG", **columns) == expected


@pytest.mark.parametrize(
    "columns",
    [
        {"ImageType": "DERIVED\\PRIMARY\\MPR"},
        {"ImageType": "['ORIGINAL', 'PRIMARY', 'M', 'SUB']"},
        {"DiffusionBValue": "1000"},
        {"ScanningSequence": "EP\\GR"},
    ],
)
def test_the_header_alone_may_exclude(columns):
    """Image Type, b-value and an echo-planar sequence make any description other."""
    assert label("T2 TSE", **columns) == "other"


@pytest.mark.parametrize(("text", "expected"), [("SAG", Contrast.T1), ("SAG post KM", Contrast.T1C)])
def test_a_sequence_name_counts_less_than_words(text, expected):
    """It decides with its name in the evidence, keeps what the description says of contrast agent, and is less sure."""
    found = classify_description(text, SeriesFacts(sequence_name="*tfl3d1_16ns"), VOCABULARY)
    assert (found.contrast, found.evidence[0]) == (expected, "Sequence Name: 'tfl3d' is a T1 sequence")
    assert DECIDED < found.confidence < 0.8


def test_flair_with_short_echo_is_t1_flair():
    """'FLAIR' with TE below 40 ms and TI below 1.5 s is a T1-FLAIR."""
    assert label("SAG FLAIR", EchoTime="24", RepetitionTime="2000", InversionTime="860") == "T1"


_ELSEWHERE = """
SAG T2 TSP | SAG T1 CSP POST | LSP SAG T2
T1 C SPINE POST | T1 C-SPINE +C | AX T1 +C C SPINE | SAG C/T T2 | SAG T2 C/T/L
T2 T-L SAG | C/T SAG T1 POST | T2 L-S SAG | T2 BH | T2 TSE BREATH HOLD | T1 VIBE VENOUS
T1 LAVA PORTAL VENOUS | T1 venoes
T1 LIVER POST | T1 PELVIS +C | T2 MAMMOGRAPHY | T1 BRUST KM | T2 ABDOMEN APNEE | T1 arterial | T2 DORSAL | T2 D SPINE
T2 WHOLESPINE | HALS T1 KM | NECK T1 +C | T1 HEPATOBILIARY | T2 SAG COLUMNA DORSAL
"""
_OF_THE_BRAIN = {
    "T1 C+": "T1c", "T1 +C": "T1c", "T1 -C": "T1", "T1 C- AX": "T1", "T1 SAG C": "T1c", "sT2/TSE/T": "T2",
    "T1/SE/T": "T1", "T1/3D/FFE/C": "T1c", "BRAIN & NECK T1 +C": "T1c", "HEAD AND NECK T2": "T2", "KOPF/HALS T1": "T1",
    "CABEZA Y CUELLO T1 CONTRASTE": "T1c", "T1 TRA C": "T1c", "T2 S": "T2", "T1 CSF": "T1",
}  # fmt: skip


@pytest.mark.parametrize(
    "description", [text.strip() for text in _ELSEWHERE.replace("\n", "|").split("|") if text.strip()]
)
def test_a_word_for_the_body_outweighs_weighting_and_contrast(description):
    """Spine, abdomen and breast inside a study of the brain, in full and abbreviated, breath held or by phase."""
    assert label(description) == "other"


@pytest.mark.parametrize(("description", "expected"), _OF_THE_BRAIN.items())
def test_letters_and_necks_that_mean_no_other_body_part(description, expected):
    """C for contrast, T for transversal, and the neck beside the head leave a series one of the brain."""
    assert label(description) == expected


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("T2 PRE SPECTROSCOPY", "T2"),
        ("T1 +C PRE SPECTRO", "T1c"),
        ("FLAIR POST MRS", "FLAIR"),
        ("T2 for spectro planning", "T2"),
        ("T2 AXIAL PARA ESPECTROSCOPIA", "T2"),
        ("T1 KM fuer Fusion", "T1c"),
        ("T1 pre perfusion", "T1"),
        ("T1 post perfusion", "T1c"),
        ("T1 PREPOST", "T1"),
        ("T1 PRE/POST CONTRAST", "T1"),
        ("BRAIN W/WO CONTRAST T1", "T1"),
        ("T1 mit und ohne KM", "T1"),
        ("BRAIN W/WO CONTRAST T1 POST", "T1c"),
        ("T1 pre and post GAD +C", "T1c"),
        ("spectroscopy T2", "other"),
        ("T2 nativ spectroscopy", "other"),
        ("BRAIN/T1_DORSAL+C", "T1c"),
        ("T1 perfusion post", "other"),
        ("T1 post-pre", "other"),
    ],
)
def test_words_for_other_examinations_beside_a_series(description, expected):
    """What a series is acquired for or before says nothing of it; before and after in one word marks nothing."""
    assert label(description) == expected


_SE = {"ScanningSequence": "SE", "RepetitionTime": "4000"}


@pytest.mark.parametrize(
    "description", ["AX PDT2", "DUAL", "DOUBLE ECHO TRA", "PD/T2", "T2+PD", "T2 DE TSE", "dual_tse_tra"]
)
def test_of_a_dual_echo_the_echo_time_tells_the_t2(description):
    """The part of a long echo is the T2, that of a short echo proton density; without an echo time it is neither."""
    assert label(description, EchoTime="98", **_SE) == "T2"
    assert label(description, EchoTime="14", **_SE) == "other"
    assert label(description, EchoTime="45", **_SE) == "other"
    assert label(description) == "other"
    assert label(description, EchoTime="98", RepetitionTime="650", ScanningSequence="GR") == "other"


def test_proton_density_alone_is_never_t2():
    """A name that says proton density only is believed, whatever the echo time."""
    assert label("AX PD TSE", EchoTime="98", **_SE) == "other"


@pytest.mark.parametrize(
    ("sequence", "expected"), [("SE", Contrast.T2), ("GR", None)], ids=["spin echo", "gradient echo"]
)
def test_ge_beside_t2_is_what_the_header_says(sequence, expected):
    """GE beside T2 names a vendor where the timing is that of a T2 spin echo; a gradient echo gives no T2."""
    facts = SeriesFacts(scanning_sequence=(sequence,), echo_time_ms=98.0, repetition_time_ms=4000.0)
    assert classify_description("AX T2 GE 3D", facts, VOCABULARY).contrast is expected


_STACK = {"slice_count": 160, "slice_step_mm": 1.0, "coverage_mm": 160.0}
_MPRAGE_TIMING = {
    "scanning_sequence": ("GR", "IR"),
    "echo_time_ms": 3.0,
    "repetition_time_ms": 2000.0,
    "inversion_time_ms": 900.0,
}


@pytest.mark.parametrize(
    ("description", "facts", "expected"),
    [
        ("3D T1 SCOUT FOR NAVIGATION", {**_STACK, **_MPRAGE_TIMING}, Contrast.T1),
        ("LOC T1 MPRAGE +C", {**_STACK, **_MPRAGE_TIMING}, Contrast.T1C),
        ("LOC T1 MPRAGE", _STACK, Contrast.T1),
        ("T1 localizer", {**_MPRAGE_TIMING, "slice_count": 3, "slice_step_mm": 10.0, "coverage_mm": 30.0}, None),
        ("T1 localizer", {**_STACK, **_MPRAGE_TIMING, "mixture": "holds 3 orientations"}, None),
        ("T1 localizer", {**_STACK, **_MPRAGE_TIMING, "irregularity": "planes are not parallel"}, None),
        ("T1 localizer", {**_MPRAGE_TIMING, "slice_count": 20, "slice_step_mm": 10.0, "coverage_mm": 200.0}, None),
        ("AAHead_Scout", {**_STACK, "slice_count": 128, "slice_step_mm": 1.6, "scanning_sequence": ("GR",)}, None),
        ("T1 localizer", {}, None),
        (
            "T2 SSFSE LOC",
            {**_STACK, "echo_time_ms": 90.0, "repetition_time_ms": 1400.0, "scanning_sequence": ("SE",)},
            None,
        ),
        (
            "T2 SSFSE",
            {**_STACK, "echo_time_ms": 90.0, "repetition_time_ms": 1400.0, "scanning_sequence": ("SE",)},
            Contrast.T2,
        ),
        (
            "T2 HASTE 3 PLANE",
            {"slice_count": 9, "slice_step_mm": 10.0, "coverage_mm": 90.0, "echo_time_ms": 90.0},
            None,
        ),
    ],
)
def test_facts_outweigh_a_word_for_a_localizer_or_a_single_shot(description, facts, expected):
    """A whole brain of the named contrast is no localizer; it is less sure than a series of a plain name."""
    found = classify_description(description, SeriesFacts(**facts), VOCABULARY)
    assert found.contrast is expected
    assert expected is None or DECIDED < found.confidence < 0.8


@pytest.mark.parametrize(("count", "expected"), [(30, Contrast.T2), (9, None)])
def test_a_single_shot_known_by_its_sequence_name(count, expected):
    """Siemens's HASTE is named h2d in the header whatever the protocol's name: it is unsure, or a localizer."""
    facts = SeriesFacts(
        sequence_name="*h2d1_205", slice_count=count, slice_step_mm=5.0, coverage_mm=5.0 * count, echo_time_ms=90.0,
        repetition_time_ms=1400.0, scanning_sequence=("SE",),
    )  # fmt: skip
    found = classify_description("T2 tra", facts, VOCABULARY)
    assert found.contrast is expected
    assert found.confidence < 0.8 or expected is None
