"""Settings: what config.toml says is what the node does, and what is wrong is named."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from node.config import Config, build_config, load_config
from node.config_sections import DestinationSection, PrioritySection
from node.errors import ConfigError
from node.series.vocabulary import load_vocabulary
from node.study import Destination, WebDestination

FILE = Path(__file__).parents[1] / "config.toml"
SECTIONS: dict[str, type[BaseModel]] = {
    name: {"destination": DestinationSection, "priority": PrioritySection}.get(name, field.annotation)
    for name, field in Config.model_fields.items()
}


def documented() -> dict:
    """config.toml with the settings that are commented out switched on."""
    return tomllib.loads(re.sub(r"(?m)^#(?=\S)", "", FILE.read_text(encoding="utf-8")))


def write(folder: Path, text: str) -> Path:
    """``text`` as a config file."""
    file = folder / "config.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_config_file_holds_the_defaults():
    """The shipped config.toml parses to exactly the values that a missing file stands for."""
    shipped = load_config(FILE)
    assert shipped.folder == FILE.parent / "var"
    assert shipped == build_config({"node": {"folder": str(shipped.folder)}})


def test_config_file_documents_every_setting():
    """Each section and each key of the code stands in config.toml, and none that the code does not know."""
    values = documented()
    assert set(values) == set(SECTIONS)
    for name, section in SECTIONS.items():
        keys = set().union(*values[name]) if name in ("destination", "priority") else set(values[name])
        assert keys == set(section.model_fields), name


def test_config_file_explains_every_setting():
    """A comment stands directly above each key."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    settings = [number for number, line in enumerate(lines) if re.match(r"#?[a-z_]+ = ", line)]
    assert len(settings) >= sum(len(section.model_fields) for section in SECTIONS.values())
    assert not [lines[number] for number in settings if not lines[number - 1].startswith("# ")]


def test_config_file_example_destinations_are_valid():
    """The commented-out destinations, one of each protocol, work when their marks are removed."""
    pacs, archive = build_config(documented()).destinations()
    assert pacs == Destination("pacs", "PACS", "pacs.example.org", 11112, commitment_ae_title="PACS_SCU")
    assert isinstance(archive, WebDestination)
    assert archive.url == "https://pacs.example.org/dicom-web"


def test_config_file_names_the_groups_of_series_rules():
    """The groups of [series.rules] that the comment lists are those of the vocabulary."""
    listed = re.search(r"Groups: (.*?)\. For", FILE.read_text(encoding="utf-8").replace("\n# ", " "))
    with pytest.raises(ConfigError, match=r"series\.rules\.none: unknown group") as caught:
        load_vocabulary({"none": ("term",)})
    known = str(caught.value).partition("the groups are ")[2]
    assert listed is not None
    assert set(listed[1].split(", ")) == set(known.split(", "))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[scp]\nports = 1", "scp.ports: unknown key"),
        ("[receiver]\nport = 1", "receiver: unknown key"),
        ("[assembly]\nstable_seconds = '1 min'", "assembly.stable_seconds"),
        ("[assembly]\nstable_seconds = 0", "assembly.stable_seconds"),
        ("[scp]\nwatermark_mebibytes = 1.5", "scp.watermark_mebibytes"),
        ("[scp]\nport = 70000", "scp.port"),
        ("[scp]\nae_title = 'SEVENTEEN_LETTERS'", "scp.ae_title"),
        ("[scp]\nae_title = ''", "scp.ae_title"),
        ("[scp]\nae_title = '   '", "scp.ae_title"),
        ("[scp]\nae_title = 'A\\B'", "scp.ae_title"),
        ("[scp]\nae_title = 'KÖLN'", "scp.ae_title"),
        ("[scp]\ncalling_ae_titles = ['PACS', '']", "scp.calling_ae_titles.1"),
        ("[segmentation]\nmode = 'fast'", "segmentation.mode"),
        ("[segmentation]\ndevice = 'gpu'", "segmentation.device"),
        ("[engine]\ndatabase = 'mysql://host/name'", "engine.database"),
        ("[scp]\nallowed_addresses = ['10.1.2']", "scp.allowed_addresses.0"),
        ("[[destination]]\nname = 'pacs'", "destination.0: Value error, ae_title is missing"),
        ("[[priority]]\nlevel = 'soon'\nwords = ['stroke']", "priority.0.level: Value error, neither urgent"),
        ("[[priority]]\nlevel = 0\nwords = ['stroke']", "priority.0.level: Value error, neither urgent"),
        ("[[priority]]\nlevel = 'high'", "priority.0: Value error, a rule needs"),
        ("[[priority]]\nwords = ['stroke']", "priority.0.level: Field required"),
        ("[[priority]]\nlevel = 1\nwords = ['?']", "priority.0.words.0"),
        ("[[priority]]\nlevel = 1\nrequested_procedure_priority = ['stat']", "priority.0.requested_procedure"),
        ("[[destination]]\nname = 'a b'\nae_title = 'A'\nhost = 'h'\nport = 1", "destination.0.name"),
        ("[[destination]]\nname = 'web'\nprotocol = 'dicomweb'", "destination.0: Value error, url is missing"),
        (
            "[[destination]]\nname = 'web'\nprotocol = 'dicomweb'\nurl = 'http://h'\nport = 1",
            "destination.0: Value error, port does not belong",
        ),
        ("[engine]\nheartbeat_seconds = 10\ndead_seconds = 20", "engine: Value error, dead_seconds"),
        ("[scp]\ntls = true", "tls.certificate_file"),
        ("[log]\nlevel = 'loud'", "log.level"),
    ],
)
def test_wrong_setting_is_named(tmp_path: Path, text: str, key: str):
    """A key that is unknown, missing or has an impossible value stops the start, and file and key are told."""
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert f"{file}: {key}" in str(caught.value)


