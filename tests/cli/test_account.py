"""Who owns what a command leaves, and who may read it: umask, commands of root, modes of files."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import run_glionode
from node_process import running_node, write_config

import node
from node.cli.file_access import weak_files
from node.config import load_config
from node.errors import ConfigError, ModelPackError
from node.methods.card import read_card
from node.methods.packs import load_weights
from node.methods.registry import verify

ROOT = Path(__file__).parents[2]
SPARE = 65534  # "nobody" on Debian; the tests need an account that owns nothing here
PACK = "anisotropic_nets_brats17"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the tests do not run as root, who alone may change accounts")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account can reach; pytest's own are closed to all but one."""
    folder = Path(tempfile.mkdtemp(prefix="glionode-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def open_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python where the spare account can read it, with the libraries of this one, for processes of the test."""
    if all(folder.stat().st_mode & stat.S_IXOTH for folder in Path(sys.executable).resolve().parents):
        return
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = shutil.which(name, path="/usr/local/bin:/usr/bin")
    if found is None:
        reason = f"no other account can read {Path(sys.executable).resolve()}, and there is no {name} in /usr"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    monkeypatch.setattr(sys, "executable", found)
    libraries = [path for path in sys.path if "site-packages" in path or path.startswith(str(ROOT))]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "bench"), *libraries]))


@pytest.fixture
def service_config(open_folder: Path, open_python: None) -> Path:
    """The config of a node whose folder belongs to the spare account."""
    file = write_config(open_folder)
    (open_folder / "var").mkdir(mode=0o700)
    os.chown(open_folder / "var", SPARE, SPARE)
    return file


def everything(folder: Path) -> list[Path]:
    """All below ``folder``."""
    found = sorted(folder.rglob("*"))
    assert found
    return found


def owners(folder: Path) -> set[int]:
    """The owners of all below ``folder``."""
    return {path.lstat().st_uid for path in everything(folder)}


