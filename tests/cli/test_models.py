"""``glionode models``: packs of other software are added, listed, verified and checked."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from command_line import run_glionode
from faults import FakePacs, free_port
from foreign_packs import BUNDLE_WEIGHTS, FOLD, bundle_pack, nnunet_pack, torchscript_pack
from node_process import write_config

from node.methods import added_pack
from node.methods.card import CARD, card_names, read_card, read_card_file
from node.methods.registry import verify

PUBLISHED, SHIPPED = "anisotropic_nets_brats17", "glionode_any_t1c"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The config of a node whose packs lie in ``models``."""
    return write_config(tmp_path / "node", models={"folder": str(tmp_path / "models")})


def models(node: Path, *arguments: object) -> Result:
    """``glionode models ...`` for the node."""
    return run_glionode("models", *arguments, "--config", node)


def packs_in(folder: Path) -> list[str]:
    """What lies in the folder of packs, hidden or not."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_pack_is_added_listed_and_verified(tmp_path: Path, node: Path) -> None:
    """A pack is copied with its card, readable for all, without what its card does not list; it is listed."""
    source = nnunet_pack(tmp_path / "my_nnunet")
    (source / "progress.png").write_bytes(b"not listed")
    added = models(node, "add", source)
    assert added.exit_code == 0, added.output
    target = tmp_path / "models" / "my_nnunet"
    assert f"my_nnunet is installed in {target}" in added.stdout
    files = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    assert files == sorted([CARD, "dataset.json", FOLD, "plans.json"])
    assert all((target / each).read_bytes() == (source / each).read_bytes() for each in files)
    assert all(path.stat().st_mode & stat.S_IROTH for path in (target, *target.rglob("*")))
    listed = models(node, "list").stdout
    assert "my_nnunet 1 (nnunet-v2): installed\n  needs T1c, FLAIR\n" in listed
    verified = models(node, "verify")
    assert (verified.exit_code, verified.stdout) == (
        0,
        f"{SHIPPED}: every file matches its card\nmy_nnunet: every file matches its card\n",
    )


def test_list_fits_a_narrow_terminal_and_json_holds_all(tmp_path: Path, node: Path) -> None:
    """Nothing is wider than 80 columns or taller than seven lines, however long its accuracy is; JSON has it whole."""
    words = "Dice 0.5 in a study of ours, " * 40
    source = torchscript_pack(tmp_path / "wordy", measured_accuracy=words, licence="x " * 99)
    assert models(node, "add", source).exit_code == 0
    listed = models(node, "list").stdout
    assert max(map(len, listed.splitlines())) <= 80
    blocks = listed.strip().split("\n\n")
    assert [block.split()[0] for block in blocks] == [PUBLISHED, SHIPPED, "wordy"]
    assert max(len(block.splitlines()) for block in blocks) <= 7
    entries = {each["name"]: each for each in json.loads(models(node, "list", "--json").stdout)}
    assert entries["wordy"]["measured_accuracy"] == words
    assert entries["wordy"]["files"][0]["path"] == "network.ts"
    assert {name: each["installed"] for name, each in entries.items()} == {
        PUBLISHED: False,
        SHIPPED: True,
        "wordy": True,
    }


def test_card_from_another_place(tmp_path: Path, node: Path) -> None:
    """``--card`` gives the card of a folder that has none; the pack is installed under the card's name."""
    source = torchscript_pack(tmp_path / "export_7")
    (source / CARD).rename(tmp_path / "mine.toml")
    without = models(node, "add", source)
    assert (without.exit_code, without.stderr) == (1, f"error: {source / CARD}: No such file or directory\n")
    added = models(node, "add", source, "--card", tmp_path / "mine.toml")
    assert added.exit_code == 0, added.output
    assert "its network is a program" in added.stdout
    assert read_card("export_7", tmp_path / "models").kind == "torchscript"


