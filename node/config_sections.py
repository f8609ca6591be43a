"""The sections of the config: every setting with its type, unit and default. ``config.toml`` documents each."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from node.study import Destination, TlsFiles, TlsProfile, WebDestination


def _check_ae_title(value: str) -> str:
    """AE value representation (PS3.5 6.2): 1-16 characters, no backslash or control characters, not only spaces."""
    if not 1 <= len(value) <= 16 or not value.strip() or "\\" in value or not (value.isascii() and value.isprintable()):
        raise ValueError("an AE title has 1 to 16 printable ASCII characters, no backslash, not only spaces")
    return value


def _check_network(value: str) -> str:
    """An IP address or network in CIDR form."""
    try:
        ipaddress.ip_network(value)
    except ValueError:
        raise ValueError("neither an IP address nor a network such as 10.1.2.0/24") from None
    return value


def _check_web_host(value: str) -> str:
    """A host name or an address as a Host header names it, without a port; an IPv6 address in brackets or not."""
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    try:
        return f"[{ipaddress.IPv6Address(bare)}]"
    except ValueError:
        if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", value) is None:
            raise ValueError("neither a host name nor an address, or with a port") from None
        return value.lower()


def _check_level(value: str | int) -> str | int:
    """A named level, or the number by which studies are begun in ascending order."""
    if value in ("urgent", "high", "normal", "low") or (isinstance(value, int) and 1 <= value <= 1000):
        return value
    raise ValueError("neither urgent, high, normal or low, nor a whole number from 1 to 1000")


Network = Annotated[str, AfterValidator(_check_network)]
AeTitle = Annotated[str, AfterValidator(_check_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]
WebHost = Annotated[str, AfterValidator(_check_web_host)]
Seconds = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class NodeSection(Section):
    """The folder of the node's data, and the node's identity in results."""

    folder: Path = Path("var")
    station_name: str = Field(default="GLIONODE", min_length=1, max_length=16)
    device_serial_number: str = Field(default="unset", min_length=1, max_length=64)


class ScpSection(Section):
    """The storage SCP."""

    ae_title: AeTitle = "GLIONODE"
    host: str = "127.0.0.1"
    port: Port = 11112
    tls: bool = False
    calling_ae_titles: tuple[AeTitle, ...] = ()
    allowed_addresses: tuple[Network, ...] = ()
    max_associations: Annotated[int, Field(ge=1, le=1024)] = 64
    max_pdu_bytes: Annotated[int, Field(ge=4096, le=1048576)] = 131072
    max_instance_mebibytes: Annotated[int, Field(ge=1)] = 4096
    max_study_mebibytes: Annotated[int, Field(ge=1)] = 32768
    network_timeout_seconds: Seconds = 60.0
    watermark_mebibytes: Annotated[int, Field(ge=1)] = 2048
    uid_repair: Literal["refuse", "map"] = "refuse"


class AssemblySection(Section):
    """When a study is processed."""

    stable_seconds: Seconds = 60.0
    series_stable_seconds: Seconds = 15.0
    ceiling_seconds: Seconds = 3600.0
    corrections: Literal["redo", "hold"] = "redo"


class SeriesSection(Section):
    """How the series of each contrast is chosen: terms in addition to the shipped vocabulary, and two policies."""

    rules: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    shortfall: Literal["caution", "refuse"] = "caution"
    compare_images: bool = True
    collect_unknown: bool = True


class SegmentationSection(Section):
    """The methods: model packs in order, mode and precision; and the device with its limits."""

    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("anisotropic_nets_brats17",)
    mode: Literal["slab", "published"] = "slab"
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    memory_mebibytes: Annotated[int, Field(ge=0)] = 2048


class ClinicalSection(Section):
    """What becomes of exams that the method was not made for."""

    postoperative: Literal["caution", "refuse"] = "caution"


class ModelsSection(Section):
    """The folder of installed model packs, and a mirror that replaces their published URLs."""

    folder: Path = Path("models")
    mirror: str = ""


class EngineSection(Section):
    """The durable workflow engine: its database, attempts at a failed study, and heartbeats of workers."""

    database: str = Field(default="", pattern=r"^(|sqlite:///.+|postgresql(\+psycopg)?://.+)$")
    attempts: Annotated[int, Field(ge=1, le=100)] = 5
    attempt_pause_seconds: Seconds = 60.0
    longest_attempt_pause_seconds: Seconds = 3600.0
    max_recoveries: Annotated[int, Field(ge=1, le=100000)] = 20
    heartbeat_seconds: Seconds = 5.0
    dead_seconds: Seconds = 30.0

    @model_validator(mode="after")
    def _check_heartbeat(self) -> EngineSection:
        if self.dead_seconds <= 3 * self.heartbeat_seconds:
            raise ValueError("dead_seconds is not more than three times heartbeat_seconds")
        return self


class LimitsSection(Section):
    """How long each step of a workflow may take."""

    compare_seconds: Seconds = 600.0
    reselect_seconds: Seconds = 600.0
    segment_seconds: Seconds = 1800.0
    report_seconds: Seconds = 300.0
    refuse_seconds: Seconds = 300.0
    request_timeouts: Annotated[float, Field(ge=10)] = 30.0
    notice_seconds: Seconds = 300.0
    retention_seconds: Seconds = 3000.0
    other_seconds: Seconds = 300.0


class DeliverySection(Section):
    """How results are sent, and when a failed delivery is tried again."""

    first_retry_seconds: Seconds = 30.0
    longest_retry_seconds: Seconds = 3600.0
    give_up_days: Annotated[float, Field(gt=0)] = 7.0
    timeout_seconds: Seconds = 60.0
    commitment_wait_seconds: Seconds = 3600.0
    send_refusals: bool = False


class RetentionSection(Section):
    """When inputs and results are deleted."""

    enabled: bool = True
    after: Literal["delivered", "present", "committed"] = "delivered"
    input_days: Annotated[float, Field(ge=0)] = 30.0
    refused_days: Annotated[float, Field(ge=0)] = 0.0
    result_days: Annotated[float, Field(ge=0)] = 365.0


class NotifySection(Section):
    """The services that receive notices, and the states of a study that cause one."""

    urls: tuple[str, ...] = ()
    states: tuple[Literal["refused", "failed", "reported", "conflict", "corrected", "withdrawn"], ...] = (
        "refused", "failed", "conflict", "corrected", "withdrawn",
    )  # fmt: skip


class TlsSection(Section):
    """Profile and certificates of TLS, for both the storage SCP and the destinations."""

    profile: TlsProfile = "bcp195"
    certificate_file: Path | None = None
    key_file: Path | None = None
    ca_file: Path | None = None

    def files(self) -> TlsFiles:
        """The section as the SCP and the SCU use it."""
        return TlsFiles(self.certificate_file, self.key_file, self.ca_file, self.profile)


class AuditSection(Section):
    """The audit trail."""

    enabled: bool = False
    patient_id: bool = True
    syslog_host: str = ""
    syslog_port: Port = 6514

    @model_validator(mode="after")
    def _check_enabled(self) -> AuditSection:
        if self.syslog_host and not self.enabled:
            raise ValueError("syslog_host is set, and enabled is false: nothing would be sent")
        return self


class WebSection(Section):
    """The status page."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 8042
    hosts: tuple[WebHost, ...] = ()


