"""Frozen dataclasses that the packages of ``node`` pass to one another. No input or output happens here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

RESULT_FILES = ("seg.dcm", "sr.dcm")
"""The files of a study's results that are sent to destinations."""


class Contrast(StrEnum):
    """Contrast weighting of an MR series. (Modality, in this project, is only ever (0008,0060).)"""

    T1 = "T1"
    T1C = "T1c"
    T2 = "T2"
    FLAIR = "FLAIR"


@dataclass(frozen=True, slots=True)
class Instance:
    """One SOP instance on disk, as received; ``frames``: the numbers of the frames that count, empty for all."""

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    frames: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """One series: its identity, the texts of its header, and its instances (sorted by SOP Instance UID).

    ``part``: which of its images these are (``echo time 90 ms``) if the series holds several volumes; empty for all.
    """

    series_instance_uid: str
    study_instance_uid: str
    modality: str
    series_description: str | None
    series_number: int | None
    frame_of_reference_uid: str | None
    instances: tuple[Instance, ...]
    part: str = ""

    @property
    def label(self) -> str:
        """The name of this series for humans: number, description and part (no patient data)."""
        number = "?" if self.series_number is None else str(self.series_number)
        part = f", {self.part}" if self.part else ""
        return f"series {number} '{self.series_description or ''}'{part}"

    @property
    def key(self) -> tuple[str, str]:
        """Tells this series, or this part of one, from all others of the study."""
        return self.series_instance_uid, self.part


@dataclass(frozen=True, slots=True)
class Study:
    """One study: its series, and the files that could not be read as DICOM (name, reason).

    ``planes``: attributes of the instances that were read together with the headers, by SOP Instance UID; may be empty.
    """

    study_instance_uid: str
    series: tuple[Series, ...]
    unreadable: tuple[tuple[str, str], ...] = ()
    planes: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The contrast that one series was judged to have, the evidence, and whether the series was chosen.

    ``contrast`` is None for a series that has none of the four. ``evidence`` holds short sentences, strongest first.
    ``note`` says why the series was chosen or passed over. ``part``: as in `Series`.
    """

    series_instance_uid: str
    series_number: int | None
    series_description: str | None
    contrast: Contrast | None
    evidence: tuple[str, ...]
    chosen: bool
    note: str
    part: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """As `Series.key`."""
        return self.series_instance_uid, self.part


@dataclass(frozen=True, slots=True)
class Selection:
    """The series chosen for each contrast, and the verdict on every series of the study."""

    study_instance_uid: str
    chosen: dict[Contrast, Series]
    verdicts: tuple[Verdict, ...]
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Which of two T1-weighted series was acquired after contrast agent (None: undecided), by their images, and why."""

    after: Literal["one", "other"] | None
    evidence: str


@dataclass(frozen=True, slots=True)
class Software:
    """The software that computed a result; SEG, SR and ``result.json`` name it (algorithm identification)."""

    name: str
    version: str
    family: str = "Deep learning"
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResultIdentity:
    """Software, input and time of a result. Equal identities give byte-identical SEG and SR.

    Attributes:
        workflow_id: digest of the selected instances, the model and the settings.
        created: when the workflow was first started (time zone aware); restarts do not change it.
        software: the software that computed the result.
        node_version: version of glionode.
    """

    workflow_id: str
    created: datetime
    software: Software
    node_version: str
    station_name: str
    device_serial_number: str


TlsProfile = Literal["bcp195", "bcp195-non-downgrading"]
"""PS3.15 B.12, and the retired B.10, which requires two cipher suites more."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of TLS: certificate and key of the node, authorities for peers' certificates; and the profile."""

    certificate_file: Path | None
    key_file: Path | None
    ca_file: Path | None
    profile: TlsProfile = "bcp195"


@dataclass(frozen=True, slots=True)
class Destination:
    """A DICOM peer that results are sent to; ``tls`` None: no TLS; ``commitment``: storage commitment is requested.

    ``commitment_ae_title`` and ``commitment_addresses``: where its reports come from, if not from ``ae_title`` and the
    addresses of ``host``.
    """

    name: str
    ae_title: str
    host: str
    port: int
    tls: TlsFiles | None = None
    commitment: bool = False
    commitment_ae_title: str = ""
    commitment_addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WebDestination:
    """A DICOMweb peer (STOW-RS, PS3.18 10.5) under ``url``, with basic authentication or a bearer token, or neither."""

    name: str
    url: str
    user: str = ""
    password_file: Path | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    tls_profile: TlsProfile = "bcp195"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another DICOM application, as the audit trail names it: AE title (empty: not told yet) and address."""

    ae_title: str
    address: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """Instances of one study that went over the network together; ``instances``: their number by SOP class UID.

    ``patient_id`` is for the audit trail alone. ``is_known``: the receiver held these instances before.
    """

    study_instance_uid: str
    patient_id: str
    instances: dict[str, int]
    is_known: bool = False


@dataclass(frozen=True, slots=True)
class InstanceDelivery:
    """A destination's answer for one SOP instance: DIMSE status (None: no answer), and how it is classified."""

    sop_instance_uid: str
    status: int | None
    is_delivered: bool
    is_permanent: bool
    reason: str
