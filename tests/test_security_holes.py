"""The kinds of hole that nodes of this field published in 2026, each shown to be closed here (docs/security.md)."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from command_line import run_glionode
from instances import data_set_bytes, encode_instance, make_instance, sop_instance_uid
from node_process import write_config
from pynetdicom import AE, build_context
from pynetdicom.sop_class import Verification
from receiver_node import ReceiverNode

from node.config import build_config
from node.errors import ConfigError, ModelPackError
from node.methods.card import card_names, read_card
from node.methods.packs import pull
from node.methods.registry import verify
from node.metrics import Metrics
from node.scu.store import send_instances
from node.series.vocabulary import load_vocabulary
from node.web.page import Sources, build_page
from node.worker_process import worker_command

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "node").rglob("*.py"), *(ROOT / "bench").rglob("*.py"), *(ROOT / ".ci").glob("*.py")])

CODE_CARRIERS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "code", "runpy"}
ARCHIVES = {"tarfile", "zipfile", "zipimport"}
CODE_RUNNERS = {"eval", "exec", "compile", "__import__"}
SHELLS = {"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell"}
UNPACKERS = {"extractall", "unpack_archive", "read_pickle", "load_module"}

HOSTILE = ("$(touch HOLE)", "`touch HOLE`", ";touch HOLE;", "|touch HOLE", "a\ntouch HOLE", "{{ 7 * 7 }}", "%(touch)s")
CODE = (
    "__import__('os').system('touch HOLE')",
    "open('HOLE', 'w')",
    "tags.get('x') or exec('HOLE=1')",
    "T1 if True else T2",
)


def calls(file: Path) -> list[ast.Call]:
    """Every call in a source file."""
    return [each for each in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(each, ast.Call)]


def name_of(call: ast.Call) -> tuple[str | None, str]:
    """What is called: the name before the last dot (empty if it is no name, None without a dot), and the last name."""
    function = call.func
    if isinstance(function, ast.Attribute):
        return (function.value.id if isinstance(function.value, ast.Name) else ""), function.attr
    return None, function.id if isinstance(function, ast.Name) else ""


def test_nothing_evaluates_text_as_code() -> None:
    """No source calls eval, exec, compile or __import__, or imports a library whose files are code."""
    wrong = []
    for file in SOURCES:
        wrong += [
            f"{file}: {name}()" for prefix, name in map(name_of, calls(file)) if prefix is None and name in CODE_RUNNERS
        ]
        for each in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(each, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in each.names] if isinstance(each, ast.Import) else [each.module or ""]
                wrong += [f"{file}: import {name}" for name in names if name.split(".")[0] in CODE_CARRIERS | ARCHIVES]
    # one names its two errors alone; the one reader of pickles imports and calls nothing that they name
    # (tests/methods/test_monai_bundle.py, tests/workflow/test_migration.py)
    named = [
        ("methods/torch_weights.py", "pickle"),
        ("methods/torch_weights.py", "zipfile"),
        ("workflow/pickled_records.py", "pickle"),
    ]
    assert wrong == [f"{ROOT / 'node' / file}: import {name}" for file, name in named]


def test_files_that_can_carry_code_are_loaded_only_as_data() -> None:
    """torch's load is told that weights alone are wanted, numpy's that pickles are refused; no other is called."""
    needed = {("torch", "load"): ("weights_only", True), ("np", "load"): ("allow_pickle", False)}
    wrong = []
    for file in SOURCES:
        for call in calls(file):
            called = name_of(call)
            # a TorchScript archive is code: it is loaded where its bytes were compared with the digest of its card
            is_program = ast.unparse(call.func) == "torch.jit.load"
            if called[1] in UNPACKERS or (is_program and file != ROOT / "node" / "methods" / "exported_network.py"):
                wrong.append(f"{file}:{call.lineno}: {ast.unparse(call.func)}")
            if called in needed:
                option, wanted = needed[called]
                told = {each.arg: each.value for each in call.keywords}.get(option)
                if not (isinstance(told, ast.Constant) and told.value is wanted):
                    wrong.append(f"{file}:{call.lineno}: {'.'.join(map(str, called))} without {option}={wanted}")
    assert not wrong


def test_no_shell_is_started() -> None:
    """No source starts a shell: programs get their arguments as a list, never as one text."""
    wrong = []
    for file in SOURCES:
        for call in calls(file):
            prefix, name = name_of(call)
            is_program = prefix == "subprocess" and name in ("run", "Popen", "call", "check_call", "check_output")
            is_text = is_program and isinstance(call.args[0], ast.Constant | ast.JoinedStr)
            if name in SHELLS or is_text or any(keyword.arg == "shell" for keyword in call.keywords):
                wrong.append(f"{file}:{call.lineno}: {prefix}.{name}")
    assert not wrong


@pytest.mark.parametrize("text", CODE + HOSTILE)
def test_rules_of_the_config_are_words(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that is code, a template or a shell command is a phrase that a description may hold, and nothing else."""
    monkeypatch.chdir(tmp_path)
    vocabulary = load_vocabulary({"FLAIR": (text,)})
    assert [word.group for word in vocabulary.words(text)] == ["FLAIR"]
    assert not list(tmp_path.iterdir())