class LogSection(Section):
    """The log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"
    hide_uids: bool = False


_DICOM_KEYS = {"ae_title", "host", "port", "tls", "commitment", "commitment_ae_title", "commitment_addresses"}
_WEB_KEYS = {"url", "user", "password_file", "token_file"}


class PrioritySection(Section):
    """One rule about which studies are processed first: a level, and the conditions that must all hold."""

    level: Annotated[str | int, AfterValidator(_check_level)]
    calling_ae_titles: tuple[AeTitle, ...] = ()
    requested_procedure_priority: tuple[Literal["STAT", "HIGH", "ROUTINE", "MEDIUM", "LOW"], ...] = ()
    words: tuple[Annotated[str, Field(pattern=r"\w")], ...] = ()

    @model_validator(mode="after")
    def _check_conditions(self) -> PrioritySection:
        if not (self.calling_ae_titles or self.requested_procedure_priority or self.words):
            raise ValueError("a rule needs calling_ae_titles, requested_procedure_priority or words")
        return self


class DestinationSection(Section):
    """One peer that results are sent to: by DICOM (C-STORE), or by DICOMweb (STOW-RS)."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    protocol: Literal["dicom", "dicomweb"] = "dicom"
    ae_title: AeTitle | None = None
    host: str | None = Field(default=None, min_length=1)
    port: Port | None = None
    tls: bool = False
    commitment: bool = False
    commitment_ae_title: AeTitle | None = None
    commitment_addresses: tuple[Network, ...] = ()
    url: str | None = Field(default=None, pattern=r"^https?://.+")
    user: str = ""
    password_file: Path | None = None
    token_file: Path | None = None

    @model_validator(mode="after")
    def _check_protocol(self) -> DestinationSection:
        needed = ("ae_title", "host", "port") if self.protocol == "dicom" else ("url",)
        missing = [key for key in needed if getattr(self, key) is None]
        if missing:
            raise ValueError(f"{missing[0]} is missing: protocol {self.protocol} needs it")
        strange = (_WEB_KEYS if self.protocol == "dicom" else _DICOM_KEYS) & self.model_fields_set
        if strange:
            raise ValueError(f"{min(strange)} does not belong to protocol {self.protocol}")
        return self

    def destination(self, tls: TlsSection) -> Destination | WebDestination:
        """The destination as the SCU uses it."""
        if self.protocol == "dicomweb":
            access = (self.user, self.password_file, self.token_file)
            return WebDestination(self.name, self.url or "", *access, tls.ca_file, tls.profile)
        files = tls.files() if self.tls else None
        return Destination(
            self.name,
            self.ae_title or "",
            self.host or "",
            self.port or 0,
            files,
            self.commitment,
            self.commitment_ae_title or "",
            self.commitment_addresses,
        )
