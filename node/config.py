"""Frozen, validated settings. Every setting is declared here once; ``config.toml`` documents each, and a test compares.

A section is handed to the part that needs it; nothing reads settings from anywhere else.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from node.errors import ConfigError
from node.study import Destination

DEFAULT_FILE = Path("config.toml")


def _check_ae_title(value: str) -> str:
    """AE value representation (PS3.5 6.2): 1-16 characters, no backslash or control characters, not only spaces."""
    if not 1 <= len(value) <= 16 or not value.strip() or "\\" in value or not (value.isascii() and value.isprintable()):
        raise ValueError("an AE title has 1 to 16 printable ASCII characters, no backslash, not only spaces")
    return value


AeTitle = Annotated[str, AfterValidator(_check_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeSection(_Section):
    """Where the node keeps what it must not lose, and who it is."""

    folder: Path = Path("var")
    station_name: str = Field(default="GLIONODE", min_length=1, max_length=16)
    device_serial_number: str = Field(default="unset", min_length=1, max_length=64)


class ScpSection(_Section):
    """The storage SCP."""

    ae_title: AeTitle = "GLIONODE"
    host: str = "127.0.0.1"
    port: Port = 11112
    calling_ae_titles: tuple[AeTitle, ...] = ()
    max_associations: Annotated[int, Field(ge=1, le=1024)] = 64
    max_pdu_bytes: Annotated[int, Field(ge=4096, le=1048576)] = 131072
    network_timeout_seconds: Seconds = 60.0
    watermark_mebibytes: Annotated[int, Field(ge=1)] = 2048


class AssemblySection(_Section):
    """When a study is processed."""

    stable_seconds: Seconds = 60.0
    series_stable_seconds: Seconds = 15.0
    ceiling_seconds: Seconds = 3600.0


class SeriesSection(_Section):
    """Which series is which: own rules beside the shipped vocabulary."""

    rules: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class SegmentationSection(_Section):
    """Method, device and its limits."""

    model: str = "anisotropic_nets_brats17"
    mode: Literal["slab", "published"] = "slab"
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    memory_mebibytes: Annotated[int, Field(ge=0)] = 2048


class ModelsSection(_Section):
    """Where model packs are installed, and where they are fetched from instead of their published URLs."""

    folder: Path = Path("models")
    mirror: str = ""


class EngineSection(_Section):
    """The durable workflow engine's database."""

    database: str = Field(default="", pattern=r"^(|sqlite:///.+|postgresql(\+psycopg)?://.+)$")


class DeliverySection(_Section):
    """How results are sent, and sent again."""

    first_retry_seconds: Seconds = 30.0
    longest_retry_seconds: Seconds = 3600.0
    give_up_days: Annotated[float, Field(gt=0)] = 7.0
    timeout_seconds: Seconds = 60.0


class WebSection(_Section):
    """The status page."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 8042


class LogSection(_Section):
    """The log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"
    hide_uids: bool = False


class DestinationSection(_Section):
    """One peer that results are sent to."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    ae_title: AeTitle
    host: str = Field(min_length=1)
    port: Port

    def destination(self) -> Destination:
        """The frozen fact that the sender works with."""
        return Destination(self.name, self.ae_title, self.host, self.port)


class Config(_Section):
    """All settings."""

    node: NodeSection = NodeSection()
    scp: ScpSection = ScpSection()
    assembly: AssemblySection = AssemblySection()
    series: SeriesSection = SeriesSection()
    segmentation: SegmentationSection = SegmentationSection()
    models: ModelsSection = ModelsSection()
    engine: EngineSection = EngineSection()
    delivery: DeliverySection = DeliverySection()
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
