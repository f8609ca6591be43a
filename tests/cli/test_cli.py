"""The command line as scripts rely on it: exit codes, JSON, and what is said when something is wrong."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import nibabel
import numpy as np
import pytest
from command_line import run_glionode
from database import make_database
from faults import free_port
from instances import PATIENT_ID, PATIENT_NAME
from node_process import write_config
from pydicom.dataset import Dataset
from small_study import make_small_study, study_instance_uid, write_small_study

from node import __version__
from node.cli.options import MIRROR_VARIABLE
from node.config import load_config
from node.methods.card import read_card
from node.workflow.client import WorkflowClient

CONTRASTS = ["T1", "T1c", "T2", "FLAIR"]

MODEL = "anisotropic_nets_brats17"
SHIPPED = "glionode_any_t1c"


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A node's config."""
    return write_config(tmp_path / "node")


@pytest.fixture
def study() -> dict[str, list[Dataset]]:
    """The small study."""
    return make_small_study()


# ---- exit codes ------------------------------------------------------------------------------------------------


def test_module_and_command_are_the_same() -> None:
    """``python -m node`` is the command line, under the command's name."""
    done = subprocess.run([sys.executable, "-m", "node", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"glionode, version {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "--role", "everything"),
        ("process", "no such folder", "--out", "out"),
        ("process",),
        ("models", "pull"),
        ("show",),
        *((command, uid) for command in ("show", "retry", "cancel") for uid in ("..", "no UID", "1.2." + "3" * 64)),
        ("nonsense",),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    """A wrong command, option or argument ends with exit code 2 and the usage on standard error."""
    result = run_glionode(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: ")


@pytest.mark.parametrize("command", [("studies",), ("serve",), ("models", "list"), ("series", ".")], ids=" ".join)
@pytest.mark.parametrize(
    ("text", "reason"),
    [("[scp]\nport = 70000\n", "scp.port"), ("[nowhere]\n", "nowhere: unknown key"), ("[scp", "not valid TOML")],
    ids=["value", "key", "syntax"],
)
def test_wrong_config_ends_with_2(command: tuple[str, ...], text: str, reason: str, tmp_path: Path) -> None:
    """A config that is wrong ends every command with exit code 2 and one line that names file and key."""
    file = tmp_path / "config.toml"
    file.write_text(text)
    result = run_glionode(*command, "--config", file)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {file}: ")
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1


def test_missing_config_ends_with_2(tmp_path: Path) -> None:
    """A config file that is named must be there."""
    result = run_glionode("studies", "--config", tmp_path / "none.toml")
    assert (result.exit_code, result.stderr) == (2, f"error: {tmp_path / 'none.toml'}: no such file\n")


def test_process_without_the_model_ends_with_1(tmp_path: Path, config_file: Path, study: dict) -> None:
    """The node's own trouble is exit code 1 and says what mends it; no result of any kind is written."""
    folder = write_small_study(tmp_path / "study", study)
    result = run_glionode("process", folder, "--out", tmp_path / "out", "--config", config_file)
    assert result.exit_code == 1
    assert f"glionode models pull {MODEL}" in result.stderr
    assert not (tmp_path / "out" / "result.json").exists()


def test_process_with_an_unknown_model_ends_with_1(tmp_path: Path, config_file: Path, study: dict) -> None:
    """A model pack that glionode does not know is named with those it knows."""
    folder = write_small_study(tmp_path / "study", study)
    result = run_glionode("process", folder, "--out", tmp_path / "out", "--model", "nnn", "--config", config_file)
    cure = "Others are installed by: glionode models add FOLDER"
    assert result.exit_code == 1
    assert result.stderr == f"error: no model pack 'nnn'; known: {MODEL}, {SHIPPED}. {cure}\n"


def test_process_with_a_wrong_device_ends_with_2(tmp_path: Path, config_file: Path, study: dict) -> None:
    """A device that is none is a usage error that names the setting."""
    folder = write_small_study(tmp_path / "study", study)
    result = run_glionode("process", folder, "--out", tmp_path / "out", "--device", "tpu", "--config", config_file)
    assert result.exit_code == 2
    assert "segmentation.device" in result.stderr


def test_unwritable_out_is_told(tmp_path: Path, config_file: Path, study: dict) -> None:
    """Results that cannot be written end with exit code 1 and one line, not with a traceback."""
    del study["FLAIR"]
    folder = write_small_study(tmp_path / "study", study)
    (tmp_path / "file").write_text("in the way")
    result = run_glionode("process", folder, "--out", tmp_path / "file" / "out", "--config", config_file)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert str(tmp_path / "file" / "out") in result.stderr


# ---- series and classify ---------------------------------------------------------------------------------------


def test_series_as_json(tmp_path: Path, config_file: Path, study: dict) -> None:
    """``series --json`` names the four series chosen and gives each series' evidence; no patient data."""
    folder = write_small_study(tmp_path / "study", study)
    result = run_glionode("series", folder, "--json", "--config", config_file)
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["study_instance_uid"] == study_instance_uid(study)
    assert told["chosen"] == {contrast: study[contrast][0].SeriesInstanceUID for contrast in CONTRASTS}
    assert told["refusal"] is None
    assert [line.partition(":")[0] for line in told["short"]] == CONTRASTS
    assert [(each["contrast"], each["chosen"], bool(each["evidence"])) for each in told["series"]] == [
        (contrast, True, True) for contrast in CONTRASTS
    ]
    assert PATIENT_ID not in result.output
    assert PATIENT_NAME.split("^")[0] not in result.output


def test_series_into_a_pipe(tmp_path: Path, config_file: Path, study: dict) -> None:
    """Other programs get one line per series with all columns and the whole UID; cautions go to standard error."""
    folder = write_small_study(tmp_path / "study", study)
    result = run_glionode("series", folder, "--config", config_file)
    assert result.exit_code == 0
    header, *rows = [line.split("\t") for line in result.stdout.splitlines()]
    found = {row[header.index("contrast")]: row for row in rows}
    uids = {contrast: row[header.index("series_instance_uid")] for contrast, row in found.items()}
    assert uids == {contrast: study[contrast][0].SeriesInstanceUID for contrast in CONTRASTS}
    assert {len(row) for row in rows} == {len(header)}
    assert result.stderr.startswith("caution: ")


def test_series_on_a_terminal(tmp_path: Path, config_file: Path, study: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """For people each series is a row of a table."""
    folder = write_small_study(tmp_path / "study", study)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the output for a terminal
    monkeypatch.setenv("COLUMNS", "80")
    shown = run_glionode("series", folder, "--config", config_file).stdout
    assert "Which series is which" in shown
    assert all(contrast in shown for contrast in CONTRASTS)


def test_series_refuses(tmp_path: Path, config_file: Path, study: dict) -> None:
    """A study that cannot be selected ends with exit code 3 and the reason; each series is explained all the same."""
    del study["T1c"]
    folder = write_small_study(tmp_path / "study", study)
    result = run_glionode("series", folder, "--json", "--config", config_file)
    assert result.exit_code == 3
    assert result.stderr.startswith("refused: no T1c")
    told = json.loads(result.stdout)
    assert (told["chosen"], told["short"]) == ({}, [])
    assert told["refusal"].startswith("no T1c")
    assert [(each["contrast"], each["chosen"], each["note"]) for each in told["series"]] == [
        (contrast, False, f"would be chosen: the only {contrast}") for contrast in ("T1", "T2", "FLAIR")
    ]
    shown = run_glionode("series", folder, "--config", config_file)
    assert shown.exit_code == 3
    assert "would be" in shown.stdout


def test_series_takes_its_options_first(tmp_path: Path, config_file: Path, study: dict) -> None:
    """Options may stand before the folder, and ``series --help`` names both forms."""
    folder = write_small_study(tmp_path / "study", study)
    result = run_glionode("series", "--json", "--config", config_file, folder)
    assert set(json.loads(result.stdout)["chosen"]) == set(CONTRASTS)
    told = run_glionode("series", "--help").stdout
    assert "STUDY_DIR" in told
    assert "unknown" in told


def test_series_unknown_lists_what_was_collected(tmp_path: Path, config_file: Path) -> None:
    """``series unknown`` gives each description with its count, what the timing suggests, and a rule."""
    assert "none so far" in run_glionode("series", "unknown", "--config", config_file).stdout
    file = load_config(config_file).unknown_descriptions_file
    file.parent.mkdir(parents=True, exist_ok=True)
    entry = {"count": 3, "first_seen": "2024-01-01", "last_seen": "2024-02-01", "physics": "FLAIR"}
    file.write_text(json.dumps({"Wasserdunkel tra": entry}), encoding="utf-8")
    result = run_glionode("series", "unknown", "--json", "--config", config_file)
    assert result.exit_code == 0
    rule = 'FLAIR = ["wasserdunkel"]'
    assert json.loads(result.stdout) == [{"description": "Wasserdunkel tra", **entry, "rule": rule}]
    assert "2024-02" in run_glionode("series", "unknown", "--config", config_file).stdout


def test_classify_reads_a_folder_of_dicom(tmp_path: Path, config_file: Path, study: dict) -> None:
    """``classify --dicom`` writes a row per series; what cannot be read is told and does not end it."""
    folder, out = write_small_study(tmp_path / "study", study), tmp_path / "out.csv"
    (folder / "broken.dcm").write_bytes(b"no DICOM")
    result = run_glionode("classify", "--dicom", folder, "--out", out, "--config", config_file)
    assert result.exit_code == 0, result.output
    assert "4 series classified, 1 files unreadable" in result.stdout
    assert "unreadable: broken.dcm: not a DICOM Part 10 file" in result.stderr
    with out.open(newline="", encoding="utf-8") as file:
        assert [row["predicted"] for row in csv.DictReader(file)] == list(CONTRASTS)


@pytest.mark.parametrize("sources", [(), ("--csv", "in.csv", "--dicom", ".")])
def test_classify_wants_one_source(tmp_path: Path, config_file: Path, sources: tuple[str, ...], monkeypatch) -> None:
    """Neither or both of --csv and --dicom is a usage error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("description\nT1\n")
    result = run_glionode("classify", *sources, "--out", "out.csv", "--config", config_file)
    assert result.exit_code == 2
    assert "give either --csv or --dicom" in result.output


@pytest.mark.slow
def test_bench_series_prints_its_table(tmp_path: Path, config_file: Path) -> None:
    """``bench series`` shows accuracy, recall and precision of the rules about words, and speed beside a peer's."""
    (tmp_path / "in.csv").write_text("description,label,lang\nT1 KM,T1c,de\nT2,T2,en\n")
    result = run_glionode("bench", "series", tmp_path / "in.csv", "--instances", "640", "--config", config_file)
    assert result.exit_code == 0, result.output
    assert "100.0%" in result.stdout
    assert "lang: each left out" in result.stdout
    assert re.search(r"descriptions judged +│ 10000 ", result.stdout)
    assert re.search(r"instances read and selected from +│ 640 ", result.stdout)


def test_classify_adds_a_column(tmp_path: Path, config_file: Path) -> None:
    """``classify`` keeps rows and columns, and adds what each description is."""
    rows = [("T1w MPRAGE post KM", "1"), ("FLAIR ax", "2"), ("t2_tse_tra", "3"), ("localizer", "4"), ("Grüße, 5%", "5")]
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    with source.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("description", "number"), *rows])
    result = run_glionode("classify", "--csv", source, "--out", out, "--config", config_file)
    assert result.exit_code == 0, result.output
    with out.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [(row["description"], row["number"]) for row in found] == rows
    assert [row["predicted"] for row in found] == ["T1c", "FLAIR", "T2", "other", "other"]


# ---- models ----------------------------------------------------------------------------------------------------


def models_config(tmp_path: Path, folder: Path) -> Path:
    """A config whose models lie in ``folder``."""
    return write_config(tmp_path / "node", models={"folder": str(folder)})


def test_no_model_to_verify(tmp_path: Path) -> None:
    """Without other packs, ``models verify`` checks what is shipped; one that is not there fails, with the command."""
    config_file = models_config(tmp_path, tmp_path / "models")
    result = run_glionode("models", "verify", "--config", config_file)
    assert (result.exit_code, result.stdout) == (0, f"{SHIPPED}: every file matches its card\n")
    result = run_glionode("models", "verify", MODEL, "--config", config_file)
    assert result.exit_code == 1
    assert f"glionode models pull {MODEL}" in result.stderr


@pytest.mark.parametrize("how", ["option", "variable", "config"])
def test_unreachable_mirror_is_told(how: str, tmp_path: Path) -> None:
    """A mirror that cannot be reached ends with exit code 1, its URL, and the command that uses another."""
    url = f"http://127.0.0.1:{free_port()}/packs"
    models = {"folder": str(tmp_path / "models")} | ({"mirror": url} if how == "config" else {})
    config_file = write_config(tmp_path / "node", models=models)
    option = ["--mirror", url] if how == "option" else []
    env = {MIRROR_VARIABLE: url if how == "variable" else "", "NO_PROXY": "127.0.0.1"}
    result = run_glionode("models", "pull", MODEL, *option, "--config", config_file, env=env)
    assert result.exit_code == 1
    assert f"error: {url}/" in result.stderr
    assert f"{MIRROR_VARIABLE}=<folder or URL> glionode models pull {MODEL}" in result.stderr
    assert list((tmp_path / "models" / MODEL).rglob("*.part")) == []


def test_mirror_without_the_pack_is_told(tmp_path: Path) -> None:
    """A mirror folder that does not hold the pack is named, with the file that was looked for."""
    config_file = models_config(tmp_path, tmp_path / "models")
    result = run_glionode("models", "pull", MODEL, "--mirror", tmp_path, "--config", config_file)
    assert result.exit_code == 1
    assert f"{read_card(MODEL).files[0].path}: not in the mirror folder {tmp_path}" in result.stderr


def test_corrupted_mirror_is_refused(tmp_path: Path) -> None:
    """A file that is not what the card says is refused by its checksum, and nothing of it is installed."""
    file = read_card(MODEL).files[0]
    corrupted = tmp_path / "mirror" / MODEL / file.path
    corrupted.parent.mkdir(parents=True)
    corrupted.write_bytes(b"x" * file.size_bytes)
    models = tmp_path / "models"
    result = run_glionode(
        "models", "pull", MODEL, "--mirror", tmp_path / "mirror", "--config", models_config(tmp_path, models)
    )
    assert result.exit_code == 1
    assert f"{file.path}: SHA-256 differs from the card" in result.stderr
    assert [path for path in models.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_pull_from_an_installed_folder(tmp_path: Path, models_folder: Path) -> None:
    """A folder of installed packs serves as a mirror: pull, list and verify agree that the pack is there and right."""
    config_file = models_config(tmp_path, tmp_path / "models")
    pulled = run_glionode("models", "pull", MODEL, "--mirror", models_folder, "--config", config_file)
    assert pulled.exit_code == 0, pulled.output
    assert f"{MODEL} is installed in {tmp_path / 'models' / MODEL}" in pulled.stdout
    listed = run_glionode("models", "list", "--config", config_file)
    assert f"{MODEL} {read_card(MODEL).version} (cascade): installed\n" in listed.stdout
    verified = run_glionode("models", "verify", "--config", config_file)
    told = "".join(f"{each}: every file matches its card\n" for each in (MODEL, SHIPPED))
    assert (verified.exit_code, verified.stdout) == (0, told)


@pytest.fixture
def tampered(tmp_path: Path, models_folder: Path) -> Path:
    """A folder with the pack, of whose converted weights one bit is another."""
    folder = tmp_path / "models"
    shutil.copytree(models_folder, folder)
    weights = folder / MODEL / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    return folder


@pytest.mark.slow
def test_tampered_weights_are_not_used(tmp_path: Path, tampered: Path, study: dict) -> None:
    """Weights that differ from the card in one bit are refused at load: by process, verify and check."""
    config_file = models_config(tmp_path, tampered)
    folder = write_small_study(tmp_path / "study", study)
    processed = run_glionode("process", folder, "--out", tmp_path / "out", "--config", config_file)
    verified = run_glionode("models", "verify", "--config", config_file)
    for result in (processed, verified):
        assert (result.exit_code, result.stderr) == (
            1,
            f"error: model pack {MODEL}: the weights are not those of its card\n",
        )
    assert "FAIL segmentation.models" in run_glionode("check", "--config", config_file).stdout


# ---- studies and show ------------------------------------------------------------------------------------------


def test_studies_of_a_fresh_node(config_file: Path) -> None:
    """A node that never ran has no studies; asking is no error."""
    result = run_glionode("studies", "--json", "--config", config_file)
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


def test_many_studies_are_listed_on_demand(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table holds those that changed last, and says that there are more; --all and --json leave none out."""
    monkeypatch.setattr("node.cli.studies._SHOWN", 2)
    with closing(WorkflowClient(load_config(config_file))) as client:
        for number in range(3):
            client.enqueue("gpu", "process", f"w{number}", attributes={"study_instance_uid": f"1.2.{number}"})
    shown = run_glionode("studies", "--config", config_file)
    assert sum(f"1.2.{number}" in shown.stdout for number in range(3)) == 2
    assert "1 studies that changed earlier are not shown: --all" in shown.stderr
    every = run_glionode("studies", "--all", "--config", config_file)
    assert all(f"1.2.{number}" in every.stdout for number in range(3))
    assert every.stderr == ""
    assert len(json.loads(run_glionode("studies", "--json", "--config", config_file).stdout)) == 3


def test_study_that_is_being_received(tmp_path: Path, config_file: Path) -> None:
    """What lies in the spool is listed by ``studies`` and ``show``; an unknown study is told."""
    (tmp_path / "node" / "var" / "spool" / "1.2.3" / "1.2.3.4").mkdir(parents=True)
    make_database(load_config(config_file))
    (line,) = json.loads(run_glionode("studies", "--json", "--config", config_file).stdout)
    assert (line["study_instance_uid"], line["state"]) == ("1.2.3", "receiving")
    shown = json.loads(run_glionode("show", "1.2.3", "--config", config_file).stdout)
    assert shown == line | {"history": [], "result": None}
    result = run_glionode("show", "1.2.4", "--config", config_file)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "error: no study 1.2.4\n")


def test_result_that_retention_deletes_meanwhile_is_none(
    tmp_path: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``show`` does not end in an error if the result is gone in the moment that it is read."""
    config = load_config(config_file)
    result, real = config.work_folder / "none" / "result.json", Path.read_text
    for folder in (config.spool_folder / "1.2.3", result.parent):
        folder.mkdir(parents=True)
    result.write_text("{}", encoding="utf-8")
    make_database(config)

    def read(self: Path, *arguments: str, **keywords: str) -> str:
        if self == result:
            self.unlink()
        return real(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "read_text", read)
    assert json.loads(run_glionode("show", "1.2.3", "--config", config_file).stdout)["result"] is None
    assert not result.exists()


@pytest.mark.parametrize("role", ["receive", "work"])
def test_pack_that_no_method_runs_is_told_at_the_start(tmp_path: Path, role: str) -> None:
    """A pack that no card describes ends ``serve`` at once, naming the key; a study would find out hours later."""
    config_file = write_config(tmp_path, segmentation={"models": ["br16_t1c2tc"]})
    result = run_glionode("serve", "--role", role, "--config", config_file)
    assert result.exit_code == 2
    assert "segmentation.models: no model pack 'br16_t1c2tc'" in result.stderr


def test_dead_database_is_told(tmp_path: Path) -> None:
    """A database that does not answer ends with exit code 1 and one line that names the key."""
    server = f"127.0.0.1:{free_port()}"
    database = {"database": f"postgresql://node:geheim@{server}/node"}
    config_file = write_config(tmp_path, engine=database)
    for command in (("studies",), ("show", "1.2.3"), ("spool",)):
        result = run_glionode(*command, "--config", config_file)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"error: engine.database: PostgreSQL at {server}, database node: it does not")
        assert "geheim" not in result.stderr


@pytest.mark.parametrize(
    ("values", "arguments", "reason"),
    [
        ([1, 3, 4], [], r"labels 3 \(one\) and 4 \(one\) occur"),
        ([1, 2, 3], ["--labels", "brats2017"], "one: label 3 has no meaning"),
    ],
    ids=["ambiguous", "not of the convention named"],
)
def test_evaluate_refuses_label_maps_that_it_could_only_guess(
    tmp_path: Path, values: list[int], arguments: list[str], reason: str
) -> None:
    """The command ends before a network is loaded, and names the case and its label."""
    (tmp_path / "one").mkdir()
    image = nibabel.Nifti1Image(np.array(values, np.uint8).reshape(-1, 1, 1), np.eye(4))
    nibabel.save(image, tmp_path / "one" / "one_seg.nii.gz")
    result = run_glionode("evaluate", str(tmp_path), "--out", str(tmp_path / "r.json"), *arguments)
    assert result.exit_code == 3
    assert re.search(reason, result.stderr)
    assert not (tmp_path / "r.json").exists()