@pytest.mark.parametrize("name", ["taken", PUBLISHED, SHIPPED])
def test_name_that_exists_is_refused(tmp_path: Path, node: Path, name: str) -> None:
    """Neither a pack that is installed nor one of glionode's own is replaced."""
    assert models(node, "add", torchscript_pack(tmp_path / "taken")).exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "models").rglob("*") if path.is_file()}
    again = models(node, "add", torchscript_pack(tmp_path / "again", name=name))
    assert again.exit_code == 1
    assert f"card.toml: name: there is a pack '{name}' already" in again.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "models").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("key", "value"), [("is_shipped", True), ("kind", "cascade"), ("kind", "pickle"), ("name", "../out"), ("files", [])]
)
def test_card_that_is_no_foreign_one_is_refused(tmp_path: Path, node: Path, key: str, value: Any) -> None:
    """What only glionode's own packs are, an unknown kind, or a name that is a path, is refused by file and key."""
    source = torchscript_pack(tmp_path / "odd", **{key: value})
    result = models(node, "add", source)
    assert result.exit_code == 1
    assert f"{source / CARD}: {'source_url' if value == 'cascade' else key}" in result.stderr
    assert packs_in(tmp_path / "models") == []


def test_pack_with_other_files_than_its_card_says_is_not_installed(tmp_path: Path, node: Path) -> None:
    """Each missing or changed file is named, and nothing is installed."""
    source = nnunet_pack(tmp_path / "spoilt")
    (source / "plans.json").write_text("{}")
    (source / FOLD).unlink()
    result = models(node, "add", source)
    assert result.exit_code == 1
    assert "spoilt: plans.json differs from the card" in result.stderr
    assert f"spoilt: {FOLD} is missing" in result.stderr
    assert packs_in(tmp_path / "models") == []