def test_destinations_need_names_of_their_own(tmp_path: Path):
    """Two destinations of one name are refused, for deliveries are told apart by it."""
    peer = "[[destination]]\nname = 'pacs'\nae_title = 'PACS'\nhost = 'localhost'\nport = 104\n"
    file = write(tmp_path, peer + peer)
    with pytest.raises(ConfigError, match=r"config\.toml: destination\.name"):
        load_config(file)


def test_folders_are_relative_to_the_config_file(tmp_path: Path):
    """A relative node.folder lies beside the file, wherever the node was started."""
    config = load_config(write(tmp_path, "[node]\nfolder = 'kept'\n[models]\nfolder = 'packs'"))
    assert config.spool_folder == tmp_path / "kept" / "spool"
    assert config.work_folder == tmp_path / "kept" / "work"
    assert config.models_folder == tmp_path / "kept" / "packs"
    assert config.database_url == f"sqlite:///{tmp_path / 'kept' / 'glionode.sqlite'}"


def test_absolute_folders_and_database_are_taken_as_they_are(tmp_path: Path):
    """Absolute folders do not depend on the file, and a database that is set is used."""
    text = "[node]\nfolder = '/srv/glionode'\n[models]\nfolder = '/srv/packs'\n[engine]\ndatabase = 'postgresql://h/n'"
    config = load_config(write(tmp_path, text))
    assert (config.folder, config.models_folder) == (Path("/srv/glionode"), Path("/srv/packs"))
    assert config.database_url == "postgresql://h/n"


def test_missing_file_is_named(tmp_path: Path):
    """A config file that was asked for must be there."""
    with pytest.raises(ConfigError, match=r"absent\.toml: no such file"):
        load_config(tmp_path / "absent.toml")


@pytest.mark.parametrize("content", [b"[scp\nport = 1", b"[scp]\nport = 1\nport = 2", b"\xff\xfe"])
def test_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes):
    """A file that cannot be parsed, or is no UTF-8, is told by its name."""
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.toml: not valid TOML"):
        load_config(file)


def test_without_a_file_the_working_folder_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With no file given, config.toml of the working folder counts if it is there, else the defaults."""
    monkeypatch.chdir(tmp_path)
    assert load_config().scp.port == Config().scp.port
    write(tmp_path, "[scp]\nport = 104")
    assert load_config().scp.port == 104


def test_command_line_values_are_validated():
    """A device or mode from the command line is checked like one from the file, and None changes nothing."""
    config = build_config({})
    assert config.with_segmentation(mode="published", device=None).segmentation.mode == "published"
    with pytest.raises(ConfigError, match=r"^segmentation\.device"):
        config.with_segmentation(device="gpu")


def test_settings_cannot_be_changed():
    """A config is frozen: no part can change what another part was handed."""
    with pytest.raises(ValueError, match="frozen"):
        build_config({}).scp.port = 104


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"model": "a"}, r'segmentation\.model: replaced by a list: models = \["a"\]'),
        ({"model": "a", "t1c_only_model": "b"}, r'segmentation\.t1c_only_model: .* models = \["a", "b"\]'),
        ({"t1c_only_model": ""}, r'models = \["anisotropic_nets_brats17"\]'),
    ],
)
def test_keys_of_earlier_versions_name_the_new_one(section, told):
    """A config with the keys that the list of models replaced is refused, with the line that is to be written."""
    with pytest.raises(ConfigError, match=told):
        build_config({"segmentation": section})
