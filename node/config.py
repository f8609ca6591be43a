"""Frozen, validated settings. Every setting is declared here once; ``config.toml`` documents each, and a test compares.

A section is handed to the part that needs it; nothing reads settings from anywhere else.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from node.config_sections import (
    AssemblySection,
    DeliverySection,
    DestinationSection,
    EngineSection,
    LogSection,
    ModelsSection,
    NodeSection,
    NotifySection,
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
    models: ModelsSection = ModelsSection()
    engine: EngineSection = EngineSection()
    delivery: DeliverySection = DeliverySection()
    retention: RetentionSection = RetentionSection()
    notify: NotifySection = NotifySection()
    tls: TlsSection = TlsSection()
    web: WebSection = WebSection()
    log: LogSection = LogSection()
    destination: tuple[DestinationSection, ...] = ()

    def with_segmentation(self, **changes: str | None) -> Config:
        """A config with other values in [segmentation]; None leaves a value as it is.

        Raises:
            ConfigError: naming the key.
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
        """A config that sends nothing."""
        return self.model_copy(update={"destination": ()})

    @property
    def folder(self) -> Path:
        """Everything the node keeps."""
        return self.node.folder

    @property
    def spool_folder(self) -> Path:
        """Instances as received: ``<study>/<series>/<sop>.dcm``."""
        return self.folder / "spool"

    @property
    def work_folder(self) -> Path:
        """Results, one folder per workflow."""
        return self.folder / "work"

    @property
    def commitments_folder(self) -> Path:
        """Storage commitments asked for and not yet answered: one file per Transaction UID."""
        return self.folder / "commitments"

    @property
    def unknown_descriptions_file(self) -> Path:
        """Series descriptions that no word of the vocabulary decides."""
        return self.folder / "unknown_descriptions.json"

    @property
    def models_folder(self) -> Path:
        """Installed model packs."""
        return self.folder / self.models.folder

    @property
    def memory_bytes(self) -> int | None:
        """What feature maps may take; None: no limit of ours."""
        return self.segmentation.memory_mebibytes * 2**20 or None

    @property
    def database_url(self) -> str:
        """The engine's database; SQLite inside the node's folder unless set."""
        return self.engine.database or f"sqlite:///{(self.folder / 'glionode.sqlite').absolute()}"


def _reason(error: ValidationError, file: Path | None) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    message = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
    return f"{file or 'config'}: {key}: {message}"


def build_config(values: dict[str, Any], file: Path | None = None) -> Config:
    """Validate ``values`` (the parsed TOML). Relative folders are relative to ``file``'s folder, or the working folder.

    Raises:
        ConfigError: naming the key.
    """
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
        ConfigError: the file is missing, is no TOML, or a key is wrong (named).
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