def open_to_others(folder: Path) -> list[Path]:
    """What any other account may read, write or search below ``folder``."""
    return [path for path in everything(folder) if path.lstat().st_mode & 0o077 and not path.is_symlink()]


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def run(config: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, with the umask of a careless shell."""
    command = [sys.executable, "-m", "node", *map(str, arguments), "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, umask=0)


def test_files_are_for_their_owner_whatever_the_umask(tmp_path: Path) -> None:
    """What a command leaves in the node's folder no other account may read, although the shell's umask allows all."""
    config = write_config(tmp_path)
    assert run(config, "check").returncode in (0, 1)  # it rehearses what receiving needs
    assert open_to_others(tmp_path / "var") == []
    assert mode(tmp_path / "var") == 0o700


def test_results_outside_the_folder_are_for_their_owner(tmp_path: Path) -> None:
    """A file that --out names is for its owner alone, too: it may describe patients."""
    source = tmp_path / "in.csv"
    source.write_text("description\nT1 axial\n", encoding="utf-8")
    done = run(write_config(tmp_path), "classify", "--csv", source, "--out", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    assert mode(tmp_path / "out.csv") == 0o600


@needs_root
@pytest.mark.parametrize("command", ["studies", pytest.param("check", marks=pytest.mark.slow)])
def test_root_leaves_no_file_of_its_own(service_config: Path, command: str) -> None:
    """What root runs on the folder of the service's account works, and leaves files of that account."""
    done = run(service_config, command)
    assert done.returncode == (1 if command == "check" else 0), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    folder = service_config.parent / "var"
    assert not list(folder.iterdir()) or owners(folder) == {SPARE}


@needs_root
@pytest.mark.slow
def test_node_that_root_starts_runs_as_the_owner(service_config: Path) -> None:
    """``serve`` started by root on the service's folder runs as its account, worker included, and leaves its files."""
    with running_node(service_config) as running:
        running.wait_until(running.worker_pids)
        for pid in (running.process.pid, *running.worker_pids()):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            ids = {line.split()[0]: set(line.split()[1:]) for line in lines if line.startswith(("Uid", "Gid"))}
            assert ids == {"Uid:": {str(SPARE)}, "Gid:": {str(pwd.getpwuid(SPARE).pw_gid)}}
    assert owners(service_config.parent / "var") == {SPARE}
    assert open_to_others(service_config.parent / "var") == []


@needs_root
@pytest.mark.slow
def test_folder_that_is_not_there_is_made_by_the_owner_above(open_folder: Path, open_python: None) -> None:
    """A folder that root's command makes belongs to the owner of the folder above it."""
    config = write_config(open_folder)
    os.chown(open_folder, SPARE, SPARE)
    assert run(config, "check").returncode in (0, 1)  # it tries what receiving needs
    assert (open_folder / "var").stat().st_uid == SPARE


@needs_root
@pytest.mark.slow
def test_account_without_name_is_taken_too(service_config: Path) -> None:
    """An owner that the user database does not know is taken with the folder's group."""
    folder = service_config.parent / "var"
    os.chown(folder, 47110815, 47110816)
    assert run(service_config, "check").returncode in (0, 1)  # it tries what receiving needs
    assert {(path.stat().st_uid, path.stat().st_gid) for path in everything(folder)} == {(47110815, 47110816)}


@needs_root
def test_account_that_may_not_be_taken_is_told_with_the_command(
    service_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where root may not change accounts, the command writes nothing and says what to run instead."""

    def refuse(_user: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    for name in ("setuid", "setgid", "setgroups"):
        monkeypatch.setattr(os, name, refuse)
    result = run_glionode("studies", "--config", service_config)
    assert result.exit_code == 2
    assert f"runuser -u {pwd.getpwuid(SPARE).pw_name} -- glionode ..." in result.output
    assert list((service_config.parent / "var").iterdir()) == []


@needs_root
def test_command_that_writes_elsewhere_stays_roots(service_config: Path) -> None:
    """A command that writes only where --out says goes on as root, whose folder the service could not write."""
    source = service_config.parent / "in.csv"
    source.write_text("description\nT1 axial\n", encoding="utf-8")
    out = service_config.parent / "out.csv"
    done = run(service_config, "classify", "--csv", source, "--out", out)
    assert done.returncode == 0, done.stderr
    assert out.stat().st_uid == 0


@needs_root
@pytest.mark.slow
def test_pack_that_root_installs_is_readable_by_all(open_folder: Path, open_python: None, models_folder: Path) -> None:
    """A pack pulled by root into a folder of its own, under the umask of every command, verifies for the service."""
    mirror = open_folder / "mirror"
    shutil.copytree(models_folder / PACK, mirror / PACK)
    models = open_folder / "opt" / "models"
    config = write_config(open_folder, models={"folder": str(models)})
    (open_folder / "var").mkdir()
    os.chown(open_folder / "var", SPARE, SPARE)
    done = run(config, "models", "pull", PACK, "--mirror", mirror)
    assert done.returncode == 0, done.stderr
    assert owners(models) == {0}
    done = run(config, "models", "verify", PACK)  # as the spare account
    assert done.returncode == 0, done.stderr


def test_pack_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack whose files this account may not read is an error with the file and the cure, not a missing file."""
    card = read_card(PACK)
    folder = tmp_path / PACK
    for name in ("weights.safetensors", *(file.path for file in card.files)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    is_open = Path.open

    def closed(path: Path, *arguments: Any, **keywords: Any) -> object:
        if path.is_relative_to(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return is_open(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(ModelPackError, match=r"weights.safetensors: Permission denied; run: chmod -R a\+rX"):
        load_weights(card, tmp_path)
    with pytest.raises(ModelPackError, match=r"Permission denied; run: chmod"):
        verify(PACK, tmp_path)


def weak(tmp_path: Path, more: str = "") -> list[str]:
    """What `weak_files` says of a node whose config ends with ``more``."""
    file = write_config(tmp_path)
    file.write_text(file.read_text("utf-8") + more, encoding="utf-8")
    file.chmod(0o644)
    (tmp_path / "var").mkdir(mode=0o700, exist_ok=True)
    return list(weak_files(load_config(file), file))


def test_closed_files_are_no_fault(tmp_path: Path) -> None:
    """A folder for its owner, and a config without secrets that all may read, are well."""
    assert weak(tmp_path) == []


SECRETS = {
    "engine.database": '[engine]\ndatabase = "postgresql://glionode:hunter2@db.example.org/glionode"\n',
    "notify.urls": '[notify]\nurls = ["jsons://hooks.example.org/hunter2"]\n',
    "destination.url": '[[destination]]\nname = "a"\nprotocol = "dicomweb"\nurl = "https://user:hunter2@a.example.org"\n',
}


@pytest.mark.parametrize("key", SECRETS)
def test_config_with_a_password_that_all_may_read(tmp_path: Path, key: str) -> None:
    """A config that holds a password, and that every account may read, is told by its key, without the password."""
    (line,) = weak(tmp_path, SECRETS[key])
    assert "config.toml: every account may read it (mode 0644)" in line
    assert f"{key} may hold a password; run: chmod o-rwx" in line
    assert "hunter2" not in line
    file = tmp_path / "config.toml"
    file.chmod(0o640)  # root owns it, the service's group reads it
    assert list(weak_files(load_config(file), file)) == []


def test_config_that_others_may_change(tmp_path: Path) -> None:
    """A config that others may write is told even without a secret: it says where results go."""
    weak(tmp_path)
    file = tmp_path / "config.toml"
    file.chmod(0o666)
    (line,) = weak_files(load_config(file), file)
    assert "other accounts may change it (mode 0666)" in line


@pytest.mark.parametrize("key", ["tls.key_file", "destination a: password_file", "destination a: token_file"])
def test_secret_file_that_all_may_read(tmp_path: Path, key: str) -> None:
    """A key, password or token file that every account may read is told by its setting; closed, it is well."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2", encoding="utf-8")
    name = key.rpartition(" ")[2].rpartition(".")[2]
    section = "[tls]" if "tls" in key else '[[destination]]\nname="a"\nprotocol="dicomweb"\nurl="https://a.example.org"'
    more = f'{section}\n{name} = "{secret}"\n'
    secret.chmod(0o644)
    assert [line.startswith(f"{key}: {secret} is open to other accounts") for line in weak(tmp_path, more)] == [True]
    secret.chmod(0o600)
    assert weak(tmp_path, more) == []


@pytest.mark.parametrize("is_closed_above", [True, False])
def test_secret_file_that_cannot_be_read_or_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_closed_above: bool
) -> None:
    """A key in a folder that this account may not search is told; one that is missing is told by who needs it."""
    secret, looked_at = tmp_path / "closed" / "key", Path.stat

    def look(path: Path, **keywords: Any) -> os.stat_result:
        if path == secret and is_closed_above:
            raise PermissionError(13, "Permission denied")
        return looked_at(path, **keywords)

    monkeypatch.setattr(Path, "stat", look)
    name = pwd.getpwuid(os.geteuid()).pw_name
    expected = [f"tls.key_file: {secret} cannot be read by {name}"] if is_closed_above else []
    assert weak(tmp_path, f'[tls]\nkey_file = "{secret}"\n') == expected


def test_folder_that_is_open_to_others(tmp_path: Path) -> None:
    """A folder that an earlier version made open is told, with the command; the check fails by it."""
    weak(tmp_path)
    (tmp_path / "var").chmod(0o755)
    result = run_glionode("check", "--config", tmp_path / "config.toml")
    expected = f"FAIL files: node.folder: {tmp_path / 'var'} is open to other accounts (mode 0755); run: chmod 700"
    assert expected in result.output
    assert result.exit_code == 1


@needs_root
def test_folder_of_someone_else(tmp_path: Path) -> None:
    """A folder of another account, and another account's files in the folder, are told with who and what."""
    weak(tmp_path)
    folder, file = tmp_path / "var", tmp_path / "config.toml"
    (folder / "spool").mkdir()
    os.chown(folder / "spool", SPARE, SPARE)
    name = pwd.getpwuid(SPARE).pw_name
    assert list(weak_files(load_config(file), file)) == [
        f"node.folder: {folder / 'spool'} belongs to {name}; run: chown -R 0:0 {folder}"
    ]
    os.chown(folder, SPARE, SPARE)
    assert list(weak_files(load_config(file), file)) == [
        f"node.folder: {folder} belongs to {name}, and this is root; run glionode as {name}"
    ]


@needs_root
def test_program_files_that_the_owner_cannot_read(service_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner who cannot read glionode's program files is told so, instead of a module that is not found."""
    from node.cli import account

    for name in ("setuid", "setgid", "setgroups"):
        monkeypatch.setattr(os, name, lambda _: None)
    monkeypatch.setattr(os, "access", lambda *_: False)
    environment = dict(os.environ)
    with pytest.raises(ConfigError, match="cannot read the program's file"):
        account.act_as_owner(service_config.parent / "var")
    monkeypatch.setattr(os, "environ", environment)
    assert Path(node.__file__).exists()
