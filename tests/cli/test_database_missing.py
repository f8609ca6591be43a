"""Commands whose database is missing, unreadable or another file: they say so, make none, and call nothing received."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from command_line import run_glionode
from database import make_database
from node_process import write_config
from postgres import running_postgres

from node.config import Config, build_config, load_config
from node.errors import EngineError
from node.processing.study_ledger import open_ledger
from node.processing.study_status import read_study_statuses
from node.workflow.client import WorkflowClient
from node.workflow.database_access import database_exists

STUDY = "1.2.3"
READING = [("studies",), ("studies", "--json"), ("spool",), ("spool", "--clean")]
OF_A_STUDY = [("show", STUDY), ("retry", STUDY), ("cancel", STUDY)]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A node's config."""
    return write_config(tmp_path / "node")


def put_study(config: Config) -> None:
    """A study in the spool."""
    (config.spool_folder / STUDY / "1.2.3.4").mkdir(parents=True)


def all_files(folder: Path) -> dict[Path, bytes]:
    """Every file below ``folder``, with its bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_fresh_node_has_no_study(config_file: Path, command: tuple[str, ...]) -> None:
    """Where nothing was received there is no study and no error, and the command leaves no file and no folder."""
    result = run_glionode(*command, "--config", config_file)
    assert (result.exit_code, result.stderr) == (0, "")
    assert not load_config(config_file).folder.exists()


@pytest.mark.parametrize("command", OF_A_STUDY, ids=" ".join)
def test_fresh_node_does_not_know_a_study(config_file: Path, command: tuple[str, ...]) -> None:
    """A command on one study says that there is none, and leaves nothing behind."""
    result = run_glionode(*command, "--config", config_file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: no study {STUDY}: this node has received none yet\n"
    assert not load_config(config_file).folder.exists()


@pytest.mark.parametrize("command", [*READING, *OF_A_STUDY], ids=" ".join)
@pytest.mark.parametrize("trace", ["spool", "work"])
def test_missing_database_is_told_with_its_file(config_file: Path, command: tuple[str, ...], trace: str) -> None:
    """If there are studies or results, a missing database is an error that names it; none is made in its place."""
    config = load_config(config_file)
    (config.folder / trace / STUDY / "1.2.3.4").mkdir(parents=True)
    result = run_glionode(*command, "--config", config_file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: engine.database: {config.folder / 'glionode.sqlite'} is missing or empty")
    assert "backup" in result.stderr
    assert all_files(config.folder) == {}


def test_delivered_study_is_never_called_received(config_file: Path) -> None:
    """A study that the lost database knew is not listed as if it were arriving, by command, page or metrics."""
    config = load_config(config_file)
    put_study(config)
    with closing(WorkflowClient(config)) as client:
        client.enqueue("q", "process", "w", "{}", attributes={"study_instance_uid": STUDY})
        assert [each.state for each in read_study_statuses(config, client)] == ["stable"]
        for file in config.folder.glob("glionode.sqlite*"):
            file.unlink()
        for _ in range(2):  # page and metrics ask through a client that was open before: an error, or what was true
            with suppress(EngineError):
                assert [each.state for each in read_study_statuses(config, client)] == ["stable"]
    for file in config.folder.glob("glionode.sqlite*"):  # SQLite may have made an empty one
        file.unlink()
    for _ in range(2):
        with pytest.raises(EngineError, match=r"glionode\.sqlite is missing or empty"):
            read_study_statuses(config)


def make_other_database(file: Path) -> None:
    """A database of another program."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE birds (name TEXT)")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda file: file.touch(), "is missing or empty"),
        (make_other_database, "is missing or empty"),
        (lambda file: file.write_bytes(b"no database" * 999), "file is not a database; restore it from a backup"),
        (Path.mkdir, "is no file"),
    ],
    ids=["empty", "another program's", "garbage", "folder"],
)
def test_file_that_is_no_database_of_the_node_is_told(
    config_file: Path, make: Callable[[Path], None], reason: str
) -> None:
    """What lies under the database's name is left as it is."""
    config = load_config(config_file)
    put_study(config)
    make(file := config.folder / "glionode.sqlite")
    before = all_files(config.folder)
    result = run_glionode("studies", "--config", config_file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert str(file) in result.stderr
    assert reason in result.stderr
    assert all_files(config.folder) == before


@contextmanager
def as_another_user() -> Iterator[None]:
    """Be nobody for a while, if this process is root; others are stopped by a file's mode alone."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter, as pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="glionode-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize(("place", "mode"), [("file", 0o400), ("file", 0o000), ("folder", 0o555), ("folder", 0o000)])
def test_database_of_another_user_is_told_with_user_and_cure(open_folder: Path, place: str, mode: int) -> None:
    """The error names file or folder, who may not use it, and whom to run the command as."""
    config = build_config({"node": {"folder": str(open_folder / "var")}})
    make_database(config)
    file = config.folder / "glionode.sqlite"
    file.chmod(0o666)
    target = file if place == "file" else file.parent
    target.chmod(mode)
    try:
        with as_another_user(), pytest.raises(EngineError, match=rf"engine\.database: {target}.* may not ") as error:
            database_exists(config)
    finally:
        target.chmod(0o700)
    assert "run the command as " in str(error.value)


@pytest.mark.slow
def test_postgresql_without_the_tables_is_a_missing_database(tmp_path: Path) -> None:
    """With studies it is an error that names server and database, without the password; no table is made."""
    with running_postgres() as url:
        named = url.replace("glionode@", "glionode:geheim@")
        config = build_config({"node": {"folder": str(tmp_path)}, "engine": {"database": named}})
        with open_ledger(config) as client:
            assert client is None
        put_study(config)
        with pytest.raises(EngineError, match=r"PostgreSQL at 127\.0\.0\.1:\d+, database postgres is missing") as error:
            read_study_statuses(config)
        assert "geheim" not in str(error.value)
        assert not database_exists(config)
        make_database(config)
        assert [each.state for each in read_study_statuses(config)] == ["receiving"]