def test_rule_that_is_a_pattern_matches_only_itself() -> None:
    """A rule is no regular expression: one that would match everything, or take for ever, matches no other text."""
    vocabulary = load_vocabulary({"FLAIR": ("(a+)+$", "[a-z]{2,}")})
    assert "FLAIR" not in {word.group for word in vocabulary.words("a" * 40 + "! b zz")}


@pytest.mark.parametrize("key", ["station_name", "folder"])
def test_config_values_are_not_expanded(key: str) -> None:
    """A value that looks like a variable, a template or a command stays what it is."""
    text = "$HOME/{{x}}"
    assert str(getattr(build_config({"node": {key: text}}).node, key)).endswith(text)


@pytest.mark.parametrize("title", ["$(touch HOLE)", "`touch HOLE`", ";touch HOLE", "|touch HOLE", "../../HOLE"])
def test_ae_titles_and_texts_reach_no_shell(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A calling AE title, and texts of an instance, that are shell commands or paths are received like any other."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    node = ReceiverNode(tmp_path / "spool")
    instance = make_instance(1)
    instance.SeriesDescription = instance.PatientName = instance.StationName = title
    with node.receiver:
        association = AE(title).associate(
            "127.0.0.1", node.section.port, [build_context(Verification)], ae_title="GLIONODE"
        )
        assert association.is_established
        association.release()
        file = tmp_path / "elsewhere" / "one.dcm"
        file.write_bytes(encode_instance(instance))
        (outcome,) = send_instances(node.destination, title, [file], 20.0)
        assert outcome.is_delivered
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["one.dcm"]
    assert not list(tmp_path.rglob("HOLE*"))


def test_names_of_files_are_arguments_not_commands(tmp_path: Path) -> None:
    """The path of a config file is one argument of the worker's command, whatever characters it has."""
    file = tmp_path / "a b; touch HOLE $(touch HOLE).toml"
    assert worker_command(file)[-2:] == ["--config", str(file)]


@pytest.mark.parametrize("uid", ["../../HOLE", "1.2/../HOLE", "1.2;touch HOLE", "1.2\0", "/etc/passwd"])
@pytest.mark.parametrize("command", ["show", "retry", "cancel"])
def test_commands_take_no_path_for_a_study(command: str, uid: str, tmp_path: Path) -> None:
    """A command that is given a path instead of a UID refuses it (exit 2), and makes nothing."""
    result = run_glionode(command, uid, "--config", write_config(tmp_path))
    assert result.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


@pytest.mark.parametrize("name", ["../HOLE", "/etc/passwd", "..", "", "anisotropic_nets_brats17/../HOLE"])
def test_name_of_a_pack_is_no_path(name: str, tmp_path: Path) -> None:
    """A pack whose name is a path is unknown, and nothing is made."""
    for act in (lambda: pull(name, tmp_path / "models", str(tmp_path)), lambda: verify(name, tmp_path / "models")):
        with pytest.raises(ModelPackError, match="no model pack"):
            act()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", card_names())
def test_files_of_a_pack_stay_in_its_folder(name: str) -> None:
    """No card names a file outside the pack's folder."""
    for file in read_card(name).files:
        path = Path(file.path)
        assert not path.is_absolute()
        assert ".." not in path.parts


def test_link_in_a_mirror_is_no_way_to_other_files(tmp_path: Path) -> None:
    """A mirror whose file is a link to something else gives a file that does not match its card: nothing is kept."""
    name = card_names()[0]
    file = read_card(name).files[0].path
    secret = tmp_path / "secret"
    secret.write_text("hunter2", encoding="utf-8")
    (tmp_path / "mirror" / name / file).parent.mkdir(parents=True)
    (tmp_path / "mirror" / name / file).symlink_to(secret)
    with pytest.raises(ModelPackError, match="SHA-256 differs"):
        pull(name, tmp_path / "models", str(tmp_path / "mirror"))
    assert not [path for path in (tmp_path / "models").rglob("*") if path.is_file()]
    assert secret.read_text(encoding="utf-8") == "hunter2"


class NoStudies:
    """Stands in for the engine's client: no workflow."""

    def workflows(self, _name: str) -> list[Any]:
        """None."""
        return []

    def marks(self, _names: tuple[str, ...]) -> list[Any]:
        """None."""
        return []


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_page_changes_nothing(method: str, tmp_path: Path) -> None:
    """No path of the page takes a request that could change something, and no answer sets a cookie (no CSRF)."""
    config = build_config({"node": {"folder": str(tmp_path)}})
    app = build_page(config, Sources(NoStudies(), Metrics(), lambda: True))
    paths = ("/", "/studies.json", "/health", "/metrics")

    async def ask(method: str, path: str) -> httpx.Response:
        base = f"http://{config.web.host}:{config.web.port}"
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base) as client:
            return await client.request(method, path)

    for path in paths:
        answer = anyio.run(ask, method, path)
        assert answer.status_code == 405
        assert "set-cookie" not in answer.headers
    assert "<form" not in anyio.run(ask, "GET", "/").text


