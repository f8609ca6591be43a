"""The config: frozen, validated settings from one TOML file.

``config_sections.py`` declares every setting, ``config.toml`` documents each, and a test compares the two. Each part of
the node gets its section as an argument; no part reads settings from another source.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from node.config_sections import (
    AssemblySection,
    AuditSection,
    ClinicalSection,
    DeliverySection,
    DestinationSection,
    EngineSection,
    LimitsSection,
    LogSection,
    ModelsSection,
    NodeSection,
    NotifySection,
    PrioritySection,
    RetentionSection,
    ScpSection,
    Section,
    SegmentationSection,
    SeriesSection,
    TlsSection,
    WebSection,
)
from node.errors import ConfigError
from node.study import Destination, WebDestination

DEFAULT_FILE = Path("config.toml")


class Config(Section):
    """All settings."""

    node: NodeSection = NodeSection()
    scp: ScpSection = ScpSection()
    assembly: AssemblySection = AssemblySection()
    series: SeriesSection = SeriesSection()
    segmentation: SegmentationSection = SegmentationSection()
    clinical: ClinicalSection = ClinicalSection()
    models: ModelsSection = ModelsSection()
    engine: EngineSection = EngineSection()
    limits: LimitsSection = LimitsSection()
    delivery: DeliverySection = DeliverySection()
    retention: RetentionSection = RetentionSection()
    notify: NotifySection = NotifySection()
    tls: TlsSection = TlsSection()
    audit: AuditSection = AuditSection()
    web: WebSection = WebSection()
    log: LogSection = LogSection()
    destination: tuple[DestinationSection, ...] = ()
    priority: tuple[PrioritySection, ...] = ()

    def with_segmentation(self, **changes: str | tuple[str, ...] | None) -> Config:
        """A config with other values in [segmentation]; None leaves a value as it is.

        Raises:
            ConfigError: a value is invalid; the text names the key.
        """
        values = self.segmentation.model_dump() | {key: value for key, value in changes.items() if value is not None}
        try:
            return self.model_copy(update={"segmentation": SegmentationSection.model_validate(values)})
        except ValidationError as error:
            raise ConfigError(_reason(error, None).replace("config: ", "segmentation.")) from None

    def destinations(self) -> tuple[Destination | WebDestination, ...]:
        """Every configured destination."""
        return tuple(section.destination(self.tls) for section in self.destination)

    def without_destinations(self) -> Config:
        """A config with no destination, so that no results are sent."""
        return self.model_copy(update={"destination": ()})

    @property
    def folder(self) -> Path:
        """The folder of all data of the node."""
        return self.node.folder

    @property
    def spool_folder(self) -> Path:
        """The folder of instances as received: ``<study>/<series>/<sop>.dcm``."""
        return self.folder / "spool"

    @property
    def work_folder(self) -> Path:
        """The folder of results, with one folder per workflow."""
        return self.folder / "work"

    @property
    def commitments_folder(self) -> Path:
        """The folder of unanswered requests for storage commitment: one file per Transaction UID."""
        return self.folder / "commitments"

    @property
    def audit_folder(self) -> Path:
        """The folder of the audit trail."""
        return self.folder / "audit"

    @property
    def unknown_descriptions_file(self) -> Path:
        """The file of series descriptions that no word of the vocabulary decides."""
        return self.folder / "unknown_descriptions.json"

    @property
    def models_folder(self) -> Path:
        """The folder of installed model packs."""
        return self.folder / self.models.folder

    @property
    def memory_bytes(self) -> int | None:
        """Bytes of memory that feature maps may take; None: no limit set by the config."""
        return self.segmentation.memory_mebibytes * 2**20 or None

    @property
    def database_url(self) -> str:
        """The URL of the engine's database; SQLite in the node's folder unless set."""
        return self.engine.database or f"sqlite:///{(self.folder / 'glionode.sqlite').absolute()}"


def _reason(error: ValidationError, file: Path | None) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    message = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
    return f"{file or 'config'}: {key}: {message}"


def _refuse_old_keys(values: dict[str, Any], file: Path | None) -> None:
    """Name the key that took the place of one of earlier versions.

    Raises:
        ConfigError: ``values`` hold such a key.
    """
    section = values.get("segmentation", {})
    old = [key for key in ("model", "t1c_only_model") if isinstance(section, dict) and key in section]
    if old:
        names = ", ".join(f'"{section[key]}"' for key in old if section[key]) or '"anisotropic_nets_brats17"'
        keys = " and ".join(f"segmentation.{key}" for key in old)
        raise ConfigError(f"{file or 'config'}: {keys}: replaced by a list: models = [{names}]")


def build_config(values: dict[str, Any], file: Path | None = None) -> Config:
    """Validate ``values`` (the parsed TOML). ``node.folder`` is relative to the folder of ``file``, if given.

    Raises:
        ConfigError: a value is invalid; the text names the key.
    """
    _refuse_old_keys(values, file)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_reason(error, file)) from None
    names = [destination.name for destination in config.destination]
    if len(names) != len(set(names)):
        raise ConfigError(f"{file or 'config'}: destination.name: each destination needs a name of its own")
    if config.scp.tls and not (config.tls.certificate_file and config.tls.key_file):
        raise ConfigError(f"{file or 'config'}: tls.certificate_file and tls.key_file are needed by scp.tls")
    base = file.parent if file else Path()
    folder = (base / config.node.folder).absolute()
    return config.model_copy(update={"node": config.node.model_copy(update={"folder": folder})})


def load_config(file: Path | None = None) -> Config:
    """Read ``file``; without one, ``config.toml`` of the working folder if it exists, else the defaults.

    Raises:
        ConfigError: the file is missing or not valid TOML, or a value is invalid; the text names file or key.
    """
    if file is None:
        if not DEFAULT_FILE.exists():
            return build_config({})
        file = DEFAULT_FILE
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None
    return build_config(values, file)
