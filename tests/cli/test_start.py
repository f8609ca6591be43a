"""Commands start fast because they import only what they need: which libraries each leaves out."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import click
import pytest
from node_process import write_config
from small_study import make_small_study, write_small_study

from node.cli.lazy_group import LazyGroup
from node.cli.main import glionode
from node.config import load_config
from node.workflow.client import WorkflowClient
from node.workflow.engine import STUDY_QUEUE

ROOT = Path(__file__).parents[2]

COMPUTING = {
    "torch", "SimpleITK", "highdicom", "dicom2nifti", "deepbet", "nibabel", "nilearn", "matplotlib", "scipy", "pandas",
}  # fmt: skip
"""What only images need."""
ENGINE = {"dbos", "sqlalchemy", "psycopg"}
NETWORK = {"pynetdicom", "starlette", "uvicorn", "jinja2", "apprise", "dicomweb_client"}
PIXELS = {"pydicom", "numpy"}
CONFIG = {"pydantic", "structlog", "rich"}

COMMANDS = {  # command line: what it imports nothing of
    ("--help",): COMPUTING | ENGINE | NETWORK | PIXELS | CONFIG,
    ("--version",): COMPUTING | ENGINE | NETWORK | PIXELS | CONFIG,
    ("bench", "--help"): COMPUTING | ENGINE | NETWORK | PIXELS | CONFIG,
    ("studies",): COMPUTING | ENGINE | NETWORK | PIXELS,
    ("studies", "--json"): COMPUTING | ENGINE | NETWORK | PIXELS,
    ("series", "exam"): COMPUTING | ENGINE | NETWORK,
    ("series", "unknown"): COMPUTING | ENGINE | NETWORK,
    ("conflicts",): COMPUTING | ENGINE | NETWORK,
    ("spool",): COMPUTING | NETWORK,
    ("show", "1.2.3"): COMPUTING | NETWORK,
    ("models", "list"): COMPUTING | ENGINE | NETWORK,
}
PROCESSES = {  # what each process of the node imports before it has work to do: what it imports nothing of
    "import node.app, node.web.page, node.scp.server, node.scp.assembly, node.delivery.commitment_rounds": COMPUTING,
    "import node.app, node.delivery.delivery, node.notify.notices, node.workflow.engine": COMPUTING,
    "import node.processing.computing": COMPUTING | NETWORK,
}


def imported(folder: Path, *arguments: str) -> tuple[set[str], str]:
    """The top-level modules that Python imports with ``arguments`` in ``folder``, and what it prints."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'bench'}"}
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 0, [line for line in lines if not line.startswith("import time:")]
    names = [line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")]
    return {name.partition(".")[0] for name in names}, done.stdout


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a node with one study in its database, and of the small study's files."""
    folder = tmp_path_factory.mktemp("start")
    config = load_config(write_config(folder))
    with closing(WorkflowClient(config)) as client:
        client.enqueue(STUDY_QUEUE, "process", "0" * 32, attributes={"study_instance_uid": "1.2.3"})
    write_small_study(folder / "exam", make_small_study())
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_imports_only_what_it_needs(node_folder: Path, command: tuple[str, ...]) -> None:
    """A short command does its work, and leaves out the libraries that others need."""
    found, printed = imported(node_folder, "-m", "node", *command)
    assert printed
    assert found & COMMANDS[command] == set()


@pytest.mark.parametrize("code", PROCESSES, ids=["receiver", "worker", "computing"])
def test_process_imports_only_what_it_needs_at_its_start(tmp_path: Path, code: str) -> None:
    """What the node's processes import before there is a study leaves out what only a study needs."""
    found, _ = imported(tmp_path, "-c", code)
    assert found & PROCESSES[code] == set()


def groups(command: click.Command, name: str) -> list[tuple[str, LazyGroup]]:
    """The groups of deferred commands, with their names."""
    if not isinstance(command, LazyGroup):
        return []
    context = click.Context(command)
    inner = [(each, command.get_command(context, each)) for each in command.list_commands(context)]
    return [(name, command), *(found for each, one in inner if one for found in groups(one, f"{name} {each}"))]


def test_list_of_commands_says_what_their_help_says() -> None:
    """The summary of a command that is not imported for the list is how the command's own help begins."""
    found = groups(glionode, "glionode")
    assert [name for name, _ in found] == ["glionode", "glionode bench"]
    for name, group in found:
        for each, deferred in group.deferred.items():
            command = deferred.load()
            assert command.name == each, f"{name} {each}"
            summary = click.Command(each, help=deferred.summary).get_short_help_str(1000)
            assert summary == ("" if command.hidden else command.get_short_help_str(1000)), f"{name} {each}"