def test_url_of_a_database_cannot_name_another_driver() -> None:
    """engine.database takes SQLite and PostgreSQL alone: no URL loads another library."""
    with pytest.raises(ConfigError, match="database"):
        build_config({"engine": {"database": "evil+driver:///x"}})


def test_working_folder_is_no_place_for_code(tmp_path: Path) -> None:
    """The worker that a node starts takes no module from the working folder, where anything may lie."""
    (tmp_path / "structlog.py").write_text("open('HOLE', 'w')\n", encoding="utf-8")
    begin = worker_command(None)
    command = [*begin[: begin.index("serve")], "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "HOLE").exists()


def test_hostile_instance_is_where_its_uids_say(tmp_path: Path) -> None:
    """An instance whose texts are paths lies under its UIDs, as any other."""
    node = ReceiverNode(tmp_path / "spool")
    instance = make_instance(1)
    instance.PatientID = instance.AccessionNumber = instance.SeriesDescription = "../../../HOLE"
    file = tmp_path / "one.dcm"
    file.write_bytes(encode_instance(instance))
    with node.receiver:
        (outcome,) = send_instances(node.destination, "SCANNER", [file], 20.0)
    assert outcome.is_delivered
    assert data_set_bytes(node.path().read_bytes()) == data_set_bytes(file.read_bytes())
    assert node.path().name == f"{sop_instance_uid(1)}.dcm"