def test_interrupted_copy_leaves_nothing(tmp_path: Path, node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk fails in the midst of the copies, there is no pack, and no part of one."""
    write = added_pack._write
    written = []

    def fails(file: Path, content: bytes) -> None:
        if written:
            raise OSError(28, "No space left on device", str(file))
        written.append(file)
        write(file, content)

    monkeypatch.setattr(added_pack, "_write", fails)
    result = models(node, "add", nnunet_pack(tmp_path / "large"))
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert packs_in(tmp_path / "models") == []
    assert "large" not in card_names(tmp_path / "models")


class Opens:
    """An object whose unpickling would make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


def test_nothing_of_a_pack_is_loaded_when_it_is_added(tmp_path: Path, node: Path) -> None:
    """Weights that hold code are copied as they are; verify then names them, and neither runs the code."""
    source = bundle_pack(tmp_path / "trap", weights={"w": Opens(tmp_path / "ran")})
    assert models(node, "add", source).exit_code == 0
    verified = models(node, "verify", "trap")
    assert verified.exit_code == 1
    assert f"error: model pack trap: {BUNDLE_WEIGHTS}: it holds more than weights" in verified.stderr
    assert not (tmp_path / "ran").exists()


def test_verify_says_every_fault_and_goes_on(tmp_path: Path, node: Path) -> None:
    """Each fault of each pack is one line, a broken card among them; the packs that are right are told as well."""
    for name in ("one", "two", "well"):
        assert models(node, "add", nnunet_pack(tmp_path / name)).exit_code == 0
    folder = tmp_path / "models"
    (folder / "one" / "plans.json").write_text("{}")
    (folder / "one" / "dataset.json").unlink()
    (folder / "two" / CARD).write_text('name = "two"\nkind = "onnx"\n')
    verified = models(node, "verify")
    assert verified.exit_code == 1
    assert verified.stderr.splitlines() == [
        "error: model pack one: plans.json differs from the card",
        "error: model pack one: dataset.json is missing",
        f"error: {folder / 'two' / CARD}: version: is missing",
    ]
    assert verified.stdout.splitlines() == [f"{each}: every file matches its card" for each in (SHIPPED, "well")]
    assert f"two: {folder / 'two' / CARD}: version: is missing\n" in models(node, "list").stdout


def checked(tmp_path: Path, *names: str) -> list[str]:
    """What ``glionode check`` says of a list of packs."""
    sections = {"segmentation": {"models": list(names)}, "models": {"folder": str(tmp_path / "models")}}
    lines = run_glionode("check", "--config", write_config(tmp_path / "node", **sections)).stdout.splitlines()
    return [line for line in lines if line[5:].startswith("segmentation.models: ")]


def test_check_says_what_is_wrong_with_a_listed_pack(tmp_path: Path, node: Path) -> None:
    """A pack that was added and is damaged fails the check, also where another one is at hand."""
    assert models(node, "add", nnunet_pack(tmp_path / "mine")).exit_code == 0
    assert checked(tmp_path, "mine") == ["ok   segmentation.models: mine: every file matches its card"]
    (tmp_path / "models" / "mine" / "plans.json").unlink()
    found = checked(tmp_path, "mine", SHIPPED)
    assert found[0] == "FAIL segmentation.models: model pack mine: plans.json is missing"
    assert found[1].startswith(f"ok   segmentation.models: {SHIPPED}")


def test_check_warns_of_a_pack_that_another_one_stands_in_for(tmp_path: Path, node: Path) -> None:
    """A pack that is not fetched is a warning with the command and what runs instead; a failure if nothing does."""
    warned, well = checked(tmp_path, PUBLISHED, SHIPPED)
    assert warned == (
        f"warn segmentation.models: model pack {PUBLISHED} is not installed; run: glionode models pull {PUBLISHED}; "
        f"until then {SHIPPED} runs in its place, for exams that it fits"
    )
    assert well.startswith("ok ")
    (alone,) = checked(tmp_path, PUBLISHED)
    assert alone.startswith(f"FAIL segmentation.models: model pack {PUBLISHED} is not installed")
    (unknown, _) = checked(tmp_path, "my_pack", SHIPPED)
    assert unknown.startswith("FAIL segmentation.models: no model pack 'my_pack'")
    assert "glionode models add FOLDER" in unknown


def test_warning_alone_does_not_fail_the_check(tmp_path: Path) -> None:
    """A node that runs, with another pack than the first of its list, passes the check."""
    with FakePacs() as pacs:
        sections = {"segmentation": {"models": [PUBLISHED, SHIPPED]}, "scp": {"port": free_port()}}
        config = write_config(tmp_path / "node", (pacs.destination,), **sections)
        result = run_glionode("check", "--config", config)
    assert "\nwarn segmentation.models: " in result.stdout
    assert result.exit_code == 0, result.stdout


def test_trained_pack_is_added_like_any_other(tmp_path: Path, node: Path) -> None:
    """What glionode train writes is a pack: with the shipped weights under another name, it is added and verified."""
    from node.methods.dropout_pack import SHIPPED as FOLDER

    text = (FOLDER / CARD).read_text("utf-8").replace(f'name = "{SHIPPED}"', 'name = "ours"')
    (tmp_path / "card.toml").write_text(text, "utf-8")
    added = models(node, "add", FOLDER, "--card", tmp_path / "card.toml")
    assert added.exit_code == 0, added.output
    verify("ours", tmp_path / "models")
    assert not read_card_file(tmp_path / "models" / "ours" / CARD).is_shipped


def test_no_pull_of_a_pack_that_was_added(tmp_path: Path, node: Path) -> None:
    """There is no address to fetch such a pack from."""
    assert models(node, "add", torchscript_pack(tmp_path / "mine")).exit_code == 0
    result = models(node, "pull", "mine")
    assert (result.exit_code, result.stderr) == (
        1,
        "error: model pack mine was installed by hand: there is nothing to fetch\n",
    )


def test_card_of_another_folder_is_refused(tmp_path: Path, node: Path) -> None:
    """A pack whose folder was renamed by hand no longer has the name of its card, and says so."""
    assert models(node, "add", torchscript_pack(tmp_path / "mine")).exit_code == 0
    (tmp_path / "models" / "mine").rename(tmp_path / "models" / "yours")
    assert "name: 'mine' is not the name of its folder" in models(node, "verify", "yours").stderr


def test_list_names_needed_and_optional_contrasts(tmp_path: Path, node: Path) -> None:
    """The shipped pack is told apart from those that need all four contrasts."""
    listed = models(node, "list").stdout
    assert "\n  needs T1c; takes FLAIR, T1, T2\n" in listed
    assert (
        f"{PUBLISHED} {read_card(PUBLISHED).version} (cascade): not installed\n  needs T1, T1c, T2, FLAIR\n" in listed
    )


def test_states_of_a_pack_are_listed(tmp_path: Path, node: Path) -> None:
    """For which exams a pack was made stands in the list."""
    regions = ["tumour_core", "whole_tumour"]
    source = torchscript_pack(tmp_path / "after", regions, states=["post-operative"])
    assert models(node, "add", source).exit_code == 0
    assert "\n  gives tumour core, whole tumour; for post-operative exams\n" in models(node, "list").stdout
